//! Promise: each waiter is granted the lock, in order, whatever is lost, late or dead.
//!
//! And where a part of the queue is left out, the check says so: see `queue_faults.rs`.

mod support;

use applock_model::properties::ONE_HOLDER;
use applock_model::{Death, Judged, Lengths, Queue, Setup, Tokens};
use support::{finds, holds};

/// Three waiters, and nothing beside what this changes.
fn three(queue: Queue) -> Setup {
    Setup {
        renewals: 0,
        queue: Queue {
            processes: 3,
            leaves: 1,
            ..queue
        },
        ..Setup::queue(3)
    }
}

/// Two waiters, a heartbeat, a poll, and what this changes.
fn two(queue: Queue) -> Setup {
    Setup {
        queue: Queue {
            processes: 2,
            polls: 1,
            leaves: 1,
            ..queue
        },
        ..Setup::queue(2)
    }
}

#[test]
fn waiters_are_granted_the_lock_in_their_order() {
    let heartbeats = Setup {
        renewals: 1,
        ..three(Queue::default())
    };
    holds("heartbeats", heartbeats);
    let fast_server = Setup {
        drift: true,
        ..two(Queue::default())
    };
    holds("polls, and a fast server", fast_server);
    let drift = Setup {
        drift: true,
        ..three(Queue::default())
    };
    holds("three, and a fast server", drift);
}

#[test]
fn a_waiter_that_missed_its_grant_is_put_where_it_stood() {
    let polls = Queue {
        polls: 1,
        ..Queue::default()
    };
    // A wider network has four times the states, and shows no more.
    let polls = Setup {
        life: 1,
        ..three(polls)
    };
    holds("polls", polls);
}

#[test]
fn a_process_that_waits_more_than_once_is_granted_the_lock_by_an_answer() {
    let siblings = Setup {
        queue: Queue {
            processes: 2,
            leaves: 1,
            ..Queue::default()
        },
        ..three(Queue::default())
    };
    holds("siblings", siblings);
}

#[test]
fn the_dead_are_skipped() {
    let crashes = Queue {
        crashes: 1,
        ..Queue::default()
    };
    holds("a process dies", three(crashes));
    let unnoticed = Queue {
        death: Death::Unnoticed,
        ..crashes
    };
    holds("its machine goes", three(unnoticed));
    holds("... among two that poll", two(unnoticed));
}

/// Their processes let a claim run out, or can't be notified: none of their waiters is offered the
/// lock before one has polled.
#[test]
fn a_waiter_that_lost_its_place_and_lives_comes_back() {
    let crashes = Queue {
        crashes: 1,
        breaks: 1,
        ..Queue::default()
    };
    holds("one dies, a subscription breaks", two(crashes));
    let siblings = Setup {
        queue: Queue {
            processes: 2,
            leaves: 1,
            breaks: 1,
            ..Queue::default()
        },
        ..three(Queue::default())
    };
    holds("siblings, a subscription breaks", siblings);
}

#[test]
fn an_old_queue_is_forgotten() {
    let old = Setup {
        timing: Lengths {
            queue_life: 3,
            ..Lengths::default()
        },
        ..two(Queue::default())
    };
    holds("an old queue", old);
}

#[test]
fn processes_that_only_poll_are_granted_the_lock() {
    let timing = Lengths {
        silence: 1,
        ..Lengths::default()
    };
    let polling = Setup {
        timing,
        ..two(Queue {
            polling: 1,
            ..Queue::default()
        })
    };
    holds("one only polls", polling);
}

#[test]
fn a_broken_subscription_costs_no_waiter_its_grant() {
    let breaks = Queue {
        breaks: 1,
        ..Queue::default()
    };
    holds("a subscription breaks", three(breaks));
    holds("... among two that poll", two(breaks));
}

#[test]
fn a_restart_of_the_server_costs_no_waiter_its_grant() {
    let restarts = Queue {
        restarts: 1,
        ..Queue::default()
    };
    holds("a restart", two(restarts));
}

#[test]
fn a_request_that_does_not_wait_does_not_jump_the_queue() {
    let tries = Queue {
        tries: 1,
        ..Queue::default()
    };
    holds("one does not wait", three(tries));
}

#[test]
fn a_lock_that_is_taken_from_its_holder_goes_to_a_waiter() {
    let forced = Queue {
        forced: 1,
        ..Queue::default()
    };
    holds("a forced release", two(forced));
    let evictions = Setup {
        evictions: 1,
        ..two(Queue::default())
    };
    holds("the record is lost", evictions);
}

#[test]
fn a_holding_is_ended_as_stale_if_no_heartbeat_came() {
    let stale = Queue {
        stale: 1,
        ..Queue::default()
    };
    holds("half a lease without a heartbeat", two(stale));
    let asked = Queue { asked: 2, ..stale };
    holds("as long as was asked for", two(asked));
}

#[test]
fn what_at_least_keeps_is_granted_after_its_time() {
    let kept = Setup {
        keep: 2,
        ..two(Queue::default())
    };
    holds("at least", kept);
    let stale = Setup {
        keep: 2,
        ..two(Queue {
            stale: 1,
            asked: 2,
            ..Queue::default()
        })
    };
    holds("at least, and an operator", stale);
}

/// Their order is that of the tickets before them, and not only of the clock.
#[test]
fn waiters_are_served_in_order_by_a_clock_that_stands_still() {
    let stands = Setup {
        tokens: Tokens::Counter,
        ..two(Queue::default())
    };
    holds("two by a clock that stands", stands);
    let three = Setup {
        tokens: Tokens::Counter,
        ..three(Queue::default())
    };
    holds("three by a clock that stands", three);
}

#[test]
fn a_queue_that_was_lost_in_a_failover_serves_all_waiters_in_order() {
    let failovers = Setup {
        renewals: 0,
        failovers: 1,
        ..two(Queue::default())
    };
    holds("a failover", failovers.clone());
    let acknowledged = Setup {
        acknowledged: true,
        ..failovers
    };
    holds("a failover, acknowledged", acknowledged);
}

/// A jump that is shorter than the message was late looks like no jump.
#[test]
fn a_server_clock_that_jumps_while_a_client_waits_may_make_two_holders() {
    let jumps = Queue {
        jumps: 1,
        ..Queue::default()
    };
    finds("a jump", three(jumps), ONE_HOLDER);
    let alone = Queue {
        judged: Judged::ExchangeAlone,
        ..jumps
    };
    holds("a jump, not counted on", three(alone));
}
