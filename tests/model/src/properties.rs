//! The promises, by name, and the things that must be reachable for a check to be worth
//! anything.

use stateright::Property;

use crate::setup::Setup;
use crate::state::{Message, Phase, State};
use crate::{LIFE, TTL};

/// No write of an earlier holder is taken after one of a later holder.
pub const NO_STALE_WRITE: &str = "the resource takes no stale write";
/// Fencing tokens are unique, and grow.
pub const TOKENS_GROW: &str = "tokens only grow";
/// No two guards say 'held'.
pub const ONE_HOLDER: &str = "at most one believes that it holds";
/// The same as a thing that happens: a server that forgets makes it so.
pub const TWO_HOLDERS: &str = "two believe that they hold";
/// Once lost, never held again.
pub const LOST_FOR_GOOD: &str = "lost is lost for good";
/// What the server keeps, somebody holds or somebody releases.
pub const NO_ORPHAN: &str = "each lock has somebody who will release it";
/// What nobody awaits any more is gone within its ttl.
pub const GHOST_GOES: &str = "a ghost goes";
/// An acquire of a client that has given up has the lock.
pub const GHOST_COMES: &str = "a ghost has the lock";
/// An acquire is answered twice.
pub const ANSWERED_TWICE: &str = "a retry is answered 'yours'";
/// A lease ends by the client's own clock while the server keeps the lock for it still.
pub const LOST_IN_TIME: &str = "a holder is lost before the server lets go";
/// A release finds that somebody else holds the lock.
pub const LATE_RELEASE: &str = "a release meets another's lock";
/// A heartbeat makes a lease longer than any acquire could have.
pub const RENEWED: &str = "a heartbeat is answered in time";
/// A failover brings a lock back that had been released.
pub const BACK_FROM_THE_DEAD: &str = "a failover brings a released lock back";

pub(crate) fn of(setup: &Setup) -> Vec<Property<Setup>> {
    let mut all: Vec<Property<Setup>> = vec![
        Property::always(NO_STALE_WRITE, |_, state: &State| {
            !state.resource.took_stale
        }),
        Property::always(TOKENS_GROW, |_, state: &State| {
            state.tokens.is_sorted_by(|one, next| one < next)
        }),
        Property::always(LOST_FOR_GOOD, |_, state: &State| {
            !state.acquisitions.iter().any(is_revived)
        }),
        Property::always(GHOST_GOES, |_, state: &State| {
            state.kept_for_nobody <= LIFE + TTL
        }),
        Property::sometimes(GHOST_COMES, |_, state: &State| {
            state.kept() == Some(&Phase::Ending { held: false })
        }),
        Property::sometimes(LOST_IN_TIME, |_, state: &State| {
            matches!(state.kept(), Some(Phase::Lost { .. }))
        }),
        Property::sometimes(LATE_RELEASE, |_, state: &State| meets_another(state)),
    ];
    if setup.retries > 0 {
        all.push(Property::sometimes(ANSWERED_TWICE, |_, state: &State| {
            answered_twice(state)
        }));
    }
    if setup.renewals > 0 {
        all.push(Property::sometimes(RENEWED, |_, state: &State| {
            state.network.iter().any(|message| {
                matches!(message, Message::Renewed { owner, age: 0 }
                    if state.acquisitions.get(usize::from(*owner)).is_some_and(Phase::holds))
            })
        }));
    }
    if setup.forgets() {
        // The honest statement about leases.
        all.push(Property::sometimes(TWO_HOLDERS, |_, state: &State| {
            state.holders() > 1
        }));
    } else {
        all.push(Property::always(ONE_HOLDER, |_, state: &State| {
            state.holders() <= 1
        }));
    }
    if setup.failovers > 0 {
        all.push(Property::sometimes(
            BACK_FROM_THE_DEAD,
            |_, state: &State| state.kept() == Some(&Phase::Over),
        ));
    } else {
        all.push(Property::always(NO_ORPHAN, |_, state: &State| {
            state.kept() != Some(&Phase::Over)
        }));
    }
    all
}

fn is_revived(phase: &Phase) -> bool {
    matches!(phase, Phase::Holding { revived: true, .. })
}

fn answered_twice(state: &State) -> bool {
    let mut granted = state.network.iter().filter_map(|message| match message {
        Message::Granted { owner, .. } => Some(owner),
        _ => None,
    });
    let first = granted.next();
    first.is_some() && granted.next() == first
}

fn meets_another(state: &State) -> bool {
    let holder = state.server.holder.as_ref();
    holder.is_some_and(|holder| {
        state
            .network
            .iter()
            .any(|message| matches!(message, Message::Release { owner } if *owner != holder.owner))
    })
}
