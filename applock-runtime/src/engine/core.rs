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

use std::collections::{BTreeSet, HashMap};
use std::future::Future;
use std::hash::{BuildHasherDefault, Hasher};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::FuturesUnordered;
use tokio::sync::{mpsc, oneshot};

use crate::clock::{Clock, Moment, Sleep};
use crate::error::{Loss, Result};
use crate::store::{
    Acquired, Identity, Notification, Notifications, OwnerId, Released, Store, StoreResult,
};

use super::farewell::Leaving;
use super::lease_time::Sent;
use super::mailbox::Command;
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
    /// The entries that have a timer, the earliest first.
    pub(super) timers: BTreeSet<(Moment, OwnerId)>,
    /// The batches that the store has not answered.
    pub(super) inflight: FuturesUnordered<Pin<Box<dyn Future<Output = Completion> + Send>>>,
    pub(super) outbox: Outbox,
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
}

/// A row of the table: an entry, and its one timer.
pub(super) struct TableEntry {
    pub(super) wake: Option<Moment>,
    pub(super) state: EntryState,
}

/// The owner ids whose next step leaves with the next batch.
#[derive(Default)]
pub(super) struct Outbox {
    pub(super) acquires: Vec<OwnerId>,
    pub(super) renewals: Vec<OwnerId>,
    pub(super) releases: Vec<OwnerId>,
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
        parts.store.watch(&notifications);
        Self {
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
            timers: BTreeSet::new(),
            inflight: FuturesUnordered::new(),
            outbox: Outbox::default(),
            parked: Vec::new(),
            probe: None,
            alarm: None,
            next_wall_check: None,
            wall_checked: None,
            store_health: StoreHealth::default(),
        }
    }

    pub(super) fn now(&self) -> Moment {
        self.parts.clock.now()
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

    /// Sets an entry's state, old or new. Its timer is off then: the step that follows arms
    /// it.
    pub(super) fn put(&mut self, owner: OwnerId, state: EntryState) {
        if matches!(state, EntryState::Holding(_)) && self.next_wall_check.is_none() {
            self.next_wall_check = Some(self.now() + WALL_CHECK);
            self.wall_checked = Some(Sent::now(&*self.parts.clock));
        }
        self.wake(owner, None);
        self.held += usize::from(state.is_held());
        self.watching += usize::from(state.is_watch());
        match self.entries.get_mut(&owner) {
            Some(entry) => {
                self.held -= usize::from(entry.state.is_held());
                self.watching -= usize::from(entry.state.is_watch());
                entry.state = state;
            }
            None => {
                let entry = TableEntry { wake: None, state };
                self.entries.insert(owner, Box::new(entry));
            }
        }
    }

    /// Takes an entry out of the table, with its timer. It still counts as unfinished: the
    /// caller puts it back in another state, or counts it off.
    pub(super) fn remove(&mut self, owner: OwnerId) -> Option<EntryState> {
        self.wake(owner, None);
        let state = self.entries.remove(&owner)?.state;
        self.held -= usize::from(state.is_held());
        self.watching -= usize::from(state.is_watch());
        Some(state)
    }

    /// Ends an entry: there is nothing left to do for it, here or at the store.
    pub(super) fn retire(&mut self, owner: OwnerId) {
        if self.remove(owner).is_some() {
            self.count_off(owner);
            if self.probe == Some(owner) {
                self.next_probe();
            }
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

    /// Starts a request. It leaves at its first poll, and so before every later one: the
    /// waiter that came first is queued first. Polled unconstrained: where tokio's budget
    /// for one poll is used up, it would wake the requests that it had put off in the
    /// opposite order.
    pub(super) fn spawn(&mut self, future: impl Future<Output = Completion> + Send + 'static) {
        self.inflight
            .push(Box::pin(tokio::task::unconstrained(future)));
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
