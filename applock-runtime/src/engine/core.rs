//! The table of the engine's entries, and their timers.

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

pub(super) struct Actor {
    pub(super) parts: Arc<Parts>,
    pub(super) unfinished: Arc<Unfinished>,
    pub(super) waiters: Waiters,
    pub(super) notices: Notifications,
    pub(super) noticed: mpsc::UnboundedReceiver<Notification>,
    pub(super) commands: mpsc::UnboundedReceiver<Command>,
    /// No handle is left that could send another command.
    pub(super) abandoned: bool,
    pub(super) closing: Option<Closing>,
    /// In boxes: half of a table is empty.
    pub(super) entries: HashMap<OwnerId, Box<TableEntry>, BuildHasherDefault<IdHasher>>,
    pub(super) timers: BTreeSet<(Moment, OwnerId)>,
    pub(super) inflight: FuturesUnordered<Pin<Box<dyn Future<Output = Completion> + Send>>>,
    pub(super) outbox: Outbox,
    pub(super) alarm: Option<(Moment, Sleep)>,
    /// When to look at the wall clock next, while anything is held.
    pub(super) next_wall_check: Option<Moment>,
    /// What the clocks showed at the last look.
    pub(super) wall_checked: Option<Sent>,
}

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

/// What a store answered, or a question that has answered for itself.
pub(super) enum Completion {
    Acquired(Vec<OwnerId>, Sent, Vec<StoreResult<Acquired>>),
    Renewed(Vec<OwnerId>, Sent, Vec<StoreResult<bool>>),
    Released(Vec<OwnerId>, Sent, Vec<StoreResult<Released>>),
    Forced(Arc<str>),
    Nothing,
}

/// A shutdown under way.
pub(super) struct Closing {
    /// Holders have been told; what they still hold is released then.
    pub(super) grace: Moment,
    pub(super) deadline: Moment,
    pub(super) replies: Vec<oneshot::Sender<Result<()>>>,
}

/// How often the wall clock is looked at: a paused machine's holders are asked after no
/// later than this when it wakes.
pub(super) const WALL_CHECK: Duration = Duration::from_secs(1);

impl Actor {
    pub(super) fn new(
        parts: Arc<Parts>,
        commands: mpsc::UnboundedReceiver<Command>,
        unfinished: Arc<Unfinished>,
    ) -> Self {
        let (notices, noticed) = mpsc::unbounded_channel();
        Self {
            parts,
            waiters: Waiters::default(),
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
            next_wall_check: None,
            wall_checked: None,
        }
    }

    pub(super) fn now(&self) -> Moment {
        self.parts.clock.now()
    }

    pub(super) fn owners(&self) -> Vec<OwnerId> {
        let mut owners: Vec<OwnerId> = self.entries.keys().copied().collect();
        owners.sort_unstable();
        owners
    }

    pub(super) fn state(&mut self, owner: OwnerId) -> Option<&mut EntryState> {
        self.entries.get_mut(&owner).map(|entry| &mut entry.state)
    }

    pub(super) fn put(&mut self, owner: OwnerId, state: EntryState) {
        if matches!(state, EntryState::Holding(_)) && self.next_wall_check.is_none() {
            self.next_wall_check = Some(self.now() + WALL_CHECK);
            self.wall_checked = Some(Sent::now(&*self.parts.clock));
        }
        self.wake(owner, None);
        match self.entries.get_mut(&owner) {
            Some(entry) => entry.state = state,
            None => {
                let entry = TableEntry { wake: None, state };
                self.entries.insert(owner, Box::new(entry));
            }
        }
    }

    pub(super) fn remove(&mut self, owner: OwnerId) -> Option<EntryState> {
        self.wake(owner, None);
        self.entries.remove(&owner).map(|entry| entry.state)
    }

    /// Forgets an acquisition: nothing of it is left to do.
    pub(super) fn retire(&mut self, owner: OwnerId) {
        if self.remove(owner).is_some() {
            self.unfinished.done();
        }
    }

    pub(super) fn end(&mut self, owner: OwnerId, releasing: ReleasingEntry) {
        self.put(owner, EntryState::Releasing(Box::new(releasing)));
        self.queue_release(owner);
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

    /// A request leaves at its first poll, before every later one: whoever came first
    /// stands first in line. (Where tokio's budget for one poll is used up, it would wake
    /// those that it had put off in the opposite order.)
    pub(super) fn spawn(&mut self, future: impl Future<Output = Completion> + Send + 'static) {
        self.inflight
            .push(Box::pin(tokio::task::unconstrained(future)));
    }
}

impl Drop for Actor {
    /// The end, foreseen or not: a waker, a clock or a log subscriber that the engine
    /// calls may panic. Nobody keeps a lock alive then, so nobody may think it held.
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
