//! Promise: each waiter has its turn, in order, whatever is lost, late or dead.
//!
//! And where a part of the queue is left out, the check says so: see `queue_faults.rs`.

mod support;

use applock_model::properties::ONE_HOLDER;
use applock_model::{Judged, Queue, Setup};
use support::{finds, holds_within};

/// Long enough that each of the waiters has its turn, and loses one.
const STEPS: usize = 16;

/// Three who wait, and nothing beside what this changes.
fn three(queue: Queue) -> Setup {
    Setup {
        renewals: 0,
        queue: Queue {
            processes: 3,
            ..queue
        },
        ..Setup::queue(3)
    }
}

/// Two who wait, a heartbeat, a poll, and what this changes.
fn two(queue: Queue) -> Setup {
    Setup {
        queue: Queue {
            processes: 2,
            polls: 1,
            ..queue
        },
        ..Setup::queue(2)
    }
}

#[test]
fn waiters_have_their_turn_in_order() {
    let heartbeats = Setup {
        renewals: 1,
        ..three(Queue::default())
    };
    holds_within(STEPS, "heartbeats", heartbeats);
    let fast_server = Setup {
        drift: true,
        ..two(Queue {
            polls: 1,
            ..Queue::default()
        })
    };
    holds_within(STEPS, "polls, and a fast server", fast_server);
}

#[test]
fn exclusion_holds_at_a_fast_server() {
    let drift = Setup {
        drift: true,
        ..three(Queue::default())
    };
    holds_within(STEPS, "three, and a fast server", drift);
}

#[test]
fn a_process_that_waits_more_than_once_is_handed_the_lock_by_an_answer() {
    let siblings = Setup {
        queue: Queue {
            processes: 2,
            ..Queue::default()
        },
        ..three(Queue::default())
    };
    holds_within(STEPS, "siblings", siblings);
}

#[test]
fn the_dead_are_skipped() {
    let crashes = Queue {
        crashes: 1,
        ..Queue::default()
    };
    holds_within(STEPS, "a process dies", three(crashes));
    let half_open = Queue {
        half_open: true,
        ..crashes
    };
    holds_within(STEPS, "its machine goes", three(half_open));
    holds_within(STEPS, "... among two who poll", two(half_open));
}

#[test]
fn a_broken_subscription_costs_nobody_its_turn() {
    let breaks = Queue {
        breaks: 1,
        ..Queue::default()
    };
    holds_within(STEPS, "a subscription breaks", three(breaks));
    holds_within(STEPS, "... among two who poll", two(breaks));
}

#[test]
fn a_request_that_does_not_wait_does_not_jump_the_queue() {
    let tries = Queue {
        tries: 1,
        ..Queue::default()
    };
    holds_within(STEPS, "one does not wait", three(tries));
}

#[test]
fn a_lock_that_is_taken_from_its_holder_goes_to_the_queue() {
    let forced = Queue {
        forced: 1,
        ..Queue::default()
    };
    holds_within(STEPS, "a forced release", two(forced));
    let evictions = Setup {
        evictions: 1,
        ..two(Queue::default())
    };
    holds_within(STEPS, "the key vanishes", evictions);
}

#[test]
fn a_queue_that_was_forgotten_serves_all_who_waited() {
    let failovers = Setup {
        renewals: 0,
        failovers: 1,
        ..two(Queue::default())
    };
    holds_within(STEPS, "a failover", failovers);
}

#[test]
fn a_process_that_only_polls_has_its_turn() {
    let deaf = Queue {
        deaf: 1,
        ..Queue::default()
    };
    holds_within(STEPS, "one of three polls", three(deaf));
    holds_within(STEPS, "one of two polls", two(deaf));
    let all = Queue {
        deaf: 2,
        ..Queue::default()
    };
    holds_within(STEPS, "two poll", two(all));
}

#[test]
fn a_server_that_restarts_costs_no_waiter_its_place() {
    let restarts = Queue {
        restarts: 1,
        ..Queue::default()
    };
    holds_within(STEPS, "a restart with its data", two(restarts));
}

/// The dead lose their places, and so do the living whose server thinks so: they come back by
/// their tickets.
#[test]
fn whose_process_is_thought_dead_loses_no_more_than_its_place() {
    let dead = Queue {
        dead_after: 3,
        crashes: 1,
        breaks: 1,
        ..Queue::default()
    };
    holds_within(STEPS, "places are lost", two(dead));
}

/// A jump that is shorter than the message was late looks like no jump.
#[test]
fn a_server_clock_that_jumps_while_somebody_waits_may_make_two_holders() {
    let jumps = Queue {
        jumps: 1,
        ..Queue::default()
    };
    finds("a jump", three(jumps), ONE_HOLDER);
    let alone = Queue {
        judged: Judged::ExchangeAlone,
        ..jumps
    };
    holds_within(STEPS, "a jump, not counted on", three(alone));
}
