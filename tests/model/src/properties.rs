//! The promises, by name, and the things that must be reachable for a check to be worth
//! anything.

use stateright::{Expectation, Property};

use crate::arrivals::Place;
use crate::setup::{NEVER, Setup, Ticks};
use crate::state::{By, Channel, Death, Message, Owner, Stage, State};
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
/// What the server keeps, a client holds or an engine releases.
pub const NO_LEFTOVER: &str = "each lock has a client that will release it";
/// What no client awaits any more is gone within its ttl.
pub const ORPHAN_GOES: &str = "an orphan goes";
/// 'Yours', 'renewed' and 'released' are answered to the holder and to no other, and nothing
/// that another asks for changes its holding.
pub const TRUE_ANSWERS: &str = "only the holder's requests change its holding";
/// A lease is as long as was asked for at most, and a claim no longer than a claim.
pub const LEASES_END: &str = "no lease is longer than it may be";
/// Nothing but force ends what `at_least` keeps, before its time.
pub const KEPT_STAYS: &str = "what at_least keeps is granted to no other";
/// 'If it is stale' ends a holding without a heartbeat, and no other.
pub const FORCED_IF_STALE: &str = "a forced release asks for what it says";
/// A waiter waits for a lock that nobody holds.
pub const WAITS_FOR_THE_KEPT: &str = "a waiter waits for what at_least keeps";
/// An acquire of a client that has given up has the lock.
pub const ORPHAN_COMES: &str = "an orphan has the lock";
/// An acquire is answered twice.
pub const ANSWERED_TWICE: &str = "a retry is answered 'yours'";
/// A lease ends by the client's own clock while the server keeps the lock for it still.
pub const LOST_IN_TIME: &str = "a holder is lost before the server lets go";
/// A release finds that another holds the lock.
pub const LATE_RELEASE: &str = "a release meets another's lock";
/// A heartbeat makes a lease longer than any acquire could have.
pub const RENEWED: &str = "a heartbeat is answered in time";
/// A failover brings a lock back that had been released.
pub const BACK_FROM_THE_DEAD: &str = "a failover brings a released lock back";
/// No grant goes past a waiter that came earlier and could have been granted the lock.
pub const IN_ORDER: &str = "first come, first served";
/// Neither a lost notification nor a subscription that breaks costs a waiter its place.
pub const KEEPS_ITS_PLACE: &str = "a waiter keeps its place until its process is dead";
/// A poll keeps the queue, and its process alive; a waiter of a queue that was not polled for its
/// life has no place, and gets no grant by it.
pub const FORGETS: &str = "a queue that is not polled is forgotten";
/// A lock that is given back goes to a waiter, if one can be reached.
pub const PASSED_ON: &str = "a lock given back goes to a waiter";
/// Whatever was lost, the timers bring each waiter its grant.
pub const SERVED: &str = "no waiter waits in vain";
/// A waiter that is written down as the holder hears of it, or finds it by its next poll;
/// and no other is notified. So the newest holding never names a waiter that can't be reached.
pub const NOT_IN_VAIN: &str = "nothing is written for a waiter that does not get it";
/// A waiter holds by a grant that it did not ask for just now.
pub const BELIEVED: &str = "a notification can be believed";
/// A grant comes too late for that, or seems to come too early.
pub const CONFIRMED: &str = "a notification is confirmed by a poll";
/// A waiter that leaves the queue was granted the lock meanwhile.
pub const LEFT_MEANWHILE: &str = "a leave crosses a grant";
/// A claim runs out, and its waiter has no place.
pub const MISSED: &str = "a waiter has missed its grant";
/// A waiter that had lost its place is put where it stood.
pub const BACK: &str = "a ticket brings a place back";
/// A dead waiter has lost its place.
pub const DROPPED: &str = "a dead waiter loses its place";
/// A waiter that lives is dropped: its process was thought dead, or its queue forgotten.
pub const FORGOTTEN: &str = "a waiter that lives loses its place";
/// The lock is kept for a waiter whose subscription may be on its way back.
pub const KEPT_FOR_A_RETURN: &str = "a restarted server keeps the lock for a moment";
/// A waiter of a process that only polls is granted the lock.
pub const FOUND_BY_POLLING: &str = "a process that only polls is granted the lock";
/// A waiter of such a process has left the queue, for it had been silent.
pub const SILENT: &str = "a process that only polls, and does not, loses its places";

