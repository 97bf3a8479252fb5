//! Promise: an old master that answers still, or again, is not believed: one that wakes up, one
//! that only old clients reach, and one that has come back empty.

use std::time::Duration;

use crate::after::{KEPT, assert_excludes, first_yes, until_taken};
use crate::support::sentinel::{SOON, SentinelSet};
use crate::support::steps::{give_back, impatient, is_taken, take};
use crate::support::wait;

const APP: &str = "job";
const KEY: &str = "QUEUE:job";

fn until_replicated(set: &SentinelSet, key: &str) {
    wait::until("the replicas have the lock", SOON, || {
        set.servers.iter().all(|server| is_taken(server, key))
    });
}

#[test]
fn a_master_that_wakes_after_its_replacement_is_not_asked_and_what_it_carries_out_counts_for_nothing()
 {
    let set = SentinelSet::quick();
    let holder = impatient(set.url());
    let guard = take(&holder.lock(APP).ttl(KEPT));
    let names = &mut set.names();
    until_replicated(&set, KEY);
    set.servers[0].freeze();
    // It lies in the socket of the frozen master, which carries it out when it wakes.
    let late = holder.lock("late").ttl(KEPT);
    assert!(late.try_acquire_blocking().is_err());
    let (new, _) = names.until_another(0);
    names.until_all(new);
    first_yes(&guard);
    set.servers[0].thaw();
    wait::until("the late request is carried out", SOON, || {
        is_taken(&set.servers[0], "QUEUE:late") || !set.servers[0].is_master()
    });
    let before = set.servers[0].scripts();
    let other = impatient(set.url());
    let mut rounds = 0;
    // About ten seconds, until it is made a replica.
    while set.servers[0].is_master() {
        first_yes(&guard);
        assert_excludes(&other, APP);
        drop(take(&other.lock("late")));
        assert_eq!(set.servers[0].scripts(), before, "the zombie is asked");
        rounds += 1;
    }
    assert!(rounds > 3, "{rounds}");
    assert!(guard.is_held());
    assert_eq!(set.servers[new].token(KEY), guard.fencing_token());
}

#[test]
fn a_master_that_only_its_old_clients_reach_is_left_when_another_is_named() {
    let mut set = SentinelSet::quick();
    let holder = impatient(set.url());
    let kept = take(&holder.lock(APP).ttl(KEPT));
    until_replicated(&set, KEY);
    let mut names = set.names();
    set.servers[0].cut_off();
    // Its old client is connected still, and is granted a lock that no replica will know.
    let guard = take(&holder.lock("cut").ttl(KEPT));
    let (new, at) = names.until_another(0);
    let told = until_taken(&guard);
    crate::after::assert_soon("the loss", at, told, crate::after::STAYS);
    first_yes(&kept);
    assert!(set.servers[0].is_master());
    let before = set.servers[0].scripts();
    let next = take(&holder.lock("cut").ttl(KEPT));
    assert!(next.fencing_token() > guard.fencing_token());
    assert!(is_taken(&set.servers[new], "QUEUE:cut"));
    assert_eq!(set.servers[0].scripts(), before);
    assert!(kept.is_held());
}

#[test]
fn a_master_that_comes_back_empty_is_never_asked() {
    let mut set = SentinelSet::quick();
    let holder = impatient(set.url());
    let guard = take(&holder.lock(APP).ttl(KEPT));
    until_replicated(&set, KEY);
    let mut names = set.names();
    set.servers[0].kill();
    let (new, _) = names.until_another(0);
    // Until then some name the old one still.
    names.until_all(new);
    // At the address that holder and sentinels knew, and it is a master for ten seconds.
    set.servers[0].restart();
    let other = impatient(set.url());
    let mut rounds = 0;
    while set.servers[0].is_master() {
        first_yes(&guard);
        assert_excludes(&other, APP);
        assert_excludes(&impatient(set.url()), APP);
        rounds += 1;
    }
    assert!(rounds > 3, "{rounds}");
    assert_eq!(set.servers[0].scripts(), 0);
    assert_eq!(set.servers[0].connections(), 0);
    give_back(guard);
    drop(take(&other.lock(APP).ttl(Duration::from_secs(5))));
}
