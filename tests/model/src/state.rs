//! All that there is at one moment.

use std::collections::BTreeSet;

use crate::Setup;
use crate::arrivals::Arrivals;
use crate::server::Server;

/// The owner id of one acquisition: its number, in the order of asking.
pub type Owner = u8;

/// The whole world at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct State {
    /// The acquisitions so far, by owner id, and how far each is at its client.
    pub acquisitions: Vec<Stage>,
    /// What is on its way.
    pub network: BTreeSet<Message>,
    /// The master.
    pub server: Server,
    /// What the replica has of it.
    pub replica: Server,
    /// The tokens that were given out, in the order in which they were. Nobody in the model
    /// knows them all: the properties look at them.
    pub tokens: Vec<u8>,
    /// What the lock protects.
    pub resource: Resource,
    /// For how many ticks the server has kept a lock for nobody. For the properties, too.
    pub kept_for_nobody: u8,
    /// The processes' subscriptions.
    pub channels: Vec<Channel>,
    /// Which waiter joined the queue when. For the properties, too.
    pub arrivals: Arrivals,
    /// What the server did that it must not do. For the properties, too.
    pub wrong: Wrong,
    /// The runs of ticks, where there are any. For the properties, too.
    pub runs: Runs,
    /// What was used up of the bounds.
    pub spent: Spent,
}

/// What ran, as the clients know it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Runs {
    /// The ticks of the runs that began, in the order in which they did.
    pub begun: Vec<u8>,
    /// The ticks of which a run ended well, and the server knew it.
    pub ended_well: BTreeSet<u8>,
    /// A run began of such a tick.
    pub begun_again: bool,
    /// The acquisitions whose runs failed.
    pub failed: BTreeSet<Owner>,
    /// How many failed.
    pub failures: u8,
}

/// What the server did that it must not do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Wrong {
    /// It answered an owner as if that held the lock, or did not hold it; with less than a full
    /// lease; or it changed the holding of another.
    pub answer: bool,
    /// It granted a lock that `at_least` keeps.
    pub kept: bool,
    /// It did not note that a process has polled, or did not forget the waiters of an old queue.
    pub queue: bool,
    /// It ended a holding that is not stale, or did not end one that is.
    pub forced: bool,
    /// It refused a request of which no run counts, or did not refuse one of which a run does.
    pub due: bool,
}

/// How a process can be notified of a grant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Channel {
    /// By its subscription.
    Open,
    /// Its subscription is broken: nobody listens.
    Broken,
    /// The server has restarted, and its subscription may be on its way back.
    Returning,
    /// It has none, and only polls.
    Polls,
    /// The process has died.
    Dead(Death),
}

/// What the server finds of a process that has died.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Death {
    /// Nobody listens.
    #[default]
    Silent,
    /// Nothing: its machine went with it, and the connection is still there.
    Unnoticed,
    /// The server has restarted after that, and takes its subscription for one that may
    /// be on its way back.
    Restarted,
}

impl Channel {
    /// Whether the server grants it the lock, as far as it goes by its subscription.
    pub(crate) fn can_be_granted(self) -> bool {
        matches!(
            self,
            Self::Open | Self::Returning | Self::Dead(Death::Unnoticed | Death::Restarted)
        )
    }

    /// Whether the process lives.
    pub fn lives(self) -> bool {
        !matches!(self, Self::Dead(_))
    }
}

/// How far an acquisition is at its client.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Stage {
    /// Sent, and not heard of. It does not wait if the lock is busy.
    Asking,
    /// It stands in the queue, or its request is on its way there.
    Waiting {
        /// By how many ticks its last answered request was judged to have left before it
        /// was carried out.
        lag: Option<i8>,
        /// Its ticket, once it has heard of that.
        ticket: Option<u8>,
    },
    /// Its guard says 'held'.
    Holding {
        /// Its fencing token.
        token: u8,
        /// Which grant it was, counted over all.
        grant: u8,
        /// For how many ticks it counts still.
        left: u8,
        /// Its guard has said 'lost' before: never, unless something is wrong.
        revived: bool,
    },
    /// Its guard says 'lost', and its body ends.
    Lost {
        /// Its fencing token.
        token: u8,
        /// Which grant it was.
        grant: u8,
    },
    /// The engine releases it, until that is answered and none of its acquires can come.
    Releasing {
        /// It was held; if not, it is an orphaned acquire.
        held: bool,
    },
    /// Nobody at the client knows of it any more.
    Over,
    /// Its process has died.
    Dead,
}

