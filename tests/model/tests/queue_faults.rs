//! Promise: each part of the wait queue is needed, and the check notices when it is missing.

mod support;

use applock_model::properties::{GHOST_GOES, IN_ORDER, NO_ORPHAN, ONE_HOLDER, PASSED_ON, SERVED};
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
    let impatient = Queue {
        impatient: true,
        ..Queue::default()
    };
    Setup {
        drift,
        ..with(fault, impatient)
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
        impatient: true,
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
    finds("claim without expiry", setup.clone(), GHOST_GOES);
    finds("... and who waits", setup, SERVED);
}

#[test]
fn a_leave_that_keeps_what_it_was_granted_leaves_an_orphan() {
    let setup = only(Fault::LeaveKeepsTheClaim);
    finds("leave keeps the claim", setup, NO_ORPHAN);
}

#[test]
fn a_knock_that_is_not_watched_for_leaves_an_orphan() {
    let setup = only(Fault::GhostNotWatched);
    finds("a late knock not watched for", setup, NO_ORPHAN);
}

#[test]
fn a_release_has_to_hand_the_lock_on() {
    let setup = only(Fault::ReleaseHandsNothingOn);
    finds("release hands nothing on", setup, PASSED_ON);
}

#[test]
fn the_line_is_served_from_its_head() {
    let setup = only(Fault::LastInLineFirst);
    finds("last in line first", setup, IN_ORDER);
}

#[test]
fn who_does_not_wait_has_to_look_at_the_line() {
    let tries = Queue {
        tries: 1,
        ..Queue::default()
    };
    let setup = with(Fault::TryJumpsTheLine, tries);
    finds("a try jumps the line", setup, IN_ORDER);
}

#[test]
fn a_knock_has_to_keep_its_place() {
    let knocks = Queue {
        knocks: 1,
        ..Queue::default()
    };
    let setup = with(Fault::BackWithEachKnock, knocks);
    finds("back with each knock", setup, IN_ORDER);
}

/// Its message was lost, and that is all that happened.
#[test]
fn a_waiter_that_missed_its_grant_has_to_keep_its_place() {
    let knocks = Queue {
        knocks: 1,
        ..Queue::default()
    };
    let setup = with(Fault::PlaceLostWithTheClaim, knocks);
    finds("place lost with the claim", setup, IN_ORDER);
}

#[test]
fn a_waiter_that_missed_its_grant_has_to_let_others_go_first() {
    let setup = a_machine_goes(Fault::HandedAgainAndAgain);
    finds("handed again and again", setup, SERVED);
}

#[test]
fn a_waiter_has_to_knock() {
    finds("nobody knocks", only(Fault::NobodyKnocks), SERVED);
}

#[test]
fn the_head_of_the_line_must_not_be_the_only_one_who_knocks() {
    let setup = a_machine_goes(Fault::OnlyTheHeadKnocks);
    finds("only the head knocks", setup, SERVED);
}
