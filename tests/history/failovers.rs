//! The same where Redis is several servers, and others of them come to serve: a cluster's shard
//! whose master is killed, or fails over as planned; a failover of sentinels, after which the old
//! master goes on answering. With `replicas` = all no lock ever has two holders.

use std::thread::sleep;

use crate::faults::World;
use crate::servers::{Servers, Set, Shards};
use crate::spec::Terms;
use crate::support::child;
use crate::verdict::{STEPS, judge};
use crate::{KEYS, PROCESSES, TTL, run, worker};

/// For how long there are faults, at the least; the servers start before that.
const SECONDS: u64 = 8;

/// What a small and busy machine does meanwhile.
const MUCH: [(&str, u64); 5] = [
    ("acquired", 40),
    ("busy", 5),
    ("unknown", 1),
    ("released", 40),
    ("written", 30),
];

#[test]
fn over_failovers_of_a_clusters_shards_no_lock_has_two_holders() {
    if let Some(part) = child::part() {
        return worker::run(&part);
    }
    let (tally, world) = run(
        Servers::Cluster(Shards::start(), 1),
        child::name_of(over_failovers_of_a_clusters_shards_no_lock_has_two_holders),
        SECONDS,
    );
    tally.assert_that_much_happened(&MUCH);
    world.dismiss();
}

#[test]
fn over_planned_failovers_of_sentinels_no_lock_has_two_holders() {
    if let Some(part) = child::part() {
        return worker::run(&part);
    }
    let (tally, world) = run(
        Servers::Sentinels(Set::start(), 2),
        child::name_of(over_planned_failovers_of_sentinels_no_lock_has_two_holders),
        SECONDS,
    );
    tally.assert_that_much_happened(&MUCH);
    world.dismiss();
}

/// The worst case: a server that gets no writes of the master any more takes its place, while the
/// process that has the lock stands still, under a lease that its clock has not ended. What is
/// wrong with the history, in one of so many tries.
fn a_server_that_is_behind_takes_over(
    servers: Servers,
    test: &'static str,
    tries: usize,
) -> Result<(), String> {
    let mut world = World::new(servers, test, KEYS, 1);
    world.still();
    for at in 0..tries {
        let (key, holder) = (at % KEYS, at % PROCESSES);
        // The others stand still, so that it is taken at once.
        world.part(key);
        world.take(holder, key);
        world.process(holder).freeze();
        world.go_on();
        world.switch(key);
        // The others ask for it meanwhile: it is a third of the holder's lease.
        sleep(TTL);
        world.process(holder).thaw();
        world.servers.heal();
        let (record, switches) = world.pause();
        let terms = Terms {
            time_out: world.longest_try(),
            switches,
        };
        let attempts = record.into_attempts();
        let of_key = attempts.iter().filter(|attempt| attempt.key == key);
        let of_key: Vec<_> = of_key.cloned().collect();
        judge(&of_key, &terms, STEPS)?;
    }
    world.dismiss();
    Ok(())
}

/// With `replicas` = all. Without, one try is enough for two holders, unless the machine is too busy
/// for another process to take the lock before its first holder goes on.
const SOUND: usize = 2;
const BROKEN: usize = 10;

#[test]
fn where_a_replica_that_is_behind_takes_over_no_lock_has_two_holders() {
    if let Some(part) = child::part() {
        return worker::run(&part);
    }
    let test = child::name_of(where_a_replica_that_is_behind_takes_over_no_lock_has_two_holders);
    let servers = Servers::Cluster(Shards::start(), 1);
    let flaw = a_server_that_is_behind_takes_over(servers, test, SOUND);
    assert_eq!(flaw, Ok(()));
}

#[test]
fn where_sentinels_promote_a_replica_that_is_behind_no_lock_has_two_holders() {
    if let Some(part) = child::part() {
        return worker::run(&part);
    }
    let test =
        child::name_of(where_sentinels_promote_a_replica_that_is_behind_no_lock_has_two_holders);
    let servers = Servers::Sentinels(Set::start(), 2);
    let flaw = a_server_that_is_behind_takes_over(servers, test, SOUND);
    assert_eq!(flaw, Ok(()));
}

/// What `replicas` is for; and the checker sees it.
#[test]
fn without_replicas_a_lock_of_a_cluster_has_two_holders_then() {
    if let Some(part) = child::part() {
        return worker::run(&part);
    }
    let test = child::name_of(without_replicas_a_lock_of_a_cluster_has_two_holders_then);
    let servers = Servers::Cluster(Shards::start(), 0);
    let flaw = a_server_that_is_behind_takes_over(servers, test, BROKEN).unwrap_err();
    assert!(flaw.contains("two held at once"), "{flaw}");
}

#[test]
fn without_replicas_a_lock_of_a_set_has_two_holders_then() {
    if let Some(part) = child::part() {
        return worker::run(&part);
    }
    let test = child::name_of(without_replicas_a_lock_of_a_set_has_two_holders_then);
    let servers = Servers::Sentinels(Set::start(), 0);
    let flaw = a_server_that_is_behind_takes_over(servers, test, BROKEN).unwrap_err();
    assert!(flaw.contains("two held at once"), "{flaw}");
}