impl Stage {
    /// Whether a client is about it, and not only the engine.
    pub fn is_under_way(&self) -> bool {
        !matches!(self, Stage::Releasing { .. } | Stage::Over | Stage::Dead)
    }

    /// Whether its guard says 'held'.
    pub fn holds(&self) -> bool {
        matches!(self, Stage::Holding { .. })
    }
}

/// What is on its way. An age counts the ticks since the *request* left.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Message {
    /// To the server: take the lock, or, where it waits, stand in the queue: also a poll.
    Acquire {
        /// For whom.
        owner: Owner,
        /// Whether it waits.
        waits: bool,
        /// The ticket that it knows of.
        ticket: Option<u8>,
        /// Ticks since it was sent.
        age: u8,
    },
    /// To the server: set the lease back to the ttl.
    Renew {
        /// For whom.
        owner: Owner,
        /// Ticks since it was sent.
        age: u8,
    },
    /// To the server: give the lock back.
    Release {
        /// For whom.
        owner: Owner,
    },
    /// To the client: it is yours.
    Acquired {
        /// For whom.
        owner: Owner,
        /// The fencing token.
        token: u8,
        /// Which grant it was.
        grant: u8,
        /// Ticks since the request was sent.
        age: u8,
    },
    /// To the client: you stand in the queue.
    Queued {
        /// For whom.
        owner: Owner,
        /// By how many ticks the request is judged to have left before it was carried out.
        lag: i8,
        /// Its ticket, if it did not stand there before.
        ticket: Option<u8>,
    },
    /// To the client: an earlier run forbids it, and it stands in no queue.
    AlreadyRan {
        /// For whom.
        owner: Owner,
    },
    /// To the client: the lock was granted to you, until the claim runs out.
    Granted {
        /// For whom.
        owner: Owner,
        /// The fencing token.
        token: u8,
        /// Which grant it was.
        grant: u8,
        /// Ticks since the grant.
        age: u8,
        /// How it comes.
        by: By,
    },
    /// To the client: the lease was renewed.
    Renewed {
        /// For whom.
        owner: Owner,
        /// Ticks since the request was sent.
        age: u8,
    },
    /// To the client: there was nothing of yours to renew.
    NotYours {
        /// For whom.
        owner: Owner,
    },
    /// To the resource.
    Write {
        /// The fencing token.
        token: u8,
        /// Which grant it was sent under. The resource does not see this.
        grant: u8,
    },
}

/// How a waiter hears of a grant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum By {
    /// By a notification of its process.
    Notification,
    /// By the answer to a release of its process: no longer ago than that release left.
    Answer,
}

impl Message {
    /// The same message a tick later.
    pub(crate) fn older(mut self, setup: &Setup) -> Self {
        match &mut self {
            Self::Acquire { age, .. }
            | Self::Renew { age, .. }
            | Self::Acquired { age, .. }
            | Self::Granted { age, .. }
            | Self::Renewed { age, .. } => *age += 1,
            Self::Queued { lag, .. } => *lag = setup.lag_of_an_answer(*lag),
            Self::Release { .. }
            | Self::AlreadyRan { .. }
            | Self::NotYours { .. }
            | Self::Write { .. } => {}
        }
        self
    }

    /// Whether it goes by a subscription.
    pub(crate) fn is_notification(&self) -> bool {
        let by = By::Notification;
        matches!(self, Self::Granted { by: one, .. } if *one == by)
    }

    /// The ticket in it.
    pub(crate) fn ticket(&self) -> Option<u8> {
        match self {
            Self::Acquire { ticket, .. } | Self::Queued { ticket, .. } => *ticket,
            _ => None,
        }
    }

