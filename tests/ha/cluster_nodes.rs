//! Promise: what becomes of one node harms the locks of no other: one that stands still, that was
//! reset, has moved, wants another password, or is alone; and any node will do in the URL.

use std::time::{Duration, Instant, SystemTime};

use crate::after::{KEPT, assert_excludes, first_yes};
use crate::support::cluster::{Cluster, Layout, SOON};
use crate::support::lease::{assert_lost, last_yes_and_first_no};
use crate::support::ports::ReservedPort;
use crate::support::proxy::{Call, FaultProxy};
use crate::support::redis::RedisServer;
use crate::support::refusal::{assert_denied, assert_unavailable};
use crate::support::stalls::Stalls;
use crate::support::steps::{assert_verified, give_back, impatient, is_taken, refused, take};
use crate::support::wait;
use applock::{AppLocker, Error, Loss};

/// The time of an acquire and a release of each of these locks, the longest.
fn longest(locker: &AppLocker, apps: &[String]) -> Duration {
    let time = |app: &String| {
        let begun = Instant::now();
        let guard = locker.lock(&**app).acquire_blocking().expect("a free lock");
        guard.release_blocking().expect("it was held");
        begun.elapsed()
    };
    apps.iter().map(time).max().expect("there are some")
}

#[test]
fn a_node_that_stands_still_delays_no_lock_of_another() {
    let cluster = Cluster::with(&Layout {
        arguments: &["--cluster-require-full-coverage", "no"],
        ..Layout::default()
    });
    let locker = AppLocker::connect_blocking(cluster.url()).unwrap();
    let frozen = cluster.app(0, 0);
    let others: Vec<String> = (0..6)
        .map(|number| cluster.app(1 + number % 2, number))
        .collect();
    let guard = take(&locker.lock(&*frozen).ttl(KEPT));
    longest(&locker, &others);
    cluster.nodes[0].freeze();
    let stalls = Stalls::watch();
    std::thread::scope(|scope| {
        // All the time there is a request to the frozen node under way, with the holder's own.
        let asking = scope.spawn(|| {
            let mut errors = 0;
            while errors < 5 {
                errors += u32::from(locker.lock(&*frozen).try_acquire_blocking().is_err());
            }
        });
        let mut rounds = 0;
        while !asking.is_finished() {
            let stalled = stalls.total();
            let took = longest(&locker, &others);
            // But for what the machine itself stood still.
            let took = took.saturating_sub(stalls.total() - stalled);
            // A request to the frozen node takes a second.
            assert!(took < Duration::from_millis(500), "{took:?}");
            rounds += 1;
        }
        assert!(rounds > 10, "{rounds}");
    });
    cluster.nodes[0].thaw();
    assert_verified(&guard);
}

#[test]
fn a_node_that_was_reset_and_knows_no_slots_is_not_believed() {
    let cluster = Cluster::start();
    let holder = impatient(cluster.url());
    let app = cluster.app(1, 0);
    let guard = take(&holder.lock(&*app).ttl(KEPT));
    // One that this locker may ask for the map, and that stands first in the URL of another.
    cluster.reset(5);
    assert_verified(&guard);
    let other = impatient(cluster.url_of([5, 0]));
    assert_excludes(&other, &app);
    drop(take(&other.lock(cluster.app(2, 0))));
    let error = AppLocker::connect_blocking(cluster.url_of([5])).unwrap_err();
    assert_unavailable(&error, &[]);
}

#[test]
fn a_master_that_is_alone_is_left_in_time_and_serves_again_when_the_others_are_back() {
    let cluster = Cluster::quick();
    let holder = impatient(cluster.url());
    let app = cluster.app(0, 0);
    let another = cluster.app(0, 1);
    let ttl = Duration::from_secs(6);
    let guard = take(&holder.lock(&*app).ttl(ttl));
    let begun = SystemTime::now();
    for node in &cluster.nodes[1..] {
        node.freeze();
    }
    // It answers still for a node time-out.
    assert_verified(&guard);
    let mut refused = None;
    wait::until("it refuses", SOON, || {
        // Busy: the one before is not released yet.
        let error = holder.lock(&*another).acquire_blocking().err();
        refused = error.filter(|error| !matches!(error, Error::Busy(_)));
        refused.is_some()
    });
    let refused = refused.unwrap();
    assert!(matches!(refused, Error::Unavailable(_)), "{refused}");
    let (last_yes, _) = last_yes_and_first_no(&guard);
    let silent = Duration::from_secs(4);
    assert!(last_yes < begun + silent + ttl, "held after its ttl");
    assert_lost(&guard.ensure_held().unwrap_err(), Loss::Expired);
    for node in &cluster.nodes[1..] {
        node.thaw();
    }
    let next = take(&holder.lock(&*app).ttl(KEPT));
    assert!(next.fencing_token() > guard.fencing_token());
}

