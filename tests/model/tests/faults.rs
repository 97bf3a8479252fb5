//! Promise: each part of the protocol is needed, and the check notices when it is missing.

mod support;

use applock_model::properties::{
    LOST_FOR_GOOD, NO_LEFTOVER, ONE_HOLDER, ORPHAN_GOES, TRUE_ANSWERS,
};
use applock_model::{Fault, Setup};
use support::finds;

/// As few clients and steps as show it, and this fault.
fn with(fault: Fault) -> Setup {
    Setup {
        fault: Some(fault),
        ..Setup::plain(2)
    }
}

#[test]
fn a_lease_judged_from_the_answers_arrival_makes_two_holders() {
    let setup = Setup {
        drift: false,
        ..with(Fault::JudgedFromArrival)
    };
    finds("judged from arrival", setup, ONE_HOLDER);
}

#[test]
fn a_lease_without_a_margin_makes_two_holders() {
    finds("no margin", with(Fault::NoMargin), ONE_HOLDER);
}

#[test]
fn a_late_answer_must_not_bring_a_lost_lease_back() {
    let setup = with(Fault::LostComesBack);
    finds("lost comes back", setup, LOST_FOR_GOOD);
}

#[test]
fn a_release_by_any_owner_makes_two_holders() {
    let setup = Setup {
        acquisitions: 3,
        ..with(Fault::ReleaseByAnyOwner)
    };
    finds("release by any owner", setup, ONE_HOLDER);
}

#[test]
fn a_heartbeat_of_any_owner_is_answered_wrongly() {
    let setup = with(Fault::RenewByAnyOwner);
    finds("renew by any owner", setup, TRUE_ANSWERS);
}

#[test]
fn an_owner_id_used_twice_makes_two_holders() {
    let setup = with(Fault::OwnerIdReused);
    finds("owner id used twice", setup, ONE_HOLDER);
}

#[test]
fn an_unknown_outcome_read_as_no_leaves_a_lock_behind() {
    let setup = with(Fault::UnknownReadAsNo);
    finds("unknown read as no", setup, NO_LEFTOVER);
}

#[test]
fn an_orphan_that_is_released_once_leaves_a_lock_behind() {
    let setup = with(Fault::OrphanReleasedOnce);
    finds("an orphan released once", setup, NO_LEFTOVER);
}

#[test]
fn a_heartbeat_for_nobody_keeps_an_orphan() {
    let setup = Setup {
        clients: 1,
        acquisitions: 1,
        retries: 0,
        drift: false,
        ..with(Fault::HeartbeatForNobody)
    };
    finds("heartbeat for nobody", setup, ORPHAN_GOES);
}

#[test]
fn what_no_replica_has_acknowledged_must_not_count() {
    let setup = Setup {
        acknowledged: true,
        failovers: 1,
        drift: false,
        ..with(Fault::UnacknowledgedCounts)
    };
    finds("unacknowledged counts", setup, ONE_HOLDER);
}
