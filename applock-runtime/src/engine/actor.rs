//! The engine's loop: what came in, what was answered, what is due, what goes out.
//!
//! One entry an owner id; its life is wish → holding → ending, and each of the three
//! has a file of its own. One step at a time per entry, so that a release never
//! overtakes a heartbeat in flight. Steps that are due together travel together.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::future::{Future, poll_fn};
use std::hash::{BuildHasherDefault, Hasher};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::stream::{FuturesUnordered, StreamExt as _};
use tokio::sync::{mpsc, oneshot};

use crate::clock::{Moment, Sleep};
use crate::error::{Error, Loss, Result};
use crate::key::Key;
use crate::store::{
    Acquired, Inspection, Notification, Notifications, OwnerId, Release, Released, Renew, Store,
    StoreError, StoreErrorKind, StoreResult,
};

use super::ending::Ending;
use super::holding::Holding;
use super::lease::{Sent, Standing, heartbeat_timeout, margin};
use super::line::Lines;
use super::wish::Waiting;
use super::{Command, Parts, Unfinished};

/// Runs until every handle and every holding is gone.
pub(super) async fn run(
    parts: Arc<Parts>,
    commands: mpsc::UnboundedReceiver<Command>,
    unfinished: Arc<Unfinished>,
) {
    let (notices, noticed) = mpsc::unbounded_channel();
    let mut actor = Actor {
        parts,
        lines: Lines::default(),
        notices,
        noticed,
        commands,
        unfinished,
        abandoned: false,
        closing: None,
        entries: HashMap::default(),
        timers: BTreeSet::new(),
        inflight: FuturesUnordered::new(),
        outbox: Outbox::default(),
        alarm: None,
        next_look: None,
        looked: None,
    };
    poll_fn(|context| actor.poll(context)).await;
}

/// One acquisition, from the wish to its end.
pub(super) enum State {
    // The others are in boxes: most are held, and that is small.
    Wish(Box<Waiting>),
    Holding(Holding),
    Ending(Box<Ending>),
}

pub(super) struct Entry {
    wake: Option<Moment>,
    pub(super) state: State,
}

/// The owner ids whose next step leaves with the next batch.
#[derive(Default)]
struct Outbox {
    acquires: Vec<OwnerId>,
    renewals: Vec<OwnerId>,
    releases: Vec<OwnerId>,
}

/// Owner ids are random, or count up in tests: there is nothing to mix.
#[derive(Default)]
pub(super) struct IdHasher(u64);