#[test]
fn a_node_that_comes_back_at_another_port_with_its_data_is_found() {
    let mut cluster = Cluster::start();
    let holder = impatient(cluster.url());
    let app = cluster.app(0, 0);
    let guard = take(&holder.lock(&*app).ttl(KEPT));
    cluster.nodes[0].keep_data();
    cluster.nodes[0].restart_elsewhere();
    first_yes(&guard);
    assert_eq!(
        cluster.nodes[0].token(&format!("QUEUE:{app}")),
        guard.fencing_token()
    );
    assert_excludes(&impatient(cluster.url_of(1..6)), &app);
    give_back(guard);
}

#[test]
fn an_answer_that_a_node_has_lost_is_unknown_and_neither_no_nor_told_twice() {
    let cluster = Cluster::start();
    let proxy = FaultProxy::before(&cluster.nodes[0]);
    cluster.announce(0, proxy.port());
    let locker = impatient(cluster.url_of(1..6));
    let app = cluster.app(0, 0);
    let key = format!("QUEUE:{app}");
    let guard = take(&locker.lock(&*app).ttl(KEPT));
    proxy.reset_for_reply(Call::Release);
    // It was carried out: 'not held' would be wrong.
    guard.release_blocking().expect("it was released");
    assert!(!is_taken(&cluster.nodes[0], &key));
    proxy.reset_for_reply(Call::Acquire);
    let guard = take(&locker.lock(&*app).ttl(KEPT));
    proxy.reset_for_reply(Call::Renew);
    assert_verified(&guard);
    assert_eq!(cluster.nodes[0].token(&key), guard.fencing_token());
}

#[test]
fn nodes_whose_address_the_map_leaves_out_are_at_the_host_that_was_asked() {
    let cluster = Cluster::start();
    for node in &cluster.nodes {
        let words = ["CONFIG", "SET", "cluster-preferred-endpoint-type"];
        let set = node.try_run::<()>(&[&words[..], &["unknown-endpoint"]].concat());
        set.expect("Redis 7 or Valkey");
    }
    works_everywhere(&cluster, &cluster.url());
}

#[test]
fn nodes_that_announce_names_are_dialled_by_these() {
    let cluster = Cluster::start();
    for node in &cluster.nodes {
        let () = node.run("CONFIG SET cluster-announce-hostname localhost");
        let () = node.run("CONFIG SET cluster-preferred-endpoint-type hostname");
    }
    wait::until("all know the names", SOON, || {
        cluster.nodes.iter().all(|node| {
            let about: String = node.run("CLUSTER NODES");
            about.matches(",localhost").count() == 6
        })
    });
    works_everywhere(&cluster, &cluster.url());
}

#[test]
fn a_url_that_names_replicas_leads_to_the_masters() {
    let cluster = Cluster::start();
    works_everywhere(&cluster, &cluster.url_of([4]));
    works_everywhere(&cluster, &cluster.url_of([5, 3]));
}

/// Locks of all masters are taken, kept and released.
#[track_caller]
fn works_everywhere(cluster: &Cluster, url: &str) {
    let (ours, theirs) = (impatient(url), impatient(cluster.url()));
    for master in 0..3 {
        let app = cluster.app(master, 0);
        let guard = take(&ours.lock(&*app).ttl(KEPT));
        assert!(is_taken(&cluster.nodes[master], &format!("QUEUE:{app}")));
        assert_verified(&guard);
        assert_excludes(&theirs, &app);
        guard.release_blocking().unwrap();
    }
}

#[test]
fn a_password_that_one_node_refuses_is_told_of_that_node_and_the_others_serve() {
    let mut cluster = Cluster::start();
    let (there, elsewhere) = (cluster.app(2, 0), cluster.app(0, 0));
    cluster.nodes[2].demand_password();
    let locker = AppLocker::builder().store(cluster.url_of([0, 1]));
    let locker = locker.build().unwrap();
    let error = refused(|| locker.lock(there.clone()).try_acquire_blocking());
    assert_denied(&error, &[&cluster.nodes[2].port().to_string()]);
    drop(take(&locker.lock(elsewhere)));
}

#[test]
fn a_shard_that_is_down_for_good_is_told_with_the_setting_that_spares_the_others() {
    let mut cluster = Cluster::with(&Layout {
        replicas_each: 0,
        node_timeout: Duration::from_secs(2),
        ..Layout::default()
    });
    let locker = impatient(cluster.url());
    let (gone, other) = (cluster.app(0, 0), cluster.app(1, 0));
    drop(take(&locker.lock(&*other)));
    cluster.nodes[0].kill();
    let refused = |app: &str, words: &[&str]| {
        wait::until(&format!("{words:?} is told of {app}"), SOON, || {
            let refused = locker.lock(app).acquire_blocking();
            refused.is_err_and(|error| {
                matches!(error, Error::Unavailable(_))
                    && words.iter().all(|word| error.to_string().contains(word))
            })
        });
    };
    refused(&other, &["cluster-require-full-coverage"]);
    let all: &[RedisServer] = &cluster.nodes[1..];
    for node in all {
        let () = node.run("CONFIG SET cluster-require-full-coverage no");
    }
    wait::until("the other shards serve", SOON, || {
        locker.lock(&*other).acquire_blocking().is_ok()
    });
    refused(&gone, &[]);
}

