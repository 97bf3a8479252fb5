//! What may happen in a run, how often, and what is wrong with it on purpose.

/// The bounds of a check. Everything is on and right where it is not said otherwise.
#[derive(Clone, Debug)]
pub struct Setup {
    /// How many acquisitions are under way at most at the same time.
    pub clients: usize,
    /// How many acquisitions there are in all.
    pub acquisitions: usize,
    /// How many acquires are sent once more at most.
    pub retries: u8,
    /// How many heartbeats are sent at most.
    pub renewals: u8,
    /// How many writes are sent at most.
    pub writes: u8,
    /// How often the lock's key vanishes at most.
    pub evictions: u8,
    /// How often the replica becomes the master at most.
    pub failovers: u8,
    /// How often the server's clock steps back at most.
    pub steps_back: u8,
    /// Whether the server's clock may run faster, by [`DRIFT`](crate::DRIFT).
    pub drift: bool,
    /// Whether the resource refuses a token that is older than one it saw.
    pub fencing: bool,
    /// How tokens are drawn.
    pub tokens: Tokens,
    /// A fault that is put in to see that a property notices it.
    pub fault: Option<Fault>,
}

/// How the server draws a fencing token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tokens {
    /// The last one plus one.
    Counter,
    /// The larger of that and the clock (rule R8).
    Hybrid,
}

/// What is wrong on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A lease counts from when the answer arrived (against R1).
    JudgedFromArrival,
    /// A lease counts for the whole ttl (against R1: no margin).
    NoMargin,
    /// A heartbeat that is answered brings a lost lease back (against R4).
    LostComesBack,
    /// A release deletes whatever is there (against R3 and R7).
    UnconditionalDelete,
    /// An owner id belongs to a client, not to an acquisition (against R6).
    OwnerIdReused,
    /// An acquire without an answer counts as refused (against R6 and R9).
    UnknownReadAsNo,
    /// The first release of a ghost that is answered is the last (against R6).
    GhostNotWatched,
    /// Heartbeats go on for a lock that nobody awaits any more (against R6).
    HeartbeatForNobody,
}

impl Setup {
    /// The lock as it is, for so many clients, with nothing but its own steps: no writes,
    /// and a server that forgets nothing.
    pub fn plain(clients: usize) -> Self {
        Self {
            clients,
            acquisitions: clients,
            retries: 1,
            renewals: 1,
            writes: 0,
            evictions: 0,
            failovers: 0,
            steps_back: 0,
            drift: true,
            fencing: true,
            tokens: Tokens::Hybrid,
            fault: None,
        }
    }

    /// Whether the server may forget a lock before its ttl: then two can believe that they
    /// hold it, and only the fencing tokens keep the resource safe.
    pub fn forgets(&self) -> bool {
        self.failovers > 0 || self.evictions > 0
    }

    pub(crate) fn has(&self, fault: Fault) -> bool {
        self.fault == Some(fault)
    }
}
