//! The rules of a lease, with the time as a parameter.

use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;

use super::super::lease::*;
use super::super::record::Holding;
use super::super::time::{Now, nanos, system_time};
use crate::info::{Ending, LockInfo};
use crate::key::Key;
use crate::protocol::MAX_TOKEN;
use crate::store::{Acquire, Identity, Release, Renew};

const TTL: Duration = Duration::from_secs(60);
const START: Now = Now {
    up_ns: 1_000_000_000_000,
    wall_us: 1_790_000_000_000_000,
    boot: Some(Uuid::from_u128(1)),
};

fn after(length: Duration) -> Now {
    Now {
        up_ns: START.up_ns + nanos(length),
        wall_us: START.wall_us + nanos(length) / 1_000,
        ..START
    }
}

fn ask(owner: u128) -> Acquire {
    Acquire {
        key: Key::of("QUEUE:", "reports", Some("eu")).unwrap(),
        owner: Uuid::from_u128(owner),
        ttl: TTL,
        line: None,
        ticket: None,
        identity: Arc::new(Identity {
            instance: "web-1".into(),
            host: "db7".into(),
            pid: 4711,
        }),
    }
}

fn beat_of(owner: u128) -> Renew {
    let ask = ask(owner);
    Renew {
        token: 1,
        key: ask.key,
        owner: ask.owner,
        ttl: ask.ttl,
    }
}

fn end_of(owner: u128, keep: Option<Duration>) -> Release {
    let ask = ask(owner);
    Release {
        token: None,
        key: ask.key,
        owner: ask.owner,
        keep,
    }
}

fn taken(found: Option<Holding>, owner: u128, now: &Now) -> Holding {
    match acquire(found, &ask(owner), now) {
        Ok(Decision::Take(holding)) => *holding,
        other => panic!("{other:?}"),
    }
}

fn busy(found: &Holding, owner: u128, now: &Now) -> LockInfo {
    match acquire(Some(found.clone()), &ask(owner), now) {
        Ok(Decision::Busy(info)) => info,
        other => panic!("{other:?}"),
    }
}

fn ending(found: &Holding, now: &Now) -> (Ending, Option<Duration>) {
    let last = inspect(Some(found), now).last.unwrap();
    let start = system_time(START.wall_ms());
    (
        last.ending,
        last.until.map(|until| until.duration_since(start).unwrap()),
    )
}

#[test]
fn a_fresh_lock_is_taken_and_shown() {
    let held = taken(None, 1, &START);
    assert_eq!(held.token, START.wall_us);
    let seen = inspect(Some(&held), &after(Duration::from_millis(1_500)));
    let info = seen.holder.unwrap();
    assert_eq!(info.application(), Some("reports"));
    assert_eq!(info.name(), Some("eu"));
    assert_eq!(info.owner_id(), Uuid::from_u128(1).simple().to_string());
    assert_eq!(
        (info.host(), info.instance_id(), info.pid()),
        ("db7", "web-1", Some(4711))
    );
    assert_eq!(info.acquired_at(), Some(system_time(START.wall_ms())));
    assert_eq!(info.held_for(), Some(Duration::from_millis(1_500)));
    assert_eq!(info.heartbeat_age(), Some(Duration::from_millis(1_500)));
    assert_eq!(info.remaining(), Some(Duration::from_millis(58_500)));
    assert_eq!(info.ttl(), Some(TTL));
    assert_eq!(seen.last.unwrap().ending, Ending::Held);
    assert!(inspect(None, &START).holder.is_none() && inspect(None, &START).last.is_none());
}

#[test]
fn a_held_lock_is_busy_until_exactly_its_end_and_free_there() {
    let held = taken(None, 1, &START);
    let last_instant = after(TTL - Duration::from_nanos(1));
    assert_eq!(
        busy(&held, 2, &last_instant).remaining(),
        Some(Duration::from_nanos(1))
    );
    let next = taken(Some(held.clone()), 2, &after(TTL));
    assert!(next.token > held.token);
    assert_eq!(next.end_ns, after(TTL * 2).up_ns);
}

