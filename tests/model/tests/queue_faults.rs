//! Promise: each part of the wait queue is needed, and the check notices when it is missing.

mod support;

use applock_model::properties::{IN_ORDER, NO_ORPHAN, ONE_HOLDER, ORPHAN_GOES, PASSED_ON, SERVED};
use applock_model::{Fault, Queue, Setup};
use support::finds;

/// Three who wait, with this fault and what else it takes to show it.
fn with(fault: Fault, queue: Queue) -> Setup {
    Setup {
        renewals: 0,
        queue: Queue {
            processes: 3,
            ..queue
        },
        fault: Some(fault),
        ..Setup::queue(3)
    }
}

/// The same, and nothing else.
fn only(fault: Fault) -> Setup {
    with(fault, Queue::default())
}

/// The same, where exclusion is about the leases alone, and the server may be fast.
fn leases(fault: Fault, drift: bool) -> Setup {
    Setup {
        drift,
        ..only(fault)
    }
}

/// The same, and a process dies with its machine.
fn a_machine_goes(fault: Fault) -> Setup {
    let crash = Queue {
        crashes: 1,
        half_open: true,
        ..Queue::default()
    };
    with(fault, crash)
}

#[test]
fn a_grant_judged_from_its_arrival_makes_two_holders() {
    let setup = leases(Fault::GrantJudgedFromArrival, false);
    finds("grant judged from arrival", setup, ONE_HOLDER);
}

#[test]
fn an_exchange_judged_from_its_answer_makes_two_holders() {
    let setup = leases(Fault::ExchangeJudgedFromItsAnswer, false);
    finds("exchange judged from its answer", setup, ONE_HOLDER);
}

#[test]
fn the_servers_time_taken_in_full_makes_two_holders() {
    let setup = leases(Fault::ElapsedTakenInFull, true);
    finds("elapsed time taken in full", setup, ONE_HOLDER);
}

#[test]
fn a_grant_from_the_future_makes_two_holders() {
    let jumps = Queue {
        jumps: 1,
        ..Queue::default()
    };
    let setup = with(Fault::FutureBelieved, jumps);
    finds("a grant from the future", setup, ONE_HOLDER);
}

#[test]
fn a_claim_taken_for_a_lease_makes_two_holders() {
    let setup = leases(Fault::ClaimTakenForALease, true);
    finds("claim taken for a lease", setup, ONE_HOLDER);
}

#[test]
fn a_claim_without_expiry_is_kept_for_the_dead() {
    let setup = a_machine_goes(Fault::ClaimWithoutExpiry);
    finds("claim without expiry", setup.clone(), ORPHAN_GOES);
    finds("... and who waits", setup, SERVED);
}

#[test]
fn a_leave_that_keeps_what_it_was_granted_leaves_an_orphan() {
    let setup = only(Fault::LeaveKeepsTheClaim);
    finds("leave keeps the claim", setup, NO_ORPHAN);
}

#[test]
fn a_poll_that_is_not_watched_for_leaves_an_orphan() {
    let setup = only(Fault::OrphanNotWatched);
    finds("a late poll not watched for", setup, NO_ORPHAN);
}

#[test]
fn a_release_has_to_hand_the_lock_on() {
    let setup = only(Fault::ReleaseHandsNothingOver);
    finds("release hands nothing on", setup, PASSED_ON);
}

#[test]
fn the_queue_is_served_from_its_head() {
    let setup = only(Fault::LastComeFirstServed);
    finds("last in the queue first", setup, IN_ORDER);
}

#[test]
fn a_request_that_does_not_wait_has_to_look_at_the_queue() {
    let tries = Queue {
        tries: 1,
        ..Queue::default()
    };
    let setup = with(Fault::TryJumpsTheQueue, tries);
    finds("a try jumps the queue", setup, IN_ORDER);
}

#[test]
fn a_poll_has_to_keep_its_place() {
    let polls = Queue {
        polls: 1,
        ..Queue::default()
    };
    let setup = with(Fault::BackWithEachPoll, polls);
    finds("back with each poll", setup, IN_ORDER);
}

/// Its message was lost, and that is all that happened.
#[test]
fn a_waiter_that_missed_its_grant_has_to_bring_its_ticket() {
    let polls = Queue {
        polls: 1,
        ..Queue::default()
    };
    let setup = with(Fault::NoTicket, polls);
    finds("place lost with the claim", setup, IN_ORDER);
}

#[test]
fn a_waiter_has_to_poll() {
    finds("nobody polls", only(Fault::NobodyPolls), SERVED);
}

#[test]
fn the_head_of_the_queue_must_not_be_the_only_one_who_polls() {
    let setup = a_machine_goes(Fault::OnlyTheHeadPolls);
    finds("only the head polls", setup, SERVED);
}
