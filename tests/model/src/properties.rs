//! The promises, by name, and the things that must be reachable for a check to be worth
//! anything.

use stateright::Property;

use crate::setup::Setup;
use crate::state::{By, Message, Phase, State};
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
pub const ORPHAN_GOES: &str = "an orphan goes";
/// An acquire of a client that has given up has the lock.
pub const ORPHAN_COMES: &str = "an orphan has the lock";
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
/// Nothing is written for a waiter that does not get the lock.
pub const NOTHING_IN_VAIN: &str = "nothing is written for a waiter that can't be reached";
/// No grant goes past one who came earlier and could have been told.
pub const IN_ORDER: &str = "the first to come has the first turn";
/// A lock that is given back goes to somebody in the queue, if one can be told.
pub const PASSED_ON: &str = "a lock given back is passed on";
/// Whatever was lost, the timers bring each who waits its turn.
pub const SERVED: &str = "nobody waits in vain";
/// A waiter holds by a grant that it did not ask for just now.
pub const HANDED: &str = "a grant that was pushed can be believed";
/// A grant comes too late for that, or seems to come too early.
pub const CONFIRMED: &str = "a grant that was pushed is confirmed by a poll";
/// One who leaves the queue was granted the lock meanwhile.
pub const LEFT_MEANWHILE: &str = "a leave crosses a grant";
/// A claim runs out, and its waiter knows its place.
pub const MISSED: &str = "a waiter that missed its grant has its ticket";
/// Somebody has the lock while one who can't be reached stands before it.
pub const SKIPPED: &str = "one who is dead is skipped";

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
        Property::always(NOTHING_IN_VAIN, |_, state: &State| !state.written_in_vain),
        Property::always(ORPHAN_GOES, |_, state: &State| {
            state.kept_for_nobody <= LIFE + TTL
        }),
        Property::sometimes(ORPHAN_COMES, |_, state: &State| {
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
    if setup.queue.processes > 0 {
        all.extend(of_the_queue(setup));
    }
    all
}

fn of_the_queue(setup: &Setup) -> Vec<Property<Setup>> {
    let mut all: Vec<Property<Setup>> = vec![
        Property::always(PASSED_ON, |_, state: &State| !state.turns.left_lying),
        Property::always(SERVED, |setup: &Setup, state| setup.serves_all(state)),
        Property::sometimes(LEFT_MEANWHILE, |_, state: &State| {
            let claim = state.server.held().is_some_and(|one| one.claimed);
            claim && state.kept() == Some(&Phase::Ending { held: false })
        }),
        Property::sometimes(MISSED, |_, state: &State| {
            state.server.held().is_none() && missed(state)
        }),
    ];
    if setup.queue.deaf < setup.queue.processes {
        all.push(Property::sometimes(HANDED, |setup, state: &State| {
            believed(setup, state).any(|one| one)
        }));
        all.push(Property::sometimes(CONFIRMED, |setup, state: &State| {
            believed(setup, state).any(|one| !one)
        }));
    }
    // A server that forgets the queue forgets its order.
    if setup.failovers == 0 && setup.queue.dead_after == 0 {
        all.push(Property::always(IN_ORDER, |_, state: &State| {
            !state.turns.jumped
        }));
    }
    if setup.queue.crashes > 0 {
        all.push(Property::sometimes(SKIPPED, |_, state: &State| {
            let head = state.server.waiters().next();
            let dead = head.and_then(|head| state.acquisitions.get(usize::from(head)));
            dead == Some(&Phase::Dead) && state.kept().is_some_and(Phase::holds)
        }));
    }
    all
}

/// Of each grant that was pushed to one who waits, whether it would be believed now.
fn believed<'a>(setup: &'a Setup, state: &'a State) -> impl Iterator<Item = bool> + 'a {
    state.network.iter().filter_map(|message| match *message {
        Message::Handed {
            owner,
            age,
            by: By::Push,
            ..
        } => match state.acquisitions.get(usize::from(owner)) {
            Some(&Phase::Waiting { lag, .. }) => {
                Some(setup.left_of_a_claim(lag, age, By::Push).is_some())
            }
            _ => None,
        },
        _ => None,
    })
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

/// A waiter has its ticket, and does not stand in the queue: its grant was lost on its way.
fn missed(state: &State) -> bool {
    (0..).zip(&state.acquisitions).any(|(owner, phase)| {
        let has_ticket = matches!(
            phase,
            Phase::Waiting {
                ticket: Some(_),
                ..
            }
        );
        has_ticket && !state.server.waiters().any(|one| one == owner)
    })
}

fn meets_another(state: &State) -> bool {
    let holder = state.server.held();
    holder.is_some_and(|holder| {
        state
            .network
            .iter()
            .any(|message| matches!(message, Message::Release { owner } if *owner != holder.owner))
    })
}
