//! Promise: a tick is run at most once, whoever asks, waits, dies or comes late; with `retry_failed`
//! not again once a run of it has ended well.
//!
//! And where a part of that is left out, the check says so.

mod support;

use applock_model::properties::{NOT_AFTER_SUCCESS, REFUSED_IF_RAN, RUN_TWICE};
use applock_model::{Fault, Queue, Setup, TTL, Ticks};
use support::{finds, holds};

/// Three that do not wait, with a heartbeat and a retry.
fn tries(ticks: Ticks) -> Setup {
    Setup {
        ticks: Some(ticks),
        drift: false,
        life: TTL - 1,
        ..Setup::plain(3)
    }
}

/// Three waiters, and what this changes.
fn waiters(ticks: Ticks, queue: Queue) -> Setup {
    Setup {
        renewals: 0,
        ticks: Some(ticks),
        queue: Queue {
            processes: 3,
            ..queue
        },
        ..Setup::queue(3)
    }
}

/// Two acquisitions for the first tick, and one, which asks last, for the second.
fn two_ticks() -> Ticks {
    Ticks {
        first: 2,
        ..Ticks::one()
    }
}

fn every() -> Ticks {
    Ticks {
        every: true,
        ..Ticks::one()
    }
}

/// The same, where failed runs do not count.
fn retry_failed(setup: Setup) -> Setup {
    let ticks = setup.ticks.map(|ticks| Ticks {
        retry_failed: true,
        ..ticks
    });
    Setup {
        retries: 0,
        ticks,
        ..setup
    }
}

/// The same, and another server becomes the master, which has all that counts.
fn acknowledged(setup: Setup) -> Setup {
    Setup {
        failovers: 1,
        acknowledged: true,
        renewals: 0,
        retries: 0,
        ..setup
    }
}

#[test]
fn of_those_that_do_not_wait_one_runs() {
    holds("a number", tries(Ticks::one()));
    holds("two numbers", tries(two_ticks()));
    holds("a time", tries(every()));
}

#[test]
fn what_fails_is_taken_up_and_what_ended_well_is_not() {
    holds("a number", retry_failed(tries(Ticks::one())));
    holds("two numbers", retry_failed(tries(two_ticks())));
    holds("a time", retry_failed(tries(every())));
}

#[test]
fn of_those_that_wait_one_runs_and_all_are_told() {
    let alone = Queue {
        leaves: 1,
        ..Queue::default()
    };
    holds("a number", waiters(Ticks::one(), alone));
    holds("two numbers", waiters(two_ticks(), alone));
    holds("failures", retry_failed(waiters(Ticks::one(), alone)));
    holds("two, failures", retry_failed(waiters(two_ticks(), alone)));
}

#[test]
fn a_waiter_that_dies_leaves_its_tick_to_no_second_run() {
    let crashes = Queue {
        crashes: 1,
        leaves: 1,
        ..Queue::default()
    };
    holds("a number", waiters(Ticks::one(), crashes));
    holds("two numbers", waiters(two_ticks(), crashes));
    let stays = Queue {
        leaves: 0,
        ..crashes
    };
    holds("failures", retry_failed(waiters(Ticks::one(), stays)));
}

#[test]
fn a_holding_that_is_ended_by_force_counts() {
    let forced = Queue {
        forced: 1,
        leaves: 1,
        ..Queue::default()
    };
    holds("a number", waiters(Ticks::one(), forced));
    let stays = Queue {
        leaves: 0,
        ..forced
    };
    holds("failures", retry_failed(waiters(Ticks::one(), stays)));
}

#[test]
fn what_at_least_keeps_counts() {
    let kept = |ticks| Setup {
        keep: 2,
        ..waiters(
            ticks,
            Queue {
                leaves: 1,
                ..Queue::default()
            },
        )
    };
    holds("a number", kept(Ticks::one()));
    holds("failures", retry_failed(kept(Ticks::one())));
}

#[test]
fn a_record_that_is_lost_leaves_its_run() {
    let evictions = Setup {
        evictions: 1,
        ..tries(Ticks::one())
    };
    holds("evictions", evictions);
}

#[test]
fn a_tick_is_run_once_through_a_failover_where_replicas_acknowledge() {
    holds("tries", acknowledged(tries(Ticks::one())));
    holds("two numbers", acknowledged(tries(two_ticks())));
    // Also what the new master knows of the waiters only is judged again.
    let waiters = |ticks| acknowledged(waiters(ticks, Queue::default()));
    holds("waiters", waiters(two_ticks()));
    let mostly_the_second = Ticks {
        first: 1,
        ..Ticks::one()
    };
    holds("waiters of one", waiters(mostly_the_second));
}

/// The honest statement about replicas that acknowledge nothing.
#[test]
fn a_tick_may_be_run_twice_after_a_failover_that_forgets() {
    let forgets = Setup {
        acknowledged: false,
        ..acknowledged(tries(Ticks::one()))
    };
    finds("a failover that forgets", forgets, RUN_TWICE);
}

fn with(fault: Fault, setup: Setup) -> Setup {
    Setup {
        fault: Some(fault),
        ..setup
    }
}

#[test]
fn a_waiter_that_is_not_judged_again_runs_a_tick_that_ended_well() {
    let setup = retry_failed(waiters(Ticks::one(), Queue::default()));
    let fault = with(Fault::JudgedOnce, setup);
    finds("judged once", fault, NOT_AFTER_SUCCESS);
}

#[test]
fn a_grant_that_was_not_used_must_not_count() {
    let setup = tries(Ticks::one());
    finds(
        "unused counts",
        with(Fault::UnusedCounts, setup),
        REFUSED_IF_RAN,
    );
}

#[test]
fn a_run_that_failed_must_not_count_for_those_that_would_take_it_up() {
    let setup = retry_failed(tries(Ticks::one()));
    finds(
        "failed counts",
        with(Fault::FailedCounts, setup),
        REFUSED_IF_RAN,
    );
}
