//! Promise: the protocol keeps its word in every order in which things can happen.
//!
//! And where a part of it is left out, the check says so: see also `faults.rs`.

mod support;

use applock_model::properties::{NO_STALE_WRITE, ONE_HOLDER, TOKENS_GROW, TWO_HOLDERS};
use applock_model::{LIFE, Setup, TTL, Tokens};
use support::{finds, holds};

/// Three clients, all kinds of steps, and a failover that may forget; and so that they are not too
/// many, no message is on its way for longer than a ttl.
fn everything() -> Setup {
    Setup {
        renewals: 1,
        writes: 2,
        failovers: 1,
        retries: 0,
        drift: false,
        life: TTL,
        ..Setup::plain(3)
    }
}

/// Three clients and their writes; nothing is forgotten.
fn writes() -> Setup {
    Setup {
        failovers: 0,
        renewals: 0,
        life: LIFE,
        ..everything()
    }
}

#[test]
fn the_resource_is_safe_through_a_failover_that_forgets() {
    holds("everything", everything());
}

#[test]
fn at_most_one_client_holds_while_the_server_forgets_nothing() {
    let heartbeats = Setup {
        retries: 0,
        ..Setup::plain(3)
    };
    holds("heartbeats", heartbeats);
    let retries = Setup {
        renewals: 0,
        ..Setup::plain(3)
    };
    holds("retries", retries);
    let both = Setup {
        drift: false,
        ..Setup::plain(3)
    };
    holds("heartbeats and retries", both);
}

#[test]
fn at_most_one_client_holds_through_a_failover_where_replicas_acknowledge() {
    let acknowledged = Setup {
        acknowledged: true,
        writes: 0,
        ..everything()
    };
    holds("acknowledged by replicas", acknowledged);
}

#[test]
fn the_resource_is_safe_when_locks_vanish() {
    let evictions = Setup {
        evictions: 2,
        ..writes()
    };
    holds("evictions", evictions);
}

/// The first known counter-example.
#[test]
fn without_fencing_a_stale_write_is_taken() {
    let unfenced = Setup {
        fencing: false,
        ..writes()
    };
    finds("no fencing", unfenced, NO_STALE_WRITE);
}

/// The second: the counter is lost, and starts again.
#[test]
fn with_a_plain_counter_a_failover_repeats_tokens_and_a_stale_write_is_taken() {
    let counter = Setup {
        tokens: Tokens::Counter,
        ..everything()
    };
    finds("a plain counter, its tokens", counter.clone(), TOKENS_GROW);
    finds("a plain counter, its writes", counter, NO_STALE_WRITE);
}

#[test]
fn a_plain_counter_is_enough_where_it_is_never_lost() {
    let counter = Setup {
        tokens: Tokens::Counter,
        evictions: 1,
        ..writes()
    };
    holds("a plain counter that survives", counter);
}

/// 'Both have to fail for a token to be smaller than an earlier one': the fence and the
/// clock (docs/GUARANTEES.md).
#[test]
fn tokens_need_the_counter_or_the_clock() {
    let clock = Setup {
        steps_back: 1,
        evictions: 1,
        ..writes()
    };
    holds("a clock that steps back", clock);
    let both = Setup {
        steps_back: 1,
        ..everything()
    };
    finds("... and a counter that is lost", both.clone(), TOKENS_GROW);
    finds("... and what it does", both, NO_STALE_WRITE);
}

/// The honest statement about leases, as a run to look at.
#[test]
fn two_clients_hold_after_a_failover_that_forgets() {
    finds("two holders", everything(), TWO_HOLDERS);
}

/// What the properties of `Setup::plain` are there for.
#[test]
fn a_plain_setup_promises_exclusion() {
    let plain = support::properties(&Setup::plain(3));
    assert!(plain.contains(&ONE_HOLDER), "{plain:?}");
    let forgetful = support::properties(&everything());
    assert!(!forgetful.contains(&ONE_HOLDER), "{forgetful:?}");
}
