//! Promise: a lock whose write has reached a replica is kept over every failover of Sentinel,
//! and renewed at the new master at once; one whose write was lost is reported as lost at the
//! switch; a planned failover, which leaves two masters for ten seconds, leaves no two holders; a
//! lock whose release was lost with the old master is free at the new one soon after the switch.

use std::thread;
use std::time::{Duration, Instant};

use crate::after::{
    FIRST_ANSWER, KEPT, NEXT, STAYS, answers_soon_after, assert_excludes, assert_soon, first_yes,
    until_taken,
};
use crate::support::lease::{LIMIT, assert_lost, last_yes_and_first_no};
use crate::support::queue::length_of;
use crate::support::sentinel::{SOON, SentinelSet};
use crate::support::steps::{give_back, impatient, is_taken, take, until_free};
use crate::support::wait;
use applock::{AppLocker, LockGuard, Loss};

const APP: &str = "job";
const KEY: &str = "QUEUE:job";

/// A holder at a set of servers of which all have its lock.
fn held(set: &SentinelSet) -> (AppLocker, LockGuard) {
    let locker = impatient(set.url());
    let guard = take(&locker.lock(APP).ttl(KEPT));
    wait::until("the replicas have the lock", SOON, || {
        set.servers.iter().all(|server| is_taken(server, KEY))
    });
    (locker, guard)
}

/// A lock is kept though its master fails, and answers come from the new one as soon as it is
/// named.
fn is_kept(fails: fn(&mut SentinelSet)) {
    let mut set = SentinelSet::quick();
    let (_locker, guard) = held(&set);
    let token = guard.fencing_token();
    let mut names = set.names();
    fails(&mut set);
    let new = answers_soon_after(&guard, || names.until_another(0));
    assert_eq!(set.servers[new].token(KEY), token);
    let other = impatient(set.url());
    assert_excludes(&other, APP);
    give_back(guard);
    assert!(take(&other.lock(APP)).fencing_token() > token);
}

#[test]
fn a_lock_is_kept_when_its_master_is_killed() {
    is_kept(|set| set.servers[0].kill());
}

#[test]
fn a_lock_is_kept_when_its_master_stands_still() {
    is_kept(|set| set.servers[0].freeze());
}

#[test]
fn a_lock_is_kept_when_its_master_is_asked_to_end() {
    is_kept(|set| set.servers[0].terminate());
}

#[test]
fn a_holder_whose_lease_is_shorter_than_the_failover_learns_of_its_loss_in_time() {
    let mut set = SentinelSet::quick();
    let locker = impatient(set.url());
    let ttl = Duration::from_secs(2);
    let guard = take(&locker.lock(APP).ttl(ttl));
    // As good as killed, and nothing is promoted before the lease is over.
    set.sentinels.clear();
    let begun = std::time::SystemTime::now();
    set.servers[0].freeze();
    let (last_yes, _) = last_yes_and_first_no(&guard);
    assert!(last_yes < begun + ttl, "held after its ttl");
    assert_lost(&guard.ensure_held().unwrap_err(), Loss::Expired);
}

#[test]
fn a_planned_failover_is_followed_at_once_though_the_old_master_goes_on_answering() {
    let set = SentinelSet::start();
    let (locker, guard) = held(&set);
    let (new, at) = set.fail_over();
    // Nothing asks but the library itself.
    wait::until("a heartbeat at the new master", SOON, || {
        set.servers[new].scripts() > 0
    });
    assert_soon("a heartbeat", at, Instant::now(), STAYS);
    assert!(set.servers[0].is_master(), "there are two");
    let before = set.servers[0].scripts();
    for _ in 0..20 {
        first_yes(&guard);
        drop(take(&locker.lock("another")));
    }
    assert_eq!(set.servers[0].scripts(), before, "the old master is asked");
    assert!(guard.is_held());
    assert_excludes(&impatient(set.url()), APP);
}

#[test]
fn a_lock_that_a_failover_lost_is_reported_as_lost_at_the_switch_and_the_next_token_is_larger() {
    let set = SentinelSet::start();
    let locker = impatient(set.url());
    set.servers[0].part_from_replicas();
    let guard = take(&locker.lock(APP).ttl(KEPT));
    let (new, at) = set.fail_over();
    let told = until_taken(&guard);
    assert_soon("the loss", at, told, STAYS);
    assert!(!is_taken(&set.servers[new], KEY));
    let next = take(&impatient(set.url()).lock(APP));
    assert!(next.fencing_token() > guard.fencing_token());
    assert!(guard.release_blocking().is_err());
    assert!(next.is_held());
}