/// Behind a network that translates addresses, or in a container.
#[test]
fn an_address_that_a_node_announces_and_that_leads_nowhere_is_named() {
    let cluster = Cluster::start();
    let nowhere = ReservedPort::new();
    for node in &cluster.nodes {
        let () = node.run(&format!(
            "CONFIG SET cluster-announce-port {}",
            nowhere.number()
        ));
    }
    let announced = format!("127.0.0.1:{}", nowhere.number());
    wait::until("all know that address", SOON, || {
        cluster.nodes.iter().all(|node| {
            let about: String = node.run("CLUSTER NODES");
            about.matches(&announced).count() == 6
        })
    });
    let locker = AppLocker::builder().store(cluster.url()).build().unwrap();
    let error = refused(|| locker.lock("job").try_acquire_blocking());
    assert_unavailable(&error, &[&announced, "cluster-announce-ip"]);
    let error = refused(|| AppLocker::connect_blocking(cluster.url()));
    assert_unavailable(&error, &[&announced, "cluster-announce-ip"]);
}

#[test]
fn nodes_that_are_to_be_known_by_names_and_have_none_are_told() {
    let cluster = Cluster::start();
    for node in &cluster.nodes {
        let () = node.run("CONFIG SET cluster-preferred-endpoint-type hostname");
    }
    let error = refused(|| AppLocker::connect_blocking(cluster.url()));
    assert_unavailable(&error, &["cluster-announce-hostname"]);
}

/// In Kubernetes addresses are used again. A higher epoch does not make the other cluster's map ours.
#[test]
fn a_node_of_another_cluster_at_the_address_of_one_of_ours_is_not_believed() {
    let cluster = Cluster::with(&Layout {
        replicas_each: 0,
        ..Layout::default()
    });
    let foreign = RedisServer::reserved(&["--cluster-enabled", "yes"]);
    let slots: Vec<String> = (0..16_384).map(|slot: u16| slot.to_string()).collect();
    let words = ["CLUSTER", "ADDSLOTS"].into_iter();
    let words: Vec<&str> = words.chain(slots.iter().map(String::as_str)).collect();
    let () = foreign.try_run(&words).unwrap();
    let () = foreign.run("CLUSTER SET-CONFIG-EPOCH 100");
    wait::until("the other cluster is well", SOON, || {
        let info: String = foreign.run("CLUSTER INFO");
        info.contains("cluster_state:ok")
    });
    let proxy = FaultProxy::before(&cluster.nodes[1]);
    cluster.announce(1, proxy.port());
    let holder = impatient(cluster.url_of([0, 2]));
    let (app, gone) = (cluster.app(0, 0), cluster.app(1, 0));
    let guard = take(&holder.lock(&*app).ttl(KEPT));
    let first = take(&holder.lock(&*gone));
    first.release_blocking().unwrap();

    // Redis 6.2 counts all of CLUSTER's as one.
    let asked = || foreign.calls("cluster|slots") + foreign.calls("cluster");
    let before = asked();
    proxy.lead_to(&foreign);
    proxy.reset();
    // In peace the map is fetched each half minute, and who answers late is not waited for; in trouble
    // it is fetched again and again.
    cluster.nodes[2].freeze();
    let silent = holder.lock(cluster.app(2, 0)).ttl(KEPT);
    assert!(silent.try_acquire_blocking().is_err());
    wait::until("its map is fetched", SOON, || {
        assert!(
            guard.verify_blocking().ok() != Some(false),
            "asked elsewhere"
        );
        asked() > before
    });
    cluster.nodes[2].thaw();
    wait::until("all is well again", SOON, || {
        silent.acquire_blocking().is_ok()
    });
    let until = Instant::now() + Duration::from_secs(3);
    for number in 0.. {
        assert_verified(&guard);
        let other = cluster.app(2, number);
        let next = take(&holder.lock(&*other).ttl(KEPT));
        assert!(is_taken(&cluster.nodes[2], &format!("QUEUE:{other}")));
        next.release_blocking().unwrap();
        if Instant::now() > until {
            break;
        }
    }
    assert_excludes(&impatient(cluster.url_of([0, 2])), &app);

    proxy.lead_to(&cluster.nodes[1]);
    proxy.reset();
    let next = take(&holder.lock(&*gone).ttl(KEPT));
    assert!(is_taken(&cluster.nodes[1], &format!("QUEUE:{gone}")));
    next.release_blocking().unwrap();
    assert_verified(&guard);
}