#[test]
fn the_same_owner_asking_again_keeps_its_token_and_gets_a_full_lease() {
    let held = taken(None, 1, &START);
    let again = taken(Some(held.clone()), 1, &after(TTL / 2));
    assert_eq!((again.token, again.taken_ms), (held.token, held.taken_ms));
    assert_eq!(again.end_ns, after(TTL / 2 + TTL).up_ns);
    let anew = taken(Some(held.clone()), 1, &after(TTL));
    assert!(anew.token > held.token, "what has expired is taken anew");
}

#[test]
fn tokens_grow_by_the_clock_and_by_one_where_the_clock_went_back() {
    let held = taken(None, 1, &START);
    let back = Now {
        wall_us: 5,
        ..after(TTL)
    };
    assert_eq!(taken(Some(held.clone()), 2, &back).token, held.token + 1);
    let edge = Holding {
        token: MAX_TOKEN - 1,
        ..held.clone()
    };
    assert_eq!(taken(Some(edge), 2, &after(TTL)).token, MAX_TOKEN);
    let over = Holding {
        token: MAX_TOKEN,
        ..held
    };
    assert_eq!(
        acquire(Some(over), &ask(2), &after(TTL)).unwrap_err(),
        TokensUsedUp
    );
    let beyond = Now {
        wall_us: u64::MAX,
        ..START
    };
    assert_eq!(acquire(None, &ask(1), &beyond).unwrap_err(), TokensUsedUp);
}

#[test]
fn a_heartbeat_moves_the_end_never_back_and_changes_nothing_else() {
    let held = taken(None, 1, &START);
    let beaten = renew(Some(held.clone()), &beat_of(1), &after(TTL / 3)).unwrap();
    assert_eq!(beaten.end_ns, after(TTL / 3 + TTL).up_ns);
    assert_eq!((beaten.token, beaten.taken_ns), (held.token, held.taken_ns));
    let short = Renew {
        token: 1,
        ttl: Duration::from_secs(1),
        ..beat_of(1)
    };
    assert_eq!(
        renew(Some(held.clone()), &short, &START).unwrap().end_ns,
        held.end_ns
    );
    let endless = Renew {
        token: 1,
        ttl: Duration::MAX,
        ..beat_of(1)
    };
    let endless = renew(Some(held), &endless, &START).unwrap();
    assert!(is_taken(
        &endless,
        &Now {
            up_ns: u64::MAX - 1,
            ..START
        }
    ));
}

#[test]
fn strangers_and_those_too_late_neither_renew_nor_release() {
    let held = taken(None, 1, &START);
    let lived = |owner, now: &Now| {
        renew(Some(held.clone()), &beat_of(owner), now).is_some()
            || release(Some(held.clone()), &end_of(owner, None), now).is_some()
    };
    assert!(lived(1, &START));
    assert!(!lived(2, &START));
    assert!(!lived(1, &after(TTL)), "at exactly the end it is over");
    assert!(renew(None, &beat_of(1), &START).is_none());
    assert!(release(None, &end_of(1, None), &START).is_none());
    let next = taken(Some(held), 2, &after(TTL));
    assert!(release(Some(next.clone()), &end_of(1, None), &after(TTL)).is_none());
    assert!(renew(Some(next), &beat_of(1), &after(TTL)).is_none());
}

#[test]
fn a_release_frees_at_once_and_only_once() {
    let held = taken(None, 1, &START);
    let now = after(Duration::from_secs(1));
    let freed = release(Some(held.clone()), &end_of(1, None), &now).unwrap();
    assert!(inspect(Some(&freed), &now).holder.is_none());
    assert_eq!(
        ending(&freed, &after(TTL * 9)),
        (Ending::Released, Some(Duration::from_secs(1)))
    );
    assert!(release(Some(freed.clone()), &end_of(1, None), &now).is_none());
    assert!(renew(Some(freed.clone()), &beat_of(1), &now).is_none());
    assert!(taken(Some(freed), 1, &now).token > held.token);
}

