//! Promise: in a cluster a lock whose write has reached the replica is kept over every failover,
//! and renewed at the new master at once; one whose write was lost is reported as lost at the
//! switch, and one whose release was lost is free soon after it; who waits, in whatever process, is served by the new master in its old order.

use std::time::{Duration, Instant, SystemTime};

use crate::after::{
    KEPT, NEXT, STAYS, answers_soon_after, assert_excludes, assert_soon, first_yes, until_taken,
};
use crate::support::child::{self, ChildProcess};
use crate::support::cluster::{Cluster, SOON, Takes};
use crate::support::lease::{LIMIT, assert_lost, last_yes_and_first_no};
use crate::support::queue::length_of;
use crate::support::redis::RedisServer;
use crate::support::steps::{give_back, impatient, is_taken, take, until_free};
use crate::support::wait;
use applock::{AppLocker, LockGuard, Loss};

/// A replica has the lock, as it says once it is a master: till then it tells nobody.
fn until_replicated(master: &RedisServer, replica: &RedisServer) {
    wait::until("the replica has the lock", SOON, || {
        let offset = |server: &RedisServer| server.info("master_repl_offset");
        offset(replica) >= offset(master)
    });
}

/// A lock at the first master, which the replica has.
fn held(cluster: &Cluster) -> (AppLocker, LockGuard, String) {
    let locker = impatient(cluster.url());
    let app = cluster.app(0, 0);
    let guard = take(&locker.lock(&*app).ttl(KEPT));
    until_replicated(&cluster.nodes[0], &cluster.nodes[3]);
    (locker, guard, app)
}

fn is_kept(
    mut cluster: Cluster,
    fails: impl FnOnce(&mut Cluster),
    serves: impl FnOnce(&Cluster) -> Instant,
) {
    let (_locker, guard, app) = held(&cluster);
    let token = guard.fencing_token();
    fails(&mut cluster);
    answers_soon_after(&guard, || ((), serves(&cluster)));
    let key = format!("QUEUE:{app}");
    assert_eq!(cluster.nodes[3].token(&key), token);
    let other = impatient(cluster.url());
    assert_excludes(&other, &app);
    first_yes(&guard);
    give_back(guard);
    assert!(take(&other.lock(app)).fencing_token() > token);
}

#[test]
fn a_lock_is_kept_when_its_replica_takes_over() {
    is_kept(Cluster::start(), |_| (), |all| all.promote(3, Takes::Over));
}

#[test]
fn a_lock_is_kept_when_its_replica_takes_over_by_force() {
    is_kept(Cluster::start(), |_| (), |all| all.promote(3, Takes::Force));
}

#[test]
fn a_lock_is_kept_when_its_master_is_killed() {
    let kill = |cluster: &mut Cluster| cluster.nodes[0].kill();
    is_kept(Cluster::quick(), kill, |all| all.until_promoted(3));
}

#[test]
fn a_lock_is_kept_when_its_master_stands_still() {
    let freeze = |cluster: &mut Cluster| cluster.nodes[0].freeze();
    is_kept(Cluster::quick(), freeze, |all| all.until_promoted(3));
}

#[test]
fn no_caller_of_many_notices_a_planned_failover() {
    let cluster = Cluster::start();
    let locker = AppLocker::connect_blocking(cluster.url()).unwrap();
    let apps: Vec<String> = (0..3).map(|master| cluster.app(master, 0)).collect();
    let end = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let (locker, end) = (&locker, &end);
        let callers: Vec<_> = apps
            .iter()
            .map(|app| {
                scope.spawn(move || {
                    let mut longest = Duration::ZERO;
                    while !end.load(std::sync::atomic::Ordering::Relaxed) {
                        let begun = Instant::now();
                        let guard = locker.lock(&**app).acquire_blocking().expect("a free lock");
                        guard.release_blocking().expect("it was held");
                        longest = longest.max(begun.elapsed());
                    }
                    longest
                })
            })
            .collect();
        // Not one of them twice: nodes do not vote for another master of a shard so soon.
        for replica in [3, 4, 5] {
            cluster.promote(replica, Takes::Over);
            cluster.until_well();
        }
        end.store(true, std::sync::atomic::Ordering::Relaxed);
        for caller in callers {
            let longest = caller.join().expect("no refusal");
            assert!(longest < STAYS, "{longest:?}");
        }
    });
}