/// Where a run counts from its grant on, a tick has one.
pub const RUN_ONCE: &str = "a tick is run at most once";
/// A run of an older tick does not begin after one of a newer.
pub const NO_OLD_TICK: &str = "no old tick is run";
/// Where failed runs do not count: one that ended well does.
pub const NOT_AFTER_SUCCESS: &str = "a tick is not run again after it ended well";
/// A request is refused if a run counts, and only then.
pub const REFUSED_IF_RAN: &str = "a request is refused for a run that counts, and for no other";
/// A replica did not know of the run.
pub const RUN_TWICE: &str = "a tick is run twice";
/// A tick whose first grant was not used is run by another.
pub const UNUSED: &str = "a grant that was not used costs no tick";
/// A run that failed is taken up.
pub const TAKEN_UP: &str = "a failed run is taken up by another";
/// A waiter hears that an earlier run forbids it.
pub const TOLD: &str = "a waiter is told that the tick was run";
/// The newer tick is run as well.
pub const BOTH_TICKS: &str = "two ticks are run";

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
        Property::always(ORPHAN_GOES, |_, state: &State| {
            state.kept_for_nobody <= LIFE + TTL
        }),
        Property::always(TRUE_ANSWERS, |_, state: &State| !state.wrong.answer),
        Property::always(LEASES_END, |setup: &Setup, state| leases_end(setup, state)),
        Property::sometimes(ORPHAN_COMES, |_, state: &State| {
            state.kept() == Some(&Stage::Releasing { held: false })
        }),
        Property::sometimes(LOST_IN_TIME, |_, state: &State| {
            matches!(state.kept(), Some(Stage::Lost { .. }))
        }),
        Property::sometimes(LATE_RELEASE, |_, state: &State| meets_another(state)),
    ];
    if setup.retries > 0 {
        all.push(Property::sometimes(ANSWERED_TWICE, |_, state: &State| {
            answered_twice(state)
        }));
    }
    if setup.keep > 0 {
        all.push(Property::always(KEPT_STAYS, |_, state: &State| {
            !state.wrong.kept
        }));
        all.push(Property::sometimes(
            WAITS_FOR_THE_KEPT,
            |_, state: &State| state.server.kept > 0 && state.server.waiters().next().is_some(),
        ));
    }
    if setup.queue.forced > 0 || setup.queue.stale > 0 {
        all.push(Property::always(FORCED_IF_STALE, |_, state: &State| {
            !state.wrong.forced
        }));
    }
    if setup.renewals > 0 {
        all.push(Property::sometimes(RENEWED, |_, state: &State| {
            state.network.iter().any(|message| {
                matches!(message, Message::Renewed { owner, age: 0 }
                    if state.acquisitions.get(usize::from(*owner)).is_some_and(Stage::holds))
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
            |_, state: &State| state.kept() == Some(&Stage::Over),
        ));
    } else {
        all.push(Property::always(NO_LEFTOVER, |_, state: &State| {
            state.kept() != Some(&Stage::Over)
        }));
    }
    if setup.queue.processes > 0 {
        all.extend(of_the_queue(setup));
    }
    if let Some(ticks) = &setup.ticks {
        // Where most requests are refused, not all that happens elsewhere can.
        all.retain(|property| property.expectation == Expectation::Always);
        all.extend(of_the_ticks(setup, ticks));
    }
    all
}

fn of_the_ticks(setup: &Setup, ticks: &Ticks) -> Vec<Property<Setup>> {
    let mut all: Vec<Property<Setup>> = vec![
        Property::always(REFUSED_IF_RAN, |_, state: &State| !state.wrong.due),
        Property::sometimes(UNUSED, |_, state: &State| {
            state.tokens.len() > 1 && state.runs.begun.len() == 1
        }),
    ];
    let run_twice = |_: &Setup, state: &State| is_run_twice(state);
    if setup.forgets_runs() {
        all.push(Property::sometimes(RUN_TWICE, run_twice));
    } else if ticks.retry_failed {
        all.push(Property::sometimes(TAKEN_UP, run_twice));
    } else {
        all.push(Property::always(RUN_ONCE, |_, state: &State| {
            !is_run_twice(state)
        }));
    }
    // Where two may hold, the older may begin later.
    if !setup.forgets() {
        all.push(Property::always(NO_OLD_TICK, |_, state: &State| {
            state.runs.begun.is_sorted()
        }));
    }
    // A release needs no replica.
    if ticks.retry_failed && !setup.forgets() && setup.failovers == 0 {
        all.push(Property::always(NOT_AFTER_SUCCESS, |_, state: &State| {
            !state.runs.begun_again
        }));
    }
    if setup.queue.processes > 0 {
        all.push(Property::sometimes(TOLD, |_, state: &State| {
            let mut network = state.network.iter();
            network.any(|message| matches!(message, Message::AlreadyRan { .. }))
        }));
    }
    if usize::from(ticks.first) < setup.acquisitions {
        all.push(Property::sometimes(BOTH_TICKS, |_, state: &State| {
            state.runs.begun.contains(&1) && state.runs.begun.contains(&2)
        }));
    }
    all
}

fn of_the_queue(setup: &Setup) -> Vec<Property<Setup>> {
    let mut all: Vec<Property<Setup>> = vec![
        Property::always(PASSED_ON, |_, state: &State| !state.arrivals.left_free),
        Property::always(IN_ORDER, |_, state: &State| !state.arrivals.jumped),
        Property::always(KEEPS_ITS_PLACE, |_, state: &State| {
            !state.arrivals.lost_place
        }),
        Property::always(FORGETS, |_, state: &State| !state.wrong.queue),
        Property::always(NOT_IN_VAIN, |_, state: &State| {
            !state.arrivals.granted_in_vain
        }),
        Property::always(SERVED, |setup: &Setup, state| setup.serves_all(state)),
        Property::sometimes(LEFT_MEANWHILE, |_, state: &State| {
            state.server.is_claimed() && state.kept() == Some(&Stage::Releasing { held: false })
        }),
        Property::sometimes(MISSED, |setup: &Setup, state: &State| {
            !state.server.is_taken() && has(setup, state, Place::Granted, Channel::lives)
        }),
    ];
    let (queue, timing) = (&setup.queue, &setup.timing);
    if queue.polling < queue.processes {
        all.push(Property::sometimes(BELIEVED, |setup, state: &State| {
            believed(setup, state).any(|one| one)
        }));
        all.push(Property::sometimes(CONFIRMED, |setup, state: &State| {
            believed(setup, state).any(|one| !one)
        }));
    }
    if queue.polls > 0 {
        all.push(Property::sometimes(BACK, |_, state: &State| is_back(state)));
    }
    if queue.crashes > 0 && queue.death == Death::Silent {
        all.push(Property::sometimes(
            DROPPED,
            |setup: &Setup, state: &State| {
                has(setup, state, Place::Dropped, |channel| !channel.lives())
            },
        ));
    }
    if timing.queue_life != NEVER || queue.breaks > 0 {
        all.push(Property::sometimes(
            FORGOTTEN,
            |setup: &Setup, state: &State| has(setup, state, Place::Dropped, Channel::lives),
        ));
    }
    if queue.restarts > 0 {
        all.push(Property::sometimes(
            KEPT_FOR_A_RETURN,
            |setup: &Setup, state: &State| is_claimed_by(setup, state, Channel::Returning),
        ));
    }
    if queue.polling > 0 {
        all.push(Property::sometimes(
            FOUND_BY_POLLING,
            |setup: &Setup, state: &State| is_claimed_by(setup, state, Channel::Polls),
        ));
    }
    if queue.polling > 0 && timing.silence != NEVER {
        all.push(Property::sometimes(
            SILENT,
            |setup: &Setup, state: &State| {
                has(setup, state, Place::Dropped, |channel| {
                    channel == Channel::Polls
                })
            },
        ));
    }
    all
}

fn is_run_twice(state: &State) -> bool {
    let begun = &state.runs.begun;
    (1..begun.len()).any(|at| begun[at..].contains(&begun[at - 1]))
}

fn channel_of(setup: &Setup, state: &State, owner: Owner) -> Option<Channel> {
    let process = usize::from(setup.process(owner));
    state.channels.get(process).copied()
}

/// Whether a waiter's place has become that, whose process is so.
fn has(setup: &Setup, state: &State, place: Place, is_so: impl Fn(Channel) -> bool) -> bool {
    (0..)
        .zip(&state.acquisitions)
        .filter(|(owner, _)| state.arrivals.place(*owner) == Some(place))
        .any(|(owner, _)| channel_of(setup, state, owner).is_some_and(&is_so))
}

/// Whether the lock is claimed for a waiter whose process is so reached.
fn is_claimed_by(setup: &Setup, state: &State, channel: Channel) -> bool {
    let holder = state.server.holder().filter(|_| state.server.is_claimed());
    holder.and_then(|holder| channel_of(setup, state, holder)) == Some(channel)
}

/// A waiter is answered the ticket that it had already.
fn is_back(state: &State) -> bool {
    state.network.iter().any(|message| match *message {
        Message::Queued {
            owner,
            ticket: Some(answered),
            ..
        } => matches!(state.acquisitions.get(usize::from(owner)),
            Some(Stage::Waiting { ticket: Some(known), .. }) if *known == answered),
        _ => false,
    })
}

/// Of each notification on its way to a waiter, whether it would be believed now.
fn believed<'a>(setup: &'a Setup, state: &'a State) -> impl Iterator<Item = bool> + 'a {
    state.network.iter().filter_map(|message| match *message {
        Message::Granted {
            owner,
            age,
            by: By::Notification,
            ..
        } => match state.acquisitions.get(usize::from(owner)) {
            Some(&Stage::Waiting { lag, .. }) => {
                Some(setup.left_of_a_claim(lag, age, By::Notification).is_some())
            }
            _ => None,
        },
        _ => None,
    })
}

fn leases_end(setup: &Setup, state: &State) -> bool {
    let server = &state.server;
    let longest = match server.is_claimed() {
        _ if server.kept > 0 => server.kept,
        true => setup.timing.claim,
        false => TTL,
    };
    server
        .left()
        .is_none_or(|left| (1..=longest.into()).contains(&left))
}

fn is_revived(phase: &Stage) -> bool {
    matches!(phase, Stage::Holding { revived: true, .. })
}

fn answered_twice(state: &State) -> bool {
    let mut granted = state.network.iter().filter_map(|message| match message {
        Message::Acquired { owner, .. } => Some(owner),
        _ => None,
    });
    let first = granted.next();
    first.is_some() && granted.next() == first
}

fn meets_another(state: &State) -> bool {
    state.server.holder().is_some_and(|holder| {
        state
            .network
            .iter()
            .any(|message| matches!(message, Message::Release { owner } if *owner != holder))
    })
}