#[test]
fn what_at_least_keeps_stays_taken_and_then_counts_as_released() {
    let held = taken(None, 1, &START);
    let keep = Some(TTL * 5);
    let kept = release(Some(held.clone()), &end_of(1, keep), &START).unwrap();
    let later = after(TTL * 5 - Duration::from_nanos(1));
    assert_eq!(
        busy(&kept, 2, &later).remaining(),
        Some(Duration::from_nanos(1))
    );
    busy(&kept, 1, &later);
    assert_eq!(ending(&kept, &later), (Ending::Held, None));
    assert!(renew(Some(kept.clone()), &beat_of(1), &later).is_none());
    assert!(release(Some(kept.clone()), &end_of(1, None), &later).is_none());
    assert!(force_release(Some(kept.clone()), Some(Duration::ZERO), &later).is_none());
    assert!(force_release(Some(kept.clone()), None, &later).is_some());
    assert_eq!(ending(&kept, &after(TTL * 5)), (Ending::Released, keep));
    assert!(taken(Some(kept), 1, &after(TTL * 5)).token > held.token);
    let nothing = release(Some(held), &end_of(1, Some(Duration::ZERO)), &START).unwrap();
    assert!(!is_taken(&nothing, &START));
}

#[test]
fn an_expired_lock_has_no_holder_and_says_when_it_ended() {
    let held = taken(None, 1, &START);
    assert!(inspect(Some(&held), &after(TTL)).holder.is_none());
    assert_eq!(ending(&held, &after(TTL * 3)), (Ending::Expired, Some(TTL)));
    assert!(force_release(Some(held), None, &after(TTL)).is_none());
}

#[test]
fn stale_means_no_heartbeat_for_so_long_and_not_held_for_long() {
    let long = Duration::from_secs(30);
    let held = taken(None, 1, &START);
    let beaten = renew(Some(held.clone()), &beat_of(1), &after(long)).unwrap();
    assert!(force_release(Some(beaten), Some(long), &after(long)).is_none());
    let just_before = after(long - Duration::from_nanos(1));
    assert!(force_release(Some(held.clone()), Some(long), &just_before).is_none());
    let forced = force_release(Some(held), Some(long), &after(long)).unwrap();
    assert_eq!(
        ending(&forced, &after(TTL * 9)),
        (Ending::Forced, Some(long))
    );
    assert!(renew(Some(forced.clone()), &beat_of(1), &after(long)).is_none());
    assert!(force_release(Some(forced), None, &after(long)).is_none());
    assert!(force_release(None, None, &START).is_none());
}

#[test]
fn the_wall_clock_neither_ends_nor_prolongs_a_lease() {
    let held = taken(None, 1, &START);
    for wall_us in [0, START.wall_us / 2, START.wall_us * 2, u64::MAX] {
        assert!(is_taken(
            &held,
            &Now {
                wall_us,
                ..after(TTL / 2)
            }
        ));
        assert!(!is_taken(
            &held,
            &Now {
                wall_us,
                ..after(TTL)
            }
        ));
    }
}

#[test]
fn a_restart_of_the_machine_ends_every_lease() {
    let held = taken(None, 1, &START);
    let restarted = Now {
        boot: Some(Uuid::from_u128(2)),
        ..after(TTL / 2)
    };
    for up_ns in [0, START.up_ns, START.up_ns + 1] {
        let wall_us = START.wall_us + 600_000_000;
        let now = Now {
            up_ns,
            wall_us,
            ..restarted
        };
        assert!(!is_taken(&held, &now));
        assert!(renew(Some(held.clone()), &beat_of(1), &now).is_none());
        assert_eq!(ending(&held, &now), (Ending::Expired, Some(TTL)));
    }
}