#[test]
fn over_a_planned_failover_no_lock_has_two_holders_for_longer_than_the_switch() {
    let set = SentinelSet::start();
    let locker = impatient(set.url());
    let taking = |number: usize| locker.lock("double").name(number.to_string()).ttl(KEPT);
    let mut guards: Vec<(Instant, LockGuard)> = Vec::new();
    let (named, at) = thread::scope(|scope| {
        let failing = scope.spawn(|| set.fail_over());
        // Before, while the two masters are there, and after.
        let mut after = None;
        for number in 0.. {
            if failing.is_finished() {
                let end = after.get_or_insert_with(|| Instant::now() + STAYS + FIRST_ANSWER);
                if Instant::now() > *end {
                    break;
                }
            }
            if let Ok(guard) = taking(number).acquire_blocking() {
                guards.push((Instant::now(), guard));
            }
            thread::sleep(Duration::from_millis(5));
        }
        failing.join().expect("a failover")
    });
    assert!(guards.len() > 50, "{}", guards.len());
    let newcomer = impatient(set.url());
    for (granted, guard) in &guards {
        let name = guard.info().name().unwrap_or_default().to_owned();
        let again = newcomer.lock("double").name(&name).try_acquire_blocking();
        let again = again.expect("the new master answers");
        assert!(
            !(guard.is_held() && again.is_some()),
            "lock {name} has two holders"
        );
        if again.is_some() {
            assert_soon("a grant of the old master", at, *granted, STAYS);
        }
    }
    // Those of the new master are held.
    let (_, last) = guards.last().unwrap();
    assert!(last.is_held());
    let name = last.info().name().unwrap_or_default().to_owned();
    assert!(is_taken(
        &set.servers[named],
        &format!("QUEUE:double:{name}")
    ));
}

#[test]
fn who_waits_is_served_by_the_new_master_when_the_holder_releases() {
    let set = SentinelSet::start();
    let (_holder, guard) = held(&set);
    let waiter = impatient(set.url());
    thread::scope(|scope| {
        let waiting = scope.spawn(|| {
            let lock = waiter.lock(APP).ttl(KEPT).wait(LIMIT);
            (lock.acquire_blocking().unwrap(), Instant::now())
        });
        wait::until("it waits", SOON, || length_of(&set.servers[0], KEY) == 1);
        let (new, _) = set.fail_over();
        let new_master = &set.servers[new];
        wait::until("the waiter listens to the new master", SOON, || {
            let channels: Vec<String> = new_master.run("PUBSUB CHANNELS applock:*");
            !channels.is_empty()
        });
        let token = guard.fencing_token();
        wait::until("the holder's heartbeats go to the new master", SOON, || {
            first_yes(&guard);
            // The old one's do not come there any more.
            new_master.run::<u128>(&format!("PTTL {KEY}")) + 500 > KEPT.as_millis()
        });
        let released = Instant::now();
        guard.release_blocking().unwrap();
        let (next, served) = waiting.join().unwrap();
        assert_soon("the grant", released, served, NEXT);
        assert!(next.fencing_token() > token);
        assert_eq!(set.servers[new].token(KEY), next.fencing_token());
    });
}

#[test]
fn a_release_that_was_lost_with_the_old_master_is_sent_again_to_the_new_one() {
    let set = SentinelSet::start();
    let (holder, guard) = held(&set);
    set.servers[0].part_from_replicas();
    guard.release_blocking().unwrap();
    for replica in &set.servers[1..] {
        assert!(is_taken(replica, KEY), "what is lost");
    }
    let (new, at) = set.fail_over();
    // The holder does nothing.
    until_free(&set.servers[new], KEY, SOON);
    assert_soon("the release", at, Instant::now(), STAYS);
    drop(holder);
}

#[test]
fn who_waits_is_served_by_the_new_master_though_the_release_was_lost_with_the_old_one() {
    let set = SentinelSet::start();
    let (_holder, guard) = held(&set);
    let waiter = impatient(set.url());
    thread::scope(|scope| {
        let waiting = scope.spawn(|| {
            let lock = waiter.lock(APP).ttl(KEPT).wait(LIMIT);
            lock.acquire_blocking().unwrap()
        });
        for server in &set.servers {
            wait::until("it waits", SOON, || length_of(server, KEY) == 1);
        }
        set.servers[0].part_from_replicas();
        let token = guard.fencing_token();
        // The old master hands the lock on: in vain.
        guard.release_blocking().unwrap();
        let granted = waiting.join().unwrap();
        assert!(granted.fencing_token() > token);
        let (_, at) = set.fail_over();
        // It may have it at the new master, too: that hands the lock on to the same waiter, if the
        // release comes there before the waiter asks.
        let last = granted.fencing_token();
        drop(granted);
        let next = waiter.lock(APP).ttl(KEPT).wait(LIMIT).acquire_blocking();
        assert_soon("the grant", at, Instant::now(), NEXT);
        assert!(next.unwrap().fencing_token() > last);
    });
}
