//! Promise: whoever waits has its turn, in order, whatever is lost, late or dead.
//!
//! And where a part of the queue is left out, the check says so: see `queue_faults.rs`.

mod support;

use applock_model::properties::ONE_HOLDER;
use applock_model::{Judged, Queue, Setup};
use support::{finds, holds};

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

/// Two who wait, a heartbeat, a knock, and what this changes.
fn two(queue: Queue) -> Setup {
    Setup {
        queue: Queue {
            processes: 2,
            knocks: 1,
            ..queue
        },
        ..Setup::queue(2)
    }
}

#[test]
fn those_who_wait_have_their_turn_in_order() {
    let heartbeats = Setup {
        renewals: 1,
        ..three(Queue::default())
    };
    holds("heartbeats", heartbeats);
    let fast_server = Setup {
        drift: true,
        ..two(Queue {
            knocks: 1,
            ..Queue::default()
        })
    };
    holds("knocks, and a fast server", fast_server);
}

#[test]
fn exclusion_does_not_rest_on_patience() {
    let impatient = Queue {
        impatient: true,
        ..Queue::default()
    };
    let drift = Setup {
        drift: true,
        ..three(impatient)
    };
    holds("impatient, and a fast server", drift);
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
    holds("siblings", siblings);
}

#[test]
fn the_dead_are_passed_over() {
    let crashes = Queue {
        crashes: 1,
        ..Queue::default()
    };
    holds("a process dies", three(crashes));
    let half_open = Queue {
        half_open: true,
        ..crashes
    };
    holds("its machine goes", three(half_open));
    holds("... among two who knock", two(half_open));
}

#[test]
fn a_broken_subscription_costs_nobody_its_turn() {
    let breaks = Queue {
        breaks: 1,
        ..Queue::default()
    };
    holds("a subscription breaks", three(breaks));
    holds("... among two who knock", two(breaks));
}

#[test]
fn who_does_not_wait_does_not_jump_the_line() {
    let tries = Queue {
        tries: 1,
        ..Queue::default()
    };
    holds("one does not wait", three(tries));
}

#[test]
fn a_lock_that_is_taken_from_its_holder_goes_to_the_line() {
    let forced = Queue {
        forced: 1,
        ..Queue::default()
    };
    holds("a forced release", two(forced));
    let evictions = Setup {
        evictions: 1,
        ..two(Queue::default())
    };
    holds("the key vanishes", evictions);
}

#[test]
fn a_line_that_was_forgotten_serves_all_who_waited() {
    let failovers = Setup {
        renewals: 0,
        failovers: 1,
        ..two(Queue::default())
    };
    holds("a failover", failovers);
}

/// A jump that is shorter than the message was late looks like no jump.
#[test]
fn a_server_clock_that_jumps_while_somebody_waits_may_make_two_holders() {
    let jumps = Queue {
        jumps: 1,
        impatient: true,
        ..Queue::default()
    };
    finds("a jump", three(jumps), ONE_HOLDER);
    let alone = Queue {
        judged: Judged::ExchangeAlone,
        ..jumps
    };
    holds("a jump, not counted on", three(alone));
}