    /// The same, to change it.
    pub(crate) fn ticket_mut(&mut self) -> Option<&mut u8> {
        match self {
            Self::Acquire { ticket, .. } | Self::Queued { ticket, .. } => ticket.as_mut(),
            _ => None,
        }
    }

    /// The ticks since its request left, where that counts.
    pub(crate) fn age(&self) -> u8 {
        match self {
            Self::Acquire { age, .. }
            | Self::Renew { age, .. }
            | Self::Acquired { age, .. }
            | Self::Granted { age, .. }
            | Self::Renewed { age, .. } => *age,
            Self::Release { .. }
            | Self::Queued { .. }
            | Self::AlreadyRan { .. }
            | Self::NotYours { .. }
            | Self::Write { .. } => 0,
        }
    }
}

/// What the lock protects.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Resource {
    /// The largest token that it saw.
    pub token: u8,
    /// The latest grant of which it took a write, counted from one.
    pub grant: u8,
    /// It took a write of an earlier grant after that.
    pub took_stale: bool,
}

impl Resource {
    /// A write arrives. With fencing, an older token is refused (rule R8).
    pub(crate) fn write(&mut self, token: u8, grant: u8, fencing: bool) {
        if fencing && token < self.token {
            return;
        }
        self.token = self.token.max(token);
        self.took_stale |= grant < self.grant;
        self.grant = self.grant.max(grant);
    }
}

/// What was used up of the bounds of a [`Setup`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Spent {
    /// Acquires sent once more.
    pub retries: u8,
    /// Heartbeats sent.
    pub renewals: u8,
    /// Writes sent.
    pub writes: u8,
    /// Times that the lock's record was lost.
    pub evictions: u8,
    /// Times that the replica became the master.
    pub failovers: u8,
    /// Times that the server's clock stepped back.
    pub steps_back: u8,
    /// Acquisitions that do not wait.
    pub tries: u8,
    /// Waiters that stopped waiting.
    pub leaves: u8,
    /// Polls sent.
    pub polls: u8,
    /// Polls sent for a grant that was not believed.
    pub confirmations: u8,
    /// Processes that died.
    pub crashes: u8,
    /// Times that a subscription broke.
    pub breaks: u8,
    /// Holdings that an operator ended.
    pub forced: u8,
    /// Times that an operator ended, or tried to end, a silent holding.
    pub stale: u8,
    /// Times that the server restarted.
    pub restarts: u8,
    /// Times that the server's clock jumped forward.
    pub jumps: u8,
}

impl State {
    /// How many guards say 'held'.
    pub fn holders(&self) -> usize {
        self.acquisitions.iter().filter(|one| one.holds()).count()
    }

    /// How many acquisitions a client is about.
    pub(crate) fn under_way(&self) -> usize {
        let under_way = self.acquisitions.iter().filter(|one| one.is_under_way());
        under_way.count()
    }

    /// How far the acquisition is whose lock the server keeps.
    pub fn kept(&self) -> Option<&Stage> {
        let holder = self.server.holder().filter(|_| self.server.kept == 0);
        self.acquisitions.get(usize::from(holder?))
    }

    /// Which grant it is whose lock the server keeps.
    pub(crate) fn given(&self) -> Option<u8> {
        self.server.holder().map(|_| self.server.grant)
    }

    /// Whether the server keeps a lock that no client is about.
    pub(crate) fn is_kept_for_nobody(&self) -> bool {
        self.kept().is_some_and(|stage| !stage.is_under_way())
    }

    /// Whether somebody holds, or may hold yet, what the server keeps.
    pub(crate) fn is_kept_for_somebody(&self) -> bool {
        self.holders() > 0 || self.kept().is_some_and(Stage::is_under_way)
    }

    /// Whether one of its acquires may arrive still.
    pub(crate) fn may_arrive(&self, owner: Owner) -> bool {
        let mut network = self.network.iter();
        network.any(|message| matches!(message, Message::Acquire { owner: of, .. } if *of == owner))
    }

    /// Whether there is room for one more acquisition.
    pub(crate) fn may_ask(&self, setup: &Setup) -> bool {
        self.under_way() < setup.clients && self.acquisitions.len() < setup.acquisitions
    }
}
