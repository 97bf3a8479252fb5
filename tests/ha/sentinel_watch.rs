//! Promise: the sentinels may die, come, and disagree, and have a login of their own: a lock is
//! kept as long as the connection to its master lives, no server is dialled that no sentinel
//! names, and an error says what is wrong.

use crate::after::{KEPT, answers_soon_after, assert_excludes, first_yes};
use crate::support::ports::ReservedPort;
use crate::support::queue::subscriptions;
use crate::support::redis::RedisServer;
use crate::support::refusal::{
    PASSWORD, assert_misconfigured, assert_unavailable, refusal, refused_connection,
};
use crate::support::sentinel::{Layout, NAME, SOON, SentinelSet};
use crate::support::steps::{assert_verified, impatient, is_taken, take};
use crate::support::wait;
use applock::Error;

const APP: &str = "held";
const KEY: &str = "QUEUE:held";

#[test]
fn sentinels_that_die_one_by_one_cost_no_holder_its_lock_and_without_any_none_connects() {
    let mut set = SentinelSet::start();
    let holder = impatient(set.url());
    let guard = take(&holder.lock(APP).ttl(KEPT));
    for at in 0..3 {
        set.sentinels[at].kill();
        assert_verified(&guard);
        if at < 2 {
            assert_excludes(&impatient(set.url()), APP);
        }
    }
    drop(take(&holder.lock("another")));
    let error = refused_connection(&set.url());
    assert_unavailable(&error, &["no sentinel answers: nothing answers there"]);
    // Nor is a new connection made to a master of which nobody says that it is one.
    let _: i64 = set.servers[0].run("CLIENT KILL TYPE normal");
    let error = refusal(&holder);
    assert_unavailable(&error, &["no sentinel answers"]);
    assert!(guard.is_held());
    set.sentinels[1].restart();
    wait::until("one sentinel is enough", SOON, || {
        guard.verify_blocking().is_ok()
    });
    assert_verified(&guard);
}

#[test]
fn sentinels_that_the_url_does_not_name_are_learned_of() {
    let mut set = SentinelSet::start();
    let holder = impatient(set.url_of([0]));
    let guard = take(&holder.lock(APP).ttl(KEPT));
    wait::until("the replicas have the lock", SOON, || {
        set.servers.iter().all(|server| is_taken(server, KEY))
    });
    // One that came later, too: a question a second tells of it.
    set.add_sentinel();
    set.until_known();
    wait::until("the holder listens to all", SOON, || {
        set.sentinels.iter().all(listened_to)
    });
    set.sentinels.swap(0, 3);
    set.sentinels.truncate(3);
    let new = answers_soon_after(&guard, || set.fail_over());
    wait::until("the lock is renewed at the new master", SOON, || {
        first_yes(&guard);
        set.servers[new].scripts() > 0
    });
    assert_verified(&guard);
}

/// A locker has subscribed to what this sentinel publishes: other sentinels never do.
fn listened_to(sentinel: &RedisServer) -> bool {
    subscriptions(sentinel) == 1
}

#[test]
fn of_sentinels_that_disagree_the_one_with_the_newest_configuration_counts() {
    let set = SentinelSet::start();
    let (new, _) = set.fail_over();
    set.names().until_all(new);
    // One that knows another server by the same name, and of no failover.
    let stranger = RedisServer::start();
    let monitor = format!("sentinel monitor {NAME} 127.0.0.1 {} 2", stranger.port());
    let outdated = RedisServer::sentinel(&monitor);
    let url = format!(
        "redis+sentinel://127.0.0.1:{},127.0.0.1:{},127.0.0.1:{}/{NAME}",
        outdated.port(),
        set.sentinels[0].port(),
        set.sentinels[1].port(),
    );
    let holder = impatient(&url);
    let guard = take(&holder.lock(APP).ttl(KEPT));
    for _ in 0..5 {
        assert_excludes(&impatient(&url), APP);
    }
    assert!(is_taken(&set.servers[new], KEY));
    assert_eq!(stranger.scripts(), 0, "the stranger is asked");
    assert_verified(&guard);
}

