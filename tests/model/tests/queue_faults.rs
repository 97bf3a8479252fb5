//! Promise: each part of the wait queue is needed, and the check notices when it is missing.

mod support;

use applock_model::properties::{
    FORCED_IF_STALE, IN_ORDER, KEPT_STAYS, NO_LEFTOVER, ONE_HOLDER, ORPHAN_GOES, PASSED_ON, SERVED,
};
use applock_model::{Death, Fault, Queue, Setup};
use support::finds;

/// Three waiters, with this fault and what else it takes to show it.
fn with(fault: Fault, queue: Queue) -> Setup {
    Setup {
        renewals: 0,
        queue: Queue {
            processes: 3,
            leaves: 1,
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

/// The same, where the server may be fast.
fn on_a_fast_server(fault: Fault) -> Setup {
    Setup {
        drift: true,
        ..only(fault)
    }
}

/// The same, and a poll more than it has to be.
fn with_a_poll(fault: Fault) -> Setup {
    let polls = Queue {
        polls: 1,
        ..Queue::default()
    };
    with(fault, polls)
}

/// The same, and a process dies.
fn a_process_dies(fault: Fault, death: Death) -> Setup {
    let crash = Queue {
        crashes: 1,
        death,
        ..Queue::default()
    };
    with(fault, crash)
}

#[test]
fn a_grant_judged_from_its_arrival_makes_two_holders() {
    let setup = only(Fault::GrantJudgedFromArrival);
    finds("grant judged from arrival", setup, ONE_HOLDER);
}

#[test]
fn an_exchange_judged_from_its_answer_makes_two_holders() {
    let setup = only(Fault::ExchangeJudgedFromItsAnswer);
    finds("exchange judged from its answer", setup, ONE_HOLDER);
}

#[test]
fn the_servers_time_taken_in_full_makes_two_holders() {
    let setup = on_a_fast_server(Fault::ElapsedTakenInFull);
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
    let setup = on_a_fast_server(Fault::ClaimTakenForALease);
    finds("claim taken for a lease", setup, ONE_HOLDER);
}

#[test]
fn a_lock_that_at_least_keeps_must_not_be_granted() {
    let setup = Setup {
        keep: 2,
        ..only(Fault::KeptIsFree)
    };
    finds("kept is free", setup, KEPT_STAYS);
}

#[test]
fn a_forced_release_has_to_look_for_heartbeats() {
    let stale = Queue {
        stale: 1,
        ..Queue::default()
    };
    let setup = with(Fault::StaleInAnyCase, stale);
    finds("stale in any case", setup, FORCED_IF_STALE);
}

#[test]
fn a_claim_without_expiry_is_kept_for_the_dead() {
    let setup = a_process_dies(Fault::ClaimWithoutExpiry, Death::Unnoticed);
    finds("claim without expiry", setup.clone(), ORPHAN_GOES);
    finds("... and the waiters", setup, SERVED);
}

#[test]
fn a_leave_that_keeps_what_it_was_granted_leaves_a_lock_behind() {
    let setup = only(Fault::LeaveKeepsClaim);
    finds("leave keeps the claim", setup, NO_LEFTOVER);
}

#[test]
fn a_late_poll_that_is_released_once_leaves_a_lock_behind() {
    let setup = only(Fault::OrphanReleasedOnce);
    finds("a late poll released once", setup, NO_LEFTOVER);
}

#[test]
fn a_release_has_to_grant_the_lock_to_a_waiter() {
    let setup = only(Fault::ReleaseGrantsNothing);
    finds("release grants nothing", setup, PASSED_ON);
}

#[test]
fn the_queue_is_served_from_its_head() {
    finds(
        "last come, first served",
        only(Fault::LastComeFirst),
        IN_ORDER,
    );
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
    let setup = with_a_poll(Fault::BackWithEachPoll);
    finds("back with each poll", setup, IN_ORDER);
}

/// Its notification was lost, and that is all that happened.
#[test]
fn a_waiter_that_missed_its_grant_has_to_bring_its_ticket() {
    finds("no ticket", with_a_poll(Fault::NoTicket), IN_ORDER);
}

#[test]
fn a_waiter_that_missed_its_grant_has_to_let_others_go_first() {
    let setup = a_process_dies(Fault::OfferedAgain, Death::Unnoticed);
    finds("offered again and again", setup, SERVED);
}

#[test]
fn a_waiter_has_to_poll() {
    finds("no waiter polls", only(Fault::NobodyPolls), SERVED);
}

#[test]
fn the_head_of_the_queue_must_not_be_the_only_one_that_polls() {
    let setup = a_process_dies(Fault::OnlyTheHeadPolls, Death::Silent);
    finds("only the head polls", setup, SERVED);
}
