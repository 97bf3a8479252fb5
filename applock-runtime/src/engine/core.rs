//! The actor: the table of entries, their timers, the outbox, and the few steps that change
//! them.
//!
//! All state of an engine is one struct, owned by one task: no locks, and no interleaving
//! inside a step. The primitives here keep the invariants between the table and its
//! indexes: an entry has one timer at most, and it is in the timer set exactly if the entry
//! says so; each entry that goes is counted off in `unfinished`. The danger they guard
//! against is an entry that no timer, answer or command will ever wake again: a lock
//! without heartbeats.
//!
//! What a step means belongs in `acquire`, `hold` and `release`, and when it is due in
//! `event_loop`; nothing here knows a rule of locking.

use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap};
use std::future::Future;
use std::hash::{BuildHasherDefault, Hasher};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::mpsc::SyncSender;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_util::stream::FuturesUnordered;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{Unconstrained, unconstrained};

use crate::clock::{Clock, Moment, Sleep};
use crate::error::{Loss, Result};
use crate::measures::Gauges;
use crate::store::{
    Acquired, Identity, Notification, Notifications, OwnerId, Released, Store, StoreFuture,
    StoreResult,
};

use super::farewell::Leaving;
use super::lease_time::Sent;
use super::mailbox::Command;
use super::remembered::Remembered;
use super::state::{EntryState, ReleasingEntry};
use super::unfinished::Unfinished;
use super::waiters::Waiters;

/// What an engine works with.
pub(crate) struct Parts {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) identity: Arc<Identity>,
    /// The longest that any command may take.
    pub(crate) command_timeout: Duration,
}

impl Parts {
    /// Those of a process that was forked off.
    pub(super) fn forked(&self) -> Self {
        let store = self.store.forked();
        Self {
            store: store.unwrap_or_else(|| Arc::clone(&self.store)),
            clock: Arc::clone(&self.clock),
            identity: Arc::new(self.identity.forked()),
            command_timeout: self.command_timeout,
        }
    }
}

/// The engine's whole state. See the [module](self).
pub(super) struct Actor {
    pub(super) parts: Arc<Parts>,
    /// When the event came that is acted upon: see [`now`](Actor::now).
    moment: Moment,
    /// The process that this thread is of.
    pub(super) process: u32,
    pub(super) unfinished: Arc<Unfinished>,
    pub(super) waiters: Waiters,
    /// Goes with each request that waits: where the store notifies this engine.
    pub(super) notifications: Notifications,
    pub(super) notified: mpsc::UnboundedReceiver<Notification>,
    pub(super) commands: mpsc::UnboundedReceiver<Command>,
    /// No handle is left that could send another command.
    pub(super) abandoned: bool,
    pub(super) closing: Option<Closing>,
    /// By owner id. Boxed, for half of a hash table is empty.
    pub(super) entries: HashMap<OwnerId, Box<TableEntry>, BuildHasherDefault<IdHasher>>,
    /// How many of them are held locks.
    pub(super) held: usize,
    /// How many of them only watch for a late request.
    pub(super) watching: usize,
    /// The entries whose caller's thread waits at its end.
    pub(super) left: HashMap<OwnerId, Leaving, BuildHasherDefault<IdHasher>>,
    pub(super) timers: Timers,
    /// The batches that the store has not answered.
    pub(super) inflight: FuturesUnordered<Unconstrained<InFlight>>,
    pub(super) outbox: Outbox,
    /// Whether another server may come to serve locks.
    pub(super) may_move: bool,
    /// What such a server may not know of.
    pub(super) remembered: Remembered,
    /// Tells the store whether that matters to anything here.
    needs_watch: watch::Sender<bool>,
    /// Releases that nobody waits for, and that the store has failed: they wait for its next
    /// answer. Some may have gone meanwhile.
    pub(super) parked: Vec<OwnerId>,
    /// The one that tries on, for all of those.
    pub(super) probe: Option<OwnerId>,
    /// The sleep that wakes the loop, and for when it is set. Kept over many rounds: a
    /// sleep for an earlier moment does no harm, and making one costs.
    pub(super) alarm: Option<(Moment, Sleep)>,
    /// When the wall clock is checked next, while anything is held.
    pub(super) next_wall_check: Option<Moment>,
    /// What the clocks showed at the last check.
    pub(super) wall_checked: Option<Sent>,
    pub(super) store_health: StoreHealth,
    pub(super) gauges: Gauges,
    /// Answered as soon as nothing is left to do at this moment.
    pub(super) settling: Vec<SyncSender<()>>,
}