#[test]
fn a_name_that_the_sentinels_do_not_know_is_told_with_what_to_write() {
    let set = SentinelSet::start();
    let url = set.url().replace(&format!("/{NAME}"), "/reports");
    let error = refused_connection(&url);
    assert_misconfigured(&error, &["reports", "sentinel.conf"]);
    // Another server than a sentinel.
    let url = format!(
        "redis+sentinel://127.0.0.1:{}/{NAME}",
        set.servers[0].port()
    );
    let error = refused_connection(&url);
    assert_misconfigured(&error, &["no sentinel", "redis://"]);
    // And a sentinel, where a server is meant.
    let url = format!("redis://127.0.0.1:{}", set.sentinels[0].port());
    let error = refusal(&crate::support::refusal::unconnected(&url));
    assert_misconfigured(&error, &["redis+sentinel://"]);
}

#[test]
fn sentinels_have_a_password_of_their_own_and_servers_theirs() {
    let theirs = "of-the-sentinels";
    let lines = format!(
        "requirepass {theirs}\nsentinel sentinel-pass {theirs}\nsentinel auth-pass {NAME} {PASSWORD}\n"
    );
    let set = SentinelSet::with(&Layout {
        arguments: &["--requirepass", PASSWORD, "--masterauth", PASSWORD],
        lines: &lines,
        ..Layout::default()
    });
    let with = |login: &str, query: &str| {
        let url = set.url().replace("://", &format!("://{login}"));
        format!("{url}{query}")
    };
    let (login, query) = (
        format!(":{PASSWORD}@"),
        format!("?sentinel_password={theirs}"),
    );
    let guard = take(&impatient(with(&login, &query)).lock(APP).ttl(KEPT));
    assert!(is_taken(&set.servers[0], KEY));
    assert_verified(&guard);
    for (login, query, is_theirs) in [
        (&*login, "", true),
        (&*login, "?sentinel_password=wrong", true),
        ("", &*query, false),
        (":wrong@", &*query, false),
    ] {
        let error = refused_connection(&with(login, query));
        // Whose login it is, and how that is written.
        let says = error.to_string();
        assert_eq!(says.contains("sentinel_password="), is_theirs, "{says}");
        let servers = set.servers[0].port().to_string();
        assert_eq!(says.contains(&servers), !is_theirs, "{says}");
        assert!(
            matches!(error, Error::Denied(_)),
            "{login} {query}: {error}"
        );
        let shown = format!("{error} {error:?}");
        assert!(!shown.contains(theirs), "{shown}");
    }
}

#[test]
fn an_address_that_sentinels_name_and_that_leads_nowhere_is_told() {
    let nowhere = ReservedPort::new();
    let announced = format!("127.0.0.1 {}", nowhere.number());
    let sentinel = RedisServer::sentinel(&format!("sentinel monitor {NAME} {announced} 2"));
    let url = format!("redis+sentinel://127.0.0.1:{}/{NAME}", sentinel.port());
    let error = refused_connection(&url);
    let announced = announced.replace(' ', ":");
    assert_unavailable(&error, &[&announced, "replica-announce-ip"]);
}

#[test]
fn a_replica_that_the_sentinels_name_is_never_believed() {
    let set = SentinelSet::start();
    let holder = impatient(set.url());
    let guard = take(&holder.lock(APP).ttl(KEPT));
    wait::until("the replicas have the lock", SOON, || {
        set.servers.iter().all(|server| is_taken(server, KEY))
    });
    // By hand: the sentinels are not told.
    let to = set.servers[1].port();
    let () = set.servers[0].run(&format!("FAILOVER TO 127.0.0.1 {to}"));
    wait::until("the servers have changed places", SOON, || {
        set.servers[1].is_master() && set.servers[0].is_replica()
    });
    let mut error = None;
    wait::until("the holder is told why", SOON, || {
        let refused = refusal(&holder);
        let says = refused.to_string().contains("read-only replica");
        error = Some(refused);
        says
    });
    assert_unavailable(&error.unwrap(), &["read-only replica", "SENTINEL RESET"]);
    assert!(!matches!(guard.verify_blocking(), Ok(false)));
    assert!(guard.is_held(), "its lease is not over");
    // The operator goes back.
    let to = set.servers[0].port();
    let () = set.servers[1].run(&format!("FAILOVER TO 127.0.0.1 {to}"));
    assert_verified(&guard);
    assert_excludes(&holder, APP);
}