impl Hasher for IdHasher {
    fn write(&mut self, bytes: &[u8]) {
        for eight in bytes.chunks(8) {
            let number = eight
                .iter()
                .fold(0, |sum, byte| sum << 8 | u64::from(*byte));
            self.0 ^= number;
        }
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// What a store answered, or a question that has answered for itself.
enum Done {
    Acquired(Vec<OwnerId>, Sent, Vec<StoreResult<Acquired>>),
    Renewed(Vec<OwnerId>, Sent, Vec<StoreResult<bool>>),
    Released(Vec<OwnerId>, Sent, Vec<StoreResult<Released>>),
    Forced(Arc<str>),
    Nothing,
}

/// A shutdown under way.
struct Closing {
    /// Holders have been told; what they still hold is released then.
    grace: Moment,
    deadline: Moment,
    replies: Vec<oneshot::Sender<Result<()>>>,
}

pub(super) struct Actor {
    pub(super) parts: Arc<Parts>,
    pub(super) unfinished: Arc<Unfinished>,
    pub(super) lines: Lines,
    pub(super) notices: Notifications,
    noticed: mpsc::UnboundedReceiver<Notification>,
    commands: mpsc::UnboundedReceiver<Command>,
    /// No handle is left that could send another command.
    abandoned: bool,
    closing: Option<Closing>,
    /// In boxes: half of a table is empty.
    pub(super) entries: HashMap<OwnerId, Box<Entry>, BuildHasherDefault<IdHasher>>,
    timers: BTreeSet<(Moment, OwnerId)>,
    inflight: FuturesUnordered<Pin<Box<dyn Future<Output = Done> + Send>>>,
    outbox: Outbox,
    alarm: Option<(Moment, Sleep)>,
    /// When to look at the wall clock next, while anything is held.
    next_look: Option<Moment>,
    /// What the clocks showed at the last look.
    looked: Option<Sent>,
}

/// How often the wall clock is looked at: a paused machine's holders are asked after no
/// later than this when it wakes.
const LOOK: Duration = Duration::from_secs(1);

/// By how much a heartbeat may be early at most, so that it can travel with another.
const EARLIEST: Duration = Duration::from_secs(2);

impl Actor {
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        loop {
            let mut moved = false;
            while !self.abandoned {
                match self.commands.poll_recv(context) {
                    Poll::Ready(Some(command)) => {
                        self.command(command);
                        moved = true;
                    }
                    Poll::Ready(None) => self.abandoned = true,
                    Poll::Pending => break,
                }
            }
            while let Poll::Ready(Some(done)) = self.inflight.poll_next_unpin(context) {
                self.done(done);
                moved = true;
            }
            while let Poll::Ready(Some(notice)) = self.noticed.poll_recv(context) {
                match notice {
                    Notification::Granted(grant) => self.told(grant),
                    Notification::Poll => self.knock_for_all(),
                }
                moved = true;
            }
            moved |= self.due();
            self.look_at_the_wall_clock();
            self.close();
            moved |= self.flush();
            if moved {
                continue;
            }
            if self.abandoned && self.entries.is_empty() && self.inflight.is_empty() {
                return Poll::Ready(());
            }
            if self.sleep(context).is_pending() {
                return Poll::Pending;
            }
        }
    }

    /// Waits for the earliest timer.
    fn sleep(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let now = self.now();
        let closing = self.closing.as_ref().and_then(|closing| closing.next(now));
        let first = self.timers.first().map(|(at, _)| *at);
        let timers = first.into_iter().chain(closing).chain(self.next_look);
        let Some(at) = timers.min() else {
            return Poll::Pending;
        };
        let alarm = match &mut self.alarm {
            // One that rings too early does no harm.
            Some((armed, sleep)) if *armed <= at => sleep,
            other => &mut other.insert((at, self.parts.clock.sleep_until(at))).1,
        };
        let rung = alarm.as_mut().poll(context);
        if rung.is_ready() {
            self.alarm = None;
        }
        rung
    }

    /// Wakes every entry whose moment has come.
    fn due(&mut self) -> bool {
        let now = self.now();
        let mut moved = false;
        while let Some((at, owner)) = self.timers.first().copied() {
            if at > now {
                break;
            }
            self.timers.pop_first();
            if let Some(entry) = self.entries.get_mut(&owner) {
                entry.wake = None;
                match entry.state {
                    State::Wish(_) => self.wish_due(owner, now),
                    State::Holding(_) => self.holding_due(owner, now),
                    State::Ending(_) => self.ending_due(owner, now),
                }
            }
            moved = true;
        }
        self.gather(now);
        moved
    }

    /// Where a heartbeat leaves, those that are due soon travel with it: locks that were
    /// taken one by one come to share a few calls.
    fn gather(&mut self, now: Moment) {
        if self.outbox.renewals.is_empty() {
            return;
        }
        let leaving = std::mem::take(&mut self.outbox.renewals);
        let earliness = leaving.iter().filter_map(|owner| match self.state(*owner) {
            Some(State::Holding(holding)) => Some(holding.earliness()),
            _ => None,
        });
        let earliness = earliness.max().unwrap_or_default().min(EARLIEST);
        self.outbox.renewals = leaving;
        let soon: Vec<OwnerId> = self
            .timers
            .range(..=(now + earliness, OwnerId::max()))
            .map(|(_, owner)| *owner)
            .collect();
        for owner in soon {
            if let Some(State::Holding(holding)) = self.state(owner)
                && holding.may_beat_at(now)
            {
                self.beat(owner);
                self.rest(owner);
            }
        }
    }

    /// Asks the store after every lease that a jump of the wall clock made suspect.
    fn look_at_the_wall_clock(&mut self) {
        let Some(next) = self.next_look else {
            return;
        };
        let now = self.now();
        if now < next {
            return;
        }
        let sent = Sent::now(&*self.parts.clock);
        if let Some(jump) = sent.wall_jump_since(self.looked.replace(sent)) {
            tracing::warn!(
                ?jump,
                "the wall clock has jumped ahead: it was set, or this machine stood still; \
                 asking the store which locks are ours still"
            );
            for owner in self.owners() {
                if let Some(State::Holding(holding)) = self.state(owner)
                    && holding.lease.standing() == Standing::Suspect
                    && holding.lease.asks_first()
                {
                    self.doubt(owner);
                }
            }
        }
        let mut states = self.entries.values().map(|entry| &entry.state);
        let held = states.any(|state| matches!(state, State::Holding(_)));
        self.next_look = held.then(|| now + LOOK);
    }

    fn command(&mut self, command: Command) {
        match command {
            Command::Open(reply) => {
                let opened = Arc::clone(&self.parts.store).open(self.parts.command_timeout);
                let store = self.parts.store.describe();
                self.aside(async move {
                    let outcome = opened.await.map_err(|error| error.into_error(store, None));
                    let _ = reply.send(outcome);
                    Done::Nothing
                });
            }
            Command::Acquire(wish) => {
                if self.closing.is_some() {
                    let key = Arc::clone(&wish.acquire.key.lock);
                    let _ = wish.reply.send(Err(Error::Closed { key }));
                    self.unfinished.done();
                } else {
                    self.wish(wish);
                }
            }
            Command::Forget(owner) => self.forget(owner),
            Command::Verify(lease, reply) => self.verify(&lease, reply),
            Command::Doubt(owner) => self.doubt(owner),
            Command::Release(lease, reply) => self.let_go(&lease, reply),
            Command::Inspect(key, reply) => self.inspect(key, reply),
            Command::Force(key, stale, reply) => self.force(key, stale, reply),
            Command::Shutdown(within, reply) => self.shutdown(within, reply),
        }
    }

    fn inspect(&mut self, key: Key, reply: oneshot::Sender<Result<Inspection>>) {
        let store = self.parts.store.describe();
        let lock = Arc::clone(&key.lock);
        let timeout = self.parts.command_timeout;
        let looking = Arc::clone(&self.parts.store);
        self.aside(async move {
            let outcome = look(&looking, &key, timeout).await;
            let _ = reply.send(outcome.map_err(|error| error.into_error(store, Some(lock))));
            Done::Nothing
        });
    }

    fn force(&mut self, key: Key, stale: Option<Duration>, reply: oneshot::Sender<Result<bool>>) {
        let store = self.parts.store.describe();
        let lock = Arc::clone(&key.lock);
        let timeout = self.parts.command_timeout;
        let striking = Arc::clone(&self.parts.store);
        self.aside(async move {
            // A look first, which may be repeated: the blow itself may not, or it could
            // fall on the next holder.
            let outcome = match look(&striking, &key, timeout).await {
                Ok(Inspection { holder: None, .. }) => Ok(false),
                Ok(Inspection {
                    holder: Some(holder),
                    ..
                }) => {
                    let forced = striking.force_release(key, stale, timeout).await;
                    if matches!(forced, Ok(true)) {
                        tracing::warn!(
                            key = %lock, owner = %holder.owner_id(), token = holder.fencing_token(),
                            "released by force; it was {holder}"
                        );
                    }
                    forced
                }
                Err(error) => Err(error),
            };
            let forced = Arc::clone(&lock);
            let _ = reply.send(outcome.map_err(|error| error.into_error(store, Some(lock))));
            Done::Forced(forced)
        });
    }

    fn done(&mut self, done: Done) {
        match done {
            Done::Acquired(owners, sent, outcomes) => {
                for (owner, outcome) in owners.into_iter().zip(outcomes) {
                    self.acquired(owner, sent, outcome);
                }
            }
            Done::Renewed(owners, sent, outcomes) => {
                for (owner, outcome) in owners.into_iter().zip(outcomes) {
                    self.renewed(owner, sent, outcome);
                }
            }
            Done::Released(owners, sent, outcomes) => {
                for (owner, outcome) in owners.into_iter().zip(outcomes) {
                    self.released(owner, sent, outcome);
                }
            }
            // A holder of this very process is told at once.
            Done::Forced(key) => self.beat_now(&key),
            Done::Nothing => (),
        }
    }

    /// A request leaves at its first poll, before every later one: whoever came first
    /// stands first in line. (Where tokio's budget for one poll is used up, it would wake
    /// those that it had put off in the opposite order.)
    fn aside(&mut self, future: impl Future<Output = Done> + Send + 'static) {
        self.inflight
            .push(Box::pin(tokio::task::unconstrained(future)));
    }

    /// Sends what is in the outbox. `true`: something left.
    fn flush(&mut self) -> bool {
        let outbox = std::mem::take(&mut self.outbox);
        let Outbox {
            acquires,
            renewals,
            releases,
        } = outbox;
        let any = !(acquires.is_empty() && renewals.is_empty() && releases.is_empty());
        if !acquires.is_empty() {
            self.send_acquires(acquires);
        }
        if !renewals.is_empty() {
            self.send_renewals(renewals);
        }
        if !releases.is_empty() {
            self.send_releases(releases);
        }
        any
    }

    fn send_acquires(&mut self, owners: Vec<OwnerId>) {
        // The lease is judged from here: before the request leaves (rule R1).
        let sent = Sent::now(&*self.parts.clock);
        let mut batch = Vec::with_capacity(owners.len());
        let mut timeout = Duration::ZERO;
        let mut asked = Vec::with_capacity(owners.len());
        for owner in owners {
            if let Some(State::Wish(waiting)) = self.state(owner) {
                let ttl = waiting.acquire.ttl;
                // An answer after the lease's end would be of no use.
                timeout = timeout.max(ttl - margin(ttl));
                batch.push(waiting.acquire.clone());
                asked.push(owner);
            }
        }
        let answer =
            Arc::clone(&self.parts.store).acquire(batch, timeout.min(self.parts.command_timeout));
        self.aside(async move { Done::Acquired(asked, sent, answer.await) });
    }

    fn send_renewals(&mut self, owners: Vec<OwnerId>) {
        let sent = Sent::now(&*self.parts.clock);
        // Those of one time-out travel together: a short lease must not wait for its
        // answer as long as a long one, nor a long one give up as early.
        let mut batches: BTreeMap<Duration, (Vec<OwnerId>, Vec<Renew>)> = BTreeMap::new();
        let command_timeout = self.parts.command_timeout;
        for owner in owners {
            if let Some(State::Holding(holding)) = self.state(owner) {
                let lease = &holding.lease;
                let timeout = heartbeat_timeout(holding.term, command_timeout);
                let (asked, batch) = batches.entry(timeout).or_default();
                batch.push(Renew {
                    key: lease.key.clone(),
                    owner,
                    token: lease.token,
                    ttl: lease.ttl,
                });
                asked.push(owner);
            }
        }
        for (timeout, (asked, batch)) in batches {
            let answer = Arc::clone(&self.parts.store).renew(batch, timeout);
            self.aside(async move { Done::Renewed(asked, sent, answer.await) });
        }
    }

    fn send_releases(&mut self, owners: Vec<OwnerId>) {
        let sent = Sent::now(&*self.parts.clock);
        let mut batch = Vec::with_capacity(owners.len());
        let mut asked = Vec::with_capacity(owners.len());
        for owner in owners {
            if let Some(State::Ending(ending)) = self.state(owner) {
                batch.push(Release {
                    key: ending.key.clone(),
                    owner,
                    token: ending.lease.as_ref().map(|lease| lease.token),
                    keep: ending.lease.as_ref().and_then(|lease| lease.keep()),
                });
                asked.push(owner);
            }
        }
        let answer = Arc::clone(&self.parts.store).release(batch, self.parts.command_timeout);
        self.aside(async move { Done::Released(asked, sent, answer.await) });
    }

    fn shutdown(&mut self, within: Duration, reply: oneshot::Sender<Result<()>>) {
        let now = self.now();
        if let Some(closing) = &mut self.closing {
            // The more hurried of two counts; one that is over does not.
            if closing.replies.is_empty() {
                closing.deadline = now + within;
            }
            closing.deadline = closing.deadline.min(now + within);
            closing.grace = closing.grace.min(now + within / 2);
            closing.replies.push(reply);
            return;
        }
        self.closing = Some(Closing {
            grace: now + within / 2,
            deadline: now + within,
            replies: vec![reply],
        });
        for owner in self.owners() {
            match self.state(owner) {
                Some(State::Wish(waiting)) => {
                    let key = Arc::clone(&waiting.acquire.key.lock);
                    waiting.tell(Err(Error::Closed { key }));
                    self.wish_due(owner, now);
                }
                Some(State::Holding(holding)) if holding.lease.lose(Loss::Shutdown) => {
                    tracing::info!(
                        key = %holding.lease.key.lock, owner = %owner.simple(),
                        token = holding.lease.token,
                        "shutting down: the holder is told to stop"
                    );
                }
                _ => (),
            }
        }
    }

    /// Carries a shutdown on.
    fn close(&mut self) {
        let now = self.now();
        let Some(closing) = &self.closing else {
            return;
        };
        if now >= closing.grace {
            for owner in self.owners() {
                if let Some(State::Holding(holding)) = self.state(owner) {
                    let lease = Arc::clone(&holding.lease);
                    self.let_go(&lease, None);
                }
            }
        }
        let left = self
            .entries
            .values()
            .filter(|entry| !matches!(&entry.state, State::Ending(ending) if ending.is_watch()))
            .count();
        let Some(closing) = &mut self.closing else {
            return;
        };
        if left == 0 || now >= closing.deadline {
            for reply in closing.replies.drain(..) {
                let outcome = if left == 0 {
                    Ok(())
                } else {
                    Err(StoreError::new(
                        StoreErrorKind::Unknown,
                        format!("{left} lock(s) could not be released in the time given"),
                        "their ttl frees them",
                    )
                    .into_error(self.parts.store.describe(), None))
                };
                let _ = reply.send(outcome);
            }
        }
    }

    fn owners(&self) -> Vec<OwnerId> {
        let mut owners: Vec<OwnerId> = self.entries.keys().copied().collect();
        owners.sort_unstable();
        owners
    }

    pub(super) fn now(&self) -> Moment {
        self.parts.clock.now()
    }

    pub(super) fn state(&mut self, owner: OwnerId) -> Option<&mut State> {
        self.entries.get_mut(&owner).map(|entry| &mut entry.state)
    }

    pub(super) fn put(&mut self, owner: OwnerId, state: State) {
        if matches!(state, State::Holding(_)) && self.next_look.is_none() {
            self.next_look = Some(self.now() + LOOK);
            self.looked = Some(Sent::now(&*self.parts.clock));
        }
        self.wake(owner, None);
        match self.entries.get_mut(&owner) {
            Some(entry) => entry.state = state,
            None => {
                let entry = Entry { wake: None, state };
                self.entries.insert(owner, Box::new(entry));
            }
        }
    }

    pub(super) fn remove(&mut self, owner: OwnerId) -> Option<State> {
        self.wake(owner, None);
        self.entries.remove(&owner).map(|entry| entry.state)
    }

    /// Forgets an acquisition: nothing of it is left to do.
    pub(super) fn retire(&mut self, owner: OwnerId) {
        if self.remove(owner).is_some() {
            self.unfinished.done();
        }
    }

    /// Sets the entry's one timer.
    pub(super) fn wake(&mut self, owner: OwnerId, at: Option<Moment>) {
        if let Some(entry) = self.entries.get_mut(&owner) {
            if let Some(known) = entry.wake.take() {
                self.timers.remove(&(known, owner));
            }
            if let Some(at) = at {
                self.timers.insert((at, owner));
                entry.wake = Some(at);
            }
        }
    }

    pub(super) fn queue_acquire(&mut self, owner: OwnerId) {
        self.outbox.acquires.push(owner);
    }

    pub(super) fn queue_renewal(&mut self, owner: OwnerId) {
        self.outbox.renewals.push(owner);
    }

    pub(super) fn queue_release(&mut self, owner: OwnerId) {
        self.outbox.releases.push(owner);
    }

    /// The holdings of one key in this process.
    fn beat_now(&mut self, key: &Arc<str>) {
        for owner in self.owners() {
            if let Some(State::Holding(holding)) = self.state(owner)
                && holding.lease.key.lock == *key
            {
                self.beat(owner);
            }
        }
    }
}

/// Looks at a lock; once more where the connection had died meanwhile.
async fn look(store: &Arc<dyn Store>, key: &Key, timeout: Duration) -> StoreResult<Inspection> {
    match Arc::clone(store).inspect(key.clone(), timeout).await {
        Err(error) if error.worth_another => Arc::clone(store).inspect(key.clone(), timeout).await,
        looked => looked,
    }
}

impl Drop for Actor {
    /// The end, foreseen or not: a waker, a clock or a log subscriber that the engine
    /// calls may panic. Nobody keeps a lock alive then, so nobody may think it held.
    fn drop(&mut self) {
        for entry in self.entries.values() {
            if let State::Holding(holding) = &entry.state {
                holding.lease.lose(Loss::Stopped);
            }
            self.unfinished.done();
        }
        self.commands.close();
        while let Ok(command) = self.commands.try_recv() {
            if let Command::Acquire(_) = command {
                self.unfinished.done();
            }
        }
    }
}

impl Closing {
    /// When a shutdown goes on by itself.
    fn next(&self, now: Moment) -> Option<Moment> {
        // Once everybody is told there is nothing left to wait for.
        (!self.replies.is_empty()).then_some(if now < self.grace {
            self.grace.min(self.deadline)
        } else {
            self.deadline
        })
    }
}