/// The entries that have a timer, the earliest first.
pub(super) type Timers = BTreeSet<(Moment, OwnerId)>;

/// A row of the table: an entry, and its one timer.
pub(super) struct TableEntry {
    pub(super) wake: Option<Moment>,
    pub(super) state: EntryState,
}

impl TableEntry {
    /// Sets, moves or clears the timer.
    pub(super) fn set_timer(&mut self, timers: &mut Timers, owner: OwnerId, at: Option<Moment>) {
        if self.wake == at {
            return;
        }
        if let Some(known) = self.wake {
            timers.remove(&(known, owner));
        }
        if let Some(at) = at {
            timers.insert((at, owner));
        }
        self.wake = at;
    }
}

/// The owner ids whose next step leaves with the next batch.
#[derive(Default)]
pub(super) struct Outbox {
    pub(super) acquires: Vec<OwnerId>,
    pub(super) renewals: Vec<OwnerId>,
    pub(super) releases: Vec<OwnerId>,
}

/// The longest list of owner ids that is kept for the next batch.
const KEPT_LIST: usize = 1_024;

/// Keeps the list of a batch that is answered for the next one of its kind.
pub(super) fn keep_list(list: &mut Vec<OwnerId>, mut answered: Vec<OwnerId>) {
    if list.capacity() == 0 && answered.capacity() <= KEPT_LIST {
        answered.clear();
        *list = answered;
    }
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

/// What the answers have shown of the store.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct StoreHealth {
    pub(super) is_up: Option<bool>,
    pub(super) answered: Option<Moment>,
}

/// What is under way: a batch, with its owner ids and when it left, or a request of an operator.
pub(super) enum InFlight {
    Acquire(Vec<OwnerId>, Sent, StoreFuture<Vec<StoreResult<Acquired>>>),
    Renew(Vec<OwnerId>, Sent, StoreFuture<Vec<StoreResult<bool>>>),
    Release(Vec<OwnerId>, Sent, StoreFuture<Vec<StoreResult<Released>>>),
    Other(StoreFuture<Completion>),
}

impl Future for InFlight {
    type Output = Completion;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Completion> {
        Poll::Ready(match self.get_mut() {
            Self::Acquire(owners, sent, answer) => {
                let outcomes = ready!(answer.as_mut().poll(context));
                Completion::Acquired(std::mem::take(owners), *sent, outcomes)
            }
            Self::Renew(owners, sent, answer) => {
                let outcomes = ready!(answer.as_mut().poll(context));
                Completion::Renewed(std::mem::take(owners), *sent, outcomes)
            }
            Self::Release(owners, sent, answer) => {
                let outcomes = ready!(answer.as_mut().poll(context));
                Completion::Released(std::mem::take(owners), *sent, outcomes)
            }
            Self::Other(work) => ready!(work.as_mut().poll(context)),
        })
    }
}

/// What has come back: the answers to a batch with its owner ids and when it left, or a
/// request of an operator, which has answered its caller by itself.
pub(super) enum Completion {
    Acquired(Vec<OwnerId>, Sent, Vec<StoreResult<Acquired>>),
    Renewed(Vec<OwnerId>, Sent, Vec<StoreResult<bool>>),
    Released(Vec<OwnerId>, Sent, Vec<StoreResult<Released>>),
    /// With whether the store has answered.
    Forced(Arc<str>, bool),
    /// The same of another request of an operator.
    Asked(bool),
    /// No store was asked.
    Nothing,
}