#[test]
fn a_holder_whose_lease_is_shorter_than_the_failover_learns_of_its_loss_in_time() {
    let mut cluster = Cluster::start();
    let locker = impatient(cluster.url());
    let ttl = Duration::from_secs(2);
    let guard = take(&locker.lock(cluster.app(0, 0)).ttl(ttl));
    let begun = SystemTime::now();
    // A minute until its replica would take over.
    cluster.nodes[0].kill();
    let (last_yes, _) = last_yes_and_first_no(&guard);
    assert!(last_yes < begun + ttl, "held after its ttl");
    assert_lost(&guard.ensure_held().unwrap_err(), Loss::Expired);
}

#[test]
fn a_lock_that_a_failover_lost_is_reported_as_lost_at_the_switch_and_the_next_token_is_larger() {
    let cluster = Cluster::start();
    let locker = impatient(cluster.url());
    let app = cluster.app(0, 0);
    cluster.nodes[0].part_from_replicas();
    let guard = take(&locker.lock(&*app).ttl(KEPT));
    cluster.promote(3, Takes::Power);
    wait::until("the old master knows", SOON, || {
        !cluster.masters_by(0).contains(&0)
    });
    // No step meets the old master: the holder asks nothing.
    let at = Instant::now();
    let told = until_taken(&guard);
    assert_soon("the loss", at, told, STAYS);
    let next = take(&impatient(cluster.url()).lock(&*app));
    assert!(next.fencing_token() > guard.fencing_token());
    assert!(guard.release_blocking().is_err());
    assert!(next.is_held());
}

#[test]
fn a_release_that_was_lost_with_the_old_master_is_sent_again_to_the_new_one() {
    let cluster = Cluster::start();
    let (locker, guard, app) = held(&cluster);
    let key = format!("QUEUE:{app}");
    cluster.nodes[0].part_from_replicas();
    guard.release_blocking().unwrap();
    let at = cluster.promote(3, Takes::Power);
    assert!(is_taken(&cluster.nodes[3], &key), "what was lost");
    // The program does nothing.
    until_free(&cluster.nodes[3], &key, SOON);
    assert_soon("the release", at, Instant::now(), STAYS);
    drop(locker);
}

/// Waits for the lock, says when it has it, and keeps it until it is dismissed.
fn waits(part: &str) {
    let (url, app) = part.split_once(' ').expect("a URL and an app");
    let locker = impatient(url);
    child::say("ready");
    let guard = locker.lock(app).ttl(KEPT).wait(LIMIT);
    let guard = guard.acquire_blocking().expect("it is granted the lock");
    child::say(guard.fencing_token());
    child::until_dismissed();
}

#[test]
fn who_waits_in_another_process_is_served_by_the_new_master() {
    if let Some(part) = child::part() {
        return waits(&part);
    }
    let cluster = Cluster::start();
    let (_locker, guard, app) = held(&cluster);
    let key = format!("QUEUE:{app}");
    let name = child::name_of(who_waits_in_another_process_is_served_by_the_new_master);
    let child = ChildProcess::start(name, &format!("{} {app}", cluster.url()));
    assert_eq!(child.says(), "ready");
    wait::until("it waits", SOON, || length_of(&cluster.nodes[0], &key) == 1);
    cluster.promote(3, Takes::Over);
    first_yes(&guard);
    let token = guard.fencing_token();
    let released = Instant::now();
    guard.release_blocking().unwrap();
    let served: u64 = child.says().parse().unwrap();
    assert_soon("the grant", released, Instant::now(), NEXT);
    assert!(served > token);
    assert_eq!(cluster.nodes[3].token(&key), served);
    child.dismiss();
}

#[test]
fn who_waits_is_served_after_the_lease_of_a_holder_that_died_with_its_master() {
    let mut cluster = Cluster::quick();
    let app = cluster.app(0, 0);
    let ttl = Duration::from_secs(8);
    let (holder, clock) = {
        // Its heart does not beat: as good as dead.
        let clock = applock::clock::ManualClock::new();
        let builder = AppLocker::builder().store(&*cluster.url());
        (builder.clock(clock.clone()).build().unwrap(), clock)
    };
    let guard = holder.lock(&*app).ttl(ttl).acquire_blocking().unwrap();
    until_replicated(&cluster.nodes[0], &cluster.nodes[3]);
    cluster.nodes[0].kill();
    let waiter = impatient(cluster.url_of(1..6));
    let next = waiter.lock(&*app).wait(LIMIT).acquire_blocking().unwrap();
    assert!(next.fencing_token() > guard.fencing_token());
    assert!(
        next.waited() >= Duration::from_secs(2),
        "{:?}",
        next.waited()
    );
    drop(clock);
}