impl Completion {
    /// Whether the store has answered.
    pub(super) fn is_answered(&self) -> bool {
        match self {
            Self::Acquired(_, _, outcomes) => outcomes.iter().any(Result::is_ok),
            Self::Renewed(_, _, outcomes) => outcomes.iter().any(Result::is_ok),
            Self::Released(_, _, outcomes) => outcomes.iter().any(Result::is_ok),
            Self::Forced(..) | Self::Asked(_) | Self::Nothing => false,
        }
    }
}

/// A shutdown under way, or a drain, which is one that gives bodies time to end first.
pub(super) struct Closing {
    /// Until then bodies go on; holders are notified then. `None`: they have been.
    pub(super) notice: Option<Moment>,
    /// Holders have been notified, and may let go until then; what they still hold is
    /// released.
    pub(super) grace: Moment,
    /// The callers of the shutdown are answered by then, whatever is left.
    pub(super) deadline: Moment,
    /// What was still held at the end of the grace has been released.
    pub(super) has_released: bool,
    pub(super) replies: Vec<oneshot::Sender<Result<()>>>,
}

/// How often the wall clock is checked: when a paused machine wakes, its leases are
/// verified no later than this.
pub(super) const WALL_CHECK: Duration = Duration::from_secs(1);

impl Actor {
    pub(super) fn new(
        parts: Arc<Parts>,
        commands: mpsc::UnboundedReceiver<Command>,
        unfinished: Arc<Unfinished>,
    ) -> Self {
        let (notifications, notified) = mpsc::unbounded_channel();
        let (needs_watch, needed) = watch::channel(false);
        let may_move = parts.store.watch(&notifications, needed);
        Self {
            moment: parts.clock.now(),
            parts,
            process: std::process::id(),
            waiters: Waiters::default(),
            notifications,
            notified,
            commands,
            unfinished,
            abandoned: false,
            closing: None,
            entries: HashMap::default(),
            held: 0,
            watching: 0,
            left: HashMap::default(),
            timers: Timers::new(),
            inflight: FuturesUnordered::new(),
            outbox: Outbox::default(),
            may_move,
            remembered: Remembered::default(),
            needs_watch,
            parked: Vec::new(),
            probe: None,
            alarm: None,
            next_wall_check: None,
            wall_checked: None,
            store_health: StoreHealth::default(),
            gauges: Gauges::default(),
            settling: Vec::new(),
        }
    }

    /// When the event came that is acted upon: one reading of the clock for all of it. So it may
    /// be a little old, which is safe: a request is judged from it, and leaves later (rule R1); and
    /// whether a lease counts, its holder finds out by a reading of its own.
    pub(super) fn now(&self) -> Moment {
        self.moment
    }

    /// Reads the clock, for the event that is acted upon next.
    pub(super) fn tick(&mut self) {
        self.moment = self.parts.clock.now();
    }

    /// All owner ids, sorted: what is done to all of them is done in the same order in each
    /// run of a simulation.
    pub(super) fn owners(&self) -> Vec<OwnerId> {
        let mut owners: Vec<OwnerId> = self.entries.keys().copied().collect();
        owners.sort_unstable();
        owners
    }

    /// The entry of an owner id, if it has not gone.
    pub(super) fn state(&mut self, owner: OwnerId) -> Option<&mut EntryState> {
        self.entries.get_mut(&owner).map(|entry| &mut entry.state)
    }

    /// Sets an entry's state, old or new, and gives back the one that it had. Its timer is off
    /// then: the step that follows arms it.
    pub(super) fn put(&mut self, owner: OwnerId, state: EntryState) -> Option<EntryState> {
        if matches!(state, EntryState::Holding(_)) && self.next_wall_check.is_none() {
            self.next_wall_check = Some(self.now() + WALL_CHECK);
            self.wall_checked = Some(Sent::now(&*self.parts.clock));
        }
        self.held += usize::from(state.is_held());
        self.watching += usize::from(state.is_watch());
        match self.entries.entry(owner) {
            Entry::Occupied(mut row) => {
                let row = row.get_mut();
                row.set_timer(&mut self.timers, owner, None);
                self.held -= usize::from(row.state.is_held());
                self.watching -= usize::from(row.state.is_watch());
                Some(std::mem::replace(&mut row.state, state))
            }
            Entry::Vacant(row) => {
                row.insert(Box::new(TableEntry { wake: None, state }));
                None
            }
        }
    }

    /// Takes an entry out of the table, with its timer. It still counts as unfinished: the
    /// caller puts it back in another state, or counts it off.
    pub(super) fn remove(&mut self, owner: OwnerId) -> Option<EntryState> {
        let mut row = self.entries.remove(&owner)?;
        row.set_timer(&mut self.timers, owner, None);
        self.held -= usize::from(row.state.is_held());
        self.watching -= usize::from(row.state.is_watch());
        Some(row.state)
    }

    /// Ends a releasing entry: there is nothing left to do for it, here or at the store. It is
    /// remembered where another server may come to serve the lock; where one has come meanwhile the
    /// release leaves once more.
    pub(super) fn retire(&mut self, owner: OwnerId) {
        let Some(EntryState::Releasing(releasing)) = self.remove(owner) else {
            return;
        };
        self.count_off(owner);
        if releasing.has_moved && releasing.until > self.moment {
            self.release_again(owner, *releasing);
        } else if self.may_move {
            // Not, if the ttl has freed the lock.
            self.remembered.keep(owner, releasing, self.moment);
        }
        if self.probe == Some(owner) {
            self.next_probe();
        }
    }

    /// Makes an entry of a release that was answered before.
    pub(super) fn release_again(&mut self, owner: OwnerId, answered: ReleasingEntry) {
        self.unfinished.add();
        self.end(owner, answered.again());
    }

    /// Tells the store whether it has to look out for another server that serves: while there are
    /// locks or waiters, or a release may be lost still.
    pub(super) fn say_whether_watch_is_needed(&mut self) {
        if self.may_move {
            self.remembered.forget(self.moment);
            let needed = !self.entries.is_empty() || !self.remembered.is_empty();
            self.needs_watch
                .send_if_modified(|known| std::mem::replace(known, needed) != needed);
        }
    }

    /// An entry that was taken out of the table has ended.
    pub(super) fn count_off(&mut self, owner: OwnerId) {
        self.left.remove(&owner);
        self.unfinished.done();
    }

    /// The end of a thread waits for this entry.
    pub(super) fn left_behind(&mut self, owner: OwnerId, leaving: Option<Leaving>) {
        if let Some(leaving) = leaving
            && self.entries.contains_key(&owner)
        {
            self.left.insert(owner, leaving);
        }
    }

    /// Makes a releasing entry, whose first request leaves with the next batch.
    pub(super) fn end(&mut self, owner: OwnerId, releasing: ReleasingEntry) {
        self.put(owner, EntryState::Releasing(Box::new(releasing)));
        self.queue_release(owner);
    }

    /// Sets, moves or clears the entry's one timer.
    pub(super) fn wake(&mut self, owner: OwnerId, at: Option<Moment>) {
        if let Some(entry) = self.entries.get_mut(&owner) {
            entry.set_timer(&mut self.timers, owner, at);
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

    /// Starts a request. It leaves at its first poll, and so before every later one: the
    /// waiter that came first is queued first. Polled unconstrained: where tokio's budget
    /// for one poll is used up, it would wake the requests that it had put off in the
    /// opposite order.
    pub(super) fn start(&mut self, request: InFlight) {
        self.inflight.push(unconstrained(request));
    }

    /// Starts what is no batch.
    pub(super) fn spawn(&mut self, future: impl Future<Output = Completion> + Send + 'static) {
        self.start(InFlight::Other(Box::pin(future)));
    }
}

impl Drop for Actor {
    /// The end, foreseen or not: a waker, a clock or a log subscriber that the engine calls
    /// may panic. Nothing keeps a lock alive then, so no holder may believe that it has
    /// one.
    fn drop(&mut self) {
        for entry in self.entries.values() {
            if let EntryState::Holding(holding) = &entry.state {
                holding.lease.lose(Loss::Stopped);
            }
            self.unfinished.done();
        }
        self.commands.close();
        while let Ok(command) = self.commands.try_recv() {
            if let Command::Acquire { .. } = command {
                self.unfinished.done();
            }
        }
    }
}
