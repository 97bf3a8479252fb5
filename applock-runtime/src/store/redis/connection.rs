//! The supervised connection: one live `MultiplexedConnection` for all commands to a server,
//! dialled anew when it leads nowhere (unless its [`Lifetime`] says that it must not be).
//!
//! Here: dialling, its pauses, the deadline of each command, and the decision to give a
//! connection up. Not here: what a command means, and whether it is sent again; a command is sent
//! once, and its error says whether another try is worth while.
//!
//! Not the crate's `ConnectionManager`: that one never redials after time-outs, keeps
//! commands waiting, and runs them out of order.
//!
//! ```text
//!   none ──a command comes──▶ dialling ──────▶ live
//!    ▲                         │   ▲            │ an I/O error, two time-outs in a row,
//!    │   the dial fails: a     │   │            │ or an answer like LOADING or READONLY
//!    └── pause, and the error ─┘   └────────────┘
//!        for all that waited         (when the next command comes)
//! ```
//!
//! # The dangers
//!
//! - *A connection that swallows commands* (a firewall that has forgotten it, a dead host). No
//!   error comes. Two time-outs in a row, and the kernel's own limit, end it.
//! - *A command that runs late.* Nothing is queued for a later connection: a caller that has
//!   given up must not be granted a lock.
//! - *A fleet that dials in step* after a restart of the server. Pauses grow, and are random.
//! - *An old connection's error that ends the new one.* Each connection has a number (`epoch`).
//! - *A yes of a master that was replaced.* A connection that is retired answers nothing any more:
//!   what comes later is 'unknown'.

use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::{Either, join, select};
use redis::aio::{ConnectionLike as _, MultiplexedConnection, PubSub};
use redis::{Cmd, ErrorKind, RedisError, RedisResult, ServerErrorKind, Value};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout, timeout_at};

use crate::key::Key;
use crate::pause::growing;
use crate::shown::shown;
use crate::store::{OwnerId, StoreError, StoreErrorKind, StoreResult};

use super::acknowledge::{Acknowledgements, Replicas};
use super::address::Address;
use super::dial::{Connector, Dialled, set_name};
use super::error::{
    Classified, ConnectionState, Hint, SILENT_TO_TLS, classify, is_final, is_turned_away,
    is_unreadable, no_redis,
};
use super::flight::Flight;

/// The longest that one dial may take, from the name's resolution to the login.
const DIAL_TIMEOUT: Duration = Duration::from_secs(2);

/// Between failed dials: the first pause, and the longest. A caller that comes meanwhile waits
/// for the next dial: the last one's failure is no news of it.
const FIRST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_millis(250);

/// So many time-outs in a row mean that the connection leads nowhere. One may be a slow
/// command.
const TIMEOUTS: u32 = 2;

/// The connection to one server.
#[derive(Debug)]
pub(super) struct Connection {
    connector: Arc<dyn Connector>,
    address: Address,
    shown: Arc<str>,
    lifetime: Lifetime,
    /// The server does not serve any more.
    retired: watch::Sender<bool>,
    acknowledgements: Arc<Acknowledgements>,
    /// There is one dial at a time, however many callers wait.
    dials: Arc<Flight<StoreResult<Live>>>,
    state: Mutex<DialState>,
}

/// How long a server is of use, and whether a connection to it that has ended is made anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lifetime {
    /// As long as the program: a connection that has ended is made anew.
    Program,
    /// The same until the server is retired, as a cluster's node that has lost its slots.
    Node,
    /// As long as one connection. Danger: at the address of a master that was there a moment ago
    /// there may be a replica, or an empty master that grants every lock, while another one is
    /// master.
    Connection,
}

/// What is known of the connection, under one mutex that is never held across an `await`.
#[derive(Debug, Default)]
struct DialState {
    /// The connection that commands go over. `None`: to be dialled by the next command.
    live: Option<Live>,
    /// Counts connections, so that a late error of an old one can't end a new one.
    epoch: u64,
    /// A connection was given up, and no command was answered since.
    in_trouble: bool,
    /// Failed dials in a row.
    failures: u32,
    /// The earliest time of the next dial.
    not_before: Option<Instant>,
    /// The server has said of itself that it is a single one: see [`Connection::is_single`].
    is_single: bool,
    /// It is a cluster behind a proxy, whatever it says of itself.
    is_cluster: bool,
    /// Something hangs up on the question: it is not asked again. Where nothing else is answered
    /// either, it was not the question's fault: the next dial asks anew.
    unasked: bool,
    /// The one connection of [`Lifetime::Connection`] has ended, or could not be made.
    is_spent: bool,
}

/// One connection that was dialled, and that no error has ended.
#[derive(Clone, Debug)]
struct Live {
    /// A handle: clones share one socket, and their commands travel in the order they are sent.
    connection: Dialled,
    /// Its number: see [`DialState::epoch`].
    epoch: u64,
    /// Commands in a row without an answer in time.
    timeouts: u32,
    /// A command was answered.
    is_proven: bool,
}

/// The lock that a command is about, for the log: of several, the first.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct About<'a> {
    pub(super) key: Option<&'a str>,
    pub(super) owner: Option<OwnerId>,
    pub(super) token: Option<u64>,
}

impl<'a> About<'a> {
    /// A command about a lock that this process need not hold.
    pub(super) fn of(key: &'a Key) -> Self {
        Self {
            key: Some(&key.lock),
            ..Self::default()
        }
    }
}

/// A command without a good answer.
pub(super) struct Failed {
    pub(super) error: StoreError,
    /// The connection was found dead: the command is worth another try at once.
    pub(super) redialled: bool,
    /// The server does not know the script by its hash.
    pub(super) is_unknown_script: bool,
    /// What it says of where the lock is served.
    pub(super) hint: Hint,
}

impl Failed {
    /// The answer came, and can't be read.
    pub(super) fn of_answer(error: StoreError) -> Self {
        Self {
            hint: Hint::None,
            error,
            redialled: false,
            is_unknown_script: false,
        }
    }

    /// No command has left, for there is no connection.
    fn unsent(error: StoreError) -> Self {
        Self {
            hint: match error.kind {
                StoreErrorKind::NotDone => Hint::Unreachable,
                _ => Hint::None,
            },
            error,
            redialled: false,
            is_unknown_script: false,
        }
    }

    /// It has left, and no answer came that counts.
    fn unanswered(error: StoreError) -> Self {
        Self {
            error,
            redialled: false,
            is_unknown_script: false,
            hint: Hint::Silent,
        }
    }
}

impl From<Failed> for StoreError {
    fn from(failed: Failed) -> Self {
        Self {
            worth_another: failed.redialled,
            ..failed.error
        }
    }
}

impl Connection {
    /// `shown` is what the log calls the server. Does no I/O.
    pub(super) fn new(
        connector: Arc<dyn Connector>,
        address: Address,
        shown: Arc<str>,
        lifetime: Lifetime,
    ) -> Self {
        Self {
            connector,
            address,
            shown,
            lifetime,
            retired: watch::Sender::new(false),
            acknowledgements: Arc::default(),
            dials: Arc::default(),
            state: Mutex::default(),
        }
    }

    /// The server does not serve any more. The connection ends, none is made anew, and an answer
    /// that is on its way does not count: it may be a yes of a master that was replaced before.
    pub(super) fn retire(&self) {
        self.retired.send_replace(true);
        self.state().live = None;
    }

    fn is_retired(&self) -> bool {
        *self.retired.borrow()
    }

    /// Ends when the server is retired.
    pub(super) async fn until_retired(&self) {
        // The sender lives as long as this borrow.
        let _ = self.retired.subscribe().wait_for(|retired| *retired).await;
    }

    /// Whether there is a connection, as far as is known.
    pub(super) fn is_live(&self) -> bool {
        self.state().live.is_some()
    }

    /// No command will be sent here any more.
    pub(super) fn is_over(&self) -> bool {
        self.is_retired() || self.state().is_spent
    }

    fn state(&self) -> MutexGuard<'_, DialState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Connects if there is no connection.
    pub(super) async fn open(self: &Arc<Self>, within: Duration) -> StoreResult<()> {
        match timeout(within, self.live()).await {
            Ok(live) => live.map(drop),
            Err(_) => Err(self.late()),
        }
    }

    /// No connection in time.
    fn late(&self) -> StoreError {
        let late = StoreError::late(StoreErrorKind::NotDone);
        if self.state().epoch > 0 {
            return late;
        }
        // Nothing has ever answered here. A Redis without TLS is as silent to a handshake.
        let remedy = match self.connector.is_encrypted() {
            true => SILENT_TO_TLS,
            false => {
                "see whether the server is overloaded, the network is cut, or something that is no Redis \
                 listens there"
            }
        };
        StoreError { remedy, ..late }
    }

    /// No other server ever serves in place of this one.
    pub(super) fn is_the_only_server(&self) -> bool {
        self.lifetime == Lifetime::Program
    }

    /// What the log calls the server.
    pub(super) fn shown(&self) -> &str {
        &self.shown
    }

    /// Whether several locks may share a call: the server has said, when it was last dialled, that
    /// it is a single one. A proxy that spreads keys over servers (twemproxy) would carry such a
    /// call out at the server of its first key, and lock there what another call locks elsewhere;
    /// a node of a cluster would refuse it.
    pub(super) fn is_single(&self) -> bool {
        self.state().is_single
    }

    /// It is not one: it has refused keys of several slots in one call.
    pub(super) fn note_cluster(&self) {
        let mut state = self.state();
        state.is_single = false;
        state.is_cluster = true;
    }

    /// How many replicas have to have what is written here.
    pub(super) fn replicas(&self) -> Option<Replicas> {
        self.connector.replicas()
    }

    /// Dials, and asks the server what it is, by `HELLO`, which needs no right. Where writes have to
    /// be acknowledged, also whether it can be asked for that: before anything is written.
    async fn connect(&self) -> RedisResult<(Dialled, bool)> {
        let (mut connection, is_single) = self.connect_and_ask().await?;
        if self.replicas().is_some() {
            let mut none = redis::cmd("WAIT");
            none.arg(0).arg(1);
            let said = none.query_async::<Value>(&mut connection.commands).await;
            // A replica waits for none: it may be asked for a cluster's map, and says itself that it
            // takes no writes.
            said.map(drop)
                .or_else(|error| match is_of_a_replica(&error) {
                    true => Ok(()),
                    false => Err(error),
                })?;
        }
        Ok((connection, is_single))
    }

    /// In the same round trip the connection gets its name, where the user may give it one.
    async fn connect_and_ask(&self) -> RedisResult<(Dialled, bool)> {
        let mut connection = self.connector.connect(&self.address).await?;
        if self.state().unasked {
            return Ok((connection, false));
        }
        let naming = {
            let (name, mut connection) = (self.connector.name(), connection.commands.clone());
            async move {
                if let Some(name) = name {
                    // For people: a refusal is no news.
                    let _ = set_name(&name).exec_async(&mut connection).await;
                }
            }
        };
        let asking = async {
            let hello = redis::cmd("HELLO");
            hello.query_async::<Value>(&mut connection.commands).await
        };
        match join(asking, naming).await.0 {
            Ok(about) => Ok((connection, is_standalone(&about))),
            // What answers does not speak the protocol, or takes no client now.
            Err(error) if is_final(&error) || is_turned_away(&error) => Err(error),
            Err(error) if error.is_io_error() || error.is_connection_dropped() => {
                self.state().unasked = true;
                Ok((self.connector.connect(&self.address).await?, false))
            }
            // It does not know the command, or wants a password first.
            Err(_) => Ok((connection, false)),
        }
    }

    /// A connection of its own, that subscribes. No time-out here.
    pub(super) async fn subscription(&self) -> RedisResult<PubSub> {
        let name = match self.state().unasked {
            true => None,
            false => self.connector.name(),
        };
        self.connector.subscribe(&self.address, name).await
    }

    /// Sends one command, once, and waits for its answer, no longer than `within` from now, the
    /// dial included.
    ///
    /// While there is no connection the command has not left: its failure is 'not done'. From
    /// then on a time-out is 'unknown'.
    pub(super) async fn send(
        self: &Arc<Self>,
        command: &Cmd,
        about: About<'_>,
        within: Duration,
    ) -> Result<Value, Failed> {
        let sent = self.exchange(command, false, None, about, within).await?;
        Ok(sent.0)
    }

    /// The same for a command about locks.
    ///
    /// `asking`: behind `ASKING`, which lets a cluster's node carry out the next command of the
    /// same connection for a slot that it is only about to get. Both travel as one write, so that
    /// no command of another caller comes between them.
    ///
    /// `wanted`: the replicas that have to acknowledge what is written. With the answer comes whether
    /// they did.
    pub(super) async fn exchange(
        self: &Arc<Self>,
        command: &Cmd,
        asking: bool,
        wanted: Option<Replicas>,
        about: About<'_>,
        within: Duration,
    ) -> Result<(Value, StoreResult<()>), Failed> {
        let deadline = Instant::now() + within;
        let known = self.state().live.clone();
        let mut live = match known {
            Some(live) => live,
            None => match timeout_at(deadline, self.live_or_retired()).await {
                Ok(Ok(live)) => live,
                Ok(Err(error)) => return Err(Failed::unsent(error)),
                Err(_) => {
                    return Err(Failed::unsent(self.late()));
                }
            },
        };
        let handle = live.connection.commands.clone();
        let answer = async {
            if asking {
                ask(&mut live.connection.commands, command).await
            } else {
                command.query_async(&mut live.connection.commands).await
            }
        };
        let answer = async {
            match wanted {
                None => answer.await.map(|value| (value, Ok(()))),
                Some(wanted) => {
                    // Polled in this order, so the call has left first: there is room for it, and the
                    // runtime's budget for one poll does not hold it back.
                    let answer = tokio::task::unconstrained(answer);
                    let sent = &self.acknowledgements;
                    let (answer, acknowledged) = join(
                        answer,
                        sent.of_what_was_sent(handle, live.epoch, wanted, deadline),
                    )
                    .await;
                    answer.map(|value| (value, acknowledged))
                }
            }
        };
        let answer = timeout_at(deadline, answer);
        let answer = match self.lifetime {
            Lifetime::Program => Some(answer.await),
            _ => match select(pin!(answer), pin!(self.until_retired())).await {
                Either::Left((answer, _)) if !self.is_retired() => Some(answer),
                _ => None,
            },
        };
        let Some(answer) = answer else {
            let error = StoreError::new(
                StoreErrorKind::Unknown,
                "another server has come to serve the lock while this one was asked",
                "",
            );
            // The other one can be asked at once.
            return Err(Failed {
                redialled: true,
                ..Failed::unanswered(error)
            });
        };
        match answer {
            Ok(Ok(value)) => {
                self.answered(live.epoch);
                Ok(value)
            }
            Ok(Err(error)) => {
                let dead = error.is_io_error() || error.is_connection_dropped();
                let is_unknown_script =
                    error.kind() == ErrorKind::Server(ServerErrorKind::NoScript);
                let Classified {
                    mut error,
                    connection,
                    hint,
                } = classify(error);
                if asking && error.kind == StoreErrorKind::Denied && error.what.contains("asking") {
                    error = may_not_ask(error);
                }
                match connection {
                    ConnectionState::Good => self.answered(live.epoch),
                    ConnectionState::Redial => self.drop_connection(live.epoch, &error, about),
                }
                Err(Failed {
                    error,
                    redialled: dead,
                    is_unknown_script,
                    hint,
                })
            }
            Err(_) => {
                let error = StoreError::late(StoreErrorKind::Unknown);
                self.timed_out(live.epoch, &error, about);
                Err(Failed::unanswered(error))
            }
        }
    }

    /// A command was answered, so the connection is good.
    fn answered(&self, epoch: u64) {
        let mut state = self.state();
        let Some(live) = state.live.as_mut().filter(|live| live.epoch == epoch) else {
            return;
        };
        live.timeouts = 0;
        live.is_proven = true;
        if std::mem::take(&mut state.in_trouble) {
            drop(state);
            tracing::info!(store = %self.shown, "connected to Redis again");
        }
    }

    /// A command was not answered in time. The connection stays for one such, for the answer to
    /// others may be on its way.
    fn timed_out(&self, epoch: u64, error: &StoreError, about: About<'_>) {
        let mut state = self.state();
        let Some(live) = state.live.as_mut().filter(|live| live.epoch == epoch) else {
            return;
        };
        live.timeouts += 1;
        if live.timeouts >= TIMEOUTS {
            drop(state);
            self.drop_connection(epoch, error, about);
        }
    }

    /// Gives a connection up, if it is still the live one. The next command dials.
    fn drop_connection(&self, epoch: u64, error: &StoreError, about: About<'_>) {
        let news = {
            let mut state = self.state();
            let dropped = state.live.take_if(|live| live.epoch == epoch);
            state.is_spent |= dropped.is_some() && self.lifetime == Lifetime::Connection;
            state.unasked &= dropped.as_ref().is_none_or(|live| live.is_proven);
            // Logged once, until a command is answered again: a server that loads its data
            // may be dialled a hundred times.
            dropped.is_some() && !std::mem::replace(&mut state.in_trouble, true)
        };
        if news {
            tracing::warn!(
                store = %self.shown, key = about.key.map(|key| tracing::field::display(shown(key))),
                owner = about.owner.map(|owner| tracing::field::display(owner.simple())),
                token = about.token, reason = %error.what,
                "the connection to Redis is given up; dialling anew"
            );
        }
    }

    /// The same, but no longer than the server serves: the dial of one that is frozen may take as
    /// long as the caller has, while another one serves already.
    async fn live_or_retired(self: &Arc<Self>) -> StoreResult<Live> {
        if self.lifetime == Lifetime::Program {
            return self.live().await;
        }
        match select(pin!(self.live()), pin!(self.until_retired())).await {
            Either::Left((live, _)) => live,
            Either::Right(_) => Err(ended()),
        }
    }

    /// The live connection, or that of the dial under way, which it begins if there is none.
    async fn live(self: &Arc<Self>) -> StoreResult<Live> {
        if let Some(known) = self.known() {
            return known;
        }
        let dialled = self.dials.outcome(Arc::clone(self).dial()).await;
        // The engine's runtime has ended.
        dialled.unwrap_or_else(|| Err(self.late()))
    }

    /// The live connection, or that there will be none. `None`: it has to be dialled.
    fn known(&self) -> Option<StoreResult<Live>> {
        let state = self.state();
        if let Some(live) = &state.live {
            return Some(Ok(live.clone()));
        }
        (state.is_spent || self.is_retired()).then(|| Err(ended()))
    }

    /// Dials once, after the pause.
    async fn dial(self: Arc<Self>) -> StoreResult<Live> {
        // The dial before may have ended as a caller asked for this one.
        if let Some(known) = self.known() {
            return known;
        }
        let not_before = self.state().not_before;
        if let Some(at) = not_before {
            sleep_until(at).await;
        }
        let dialled = match timeout(DIAL_TIMEOUT, self.connect()).await {
            Ok(Ok(dialled)) => Ok(dialled),
            Ok(Err(error)) if is_unreadable(&error) => Err(no_redis(&error)),
            Ok(Err(error)) => {
                let mut error = classify(error).error;
                if error.kind == StoreErrorKind::Unknown {
                    // No command of ours can have left.
                    error.kind = StoreErrorKind::NotDone;
                }
                Err(error)
            }
            Err(_) => Err(self.late()),
        };
        let mut state = self.state();
        match dialled {
            Ok((connection, is_single)) => {
                state.is_single = is_single && !state.is_cluster;
                state.epoch += 1;
                state.failures = 0;
                state.not_before = None;
                let live = Live {
                    connection,
                    epoch: state.epoch,
                    timeouts: 0,
                    is_proven: false,
                };
                state.live = Some(live.clone());
                Ok(live)
            }
            Err(error) => {
                state.is_spent |= self.lifetime == Lifetime::Connection;
                state.unasked = false;
                let pause = growing(FIRST_PAUSE, LONGEST_PAUSE, state.failures);
                state.failures = state.failures.saturating_add(1);
                state.not_before = Some(Instant::now() + pause);
                Err(error)
            }
        }
    }
}

/// Nothing is sent there any more.
fn ended() -> StoreError {
    StoreError::new(
        StoreErrorKind::NotDone,
        "the connection to the server has ended",
        "",
    )
}

/// The user lacks the right to follow a slot that moves. That is over when the slot has moved, so it
/// ends no wait.
fn may_not_ask(error: StoreError) -> StoreError {
    let what = format!("the slot of the lock moves, and {}", error.what);
    let remedy = "give it +asking, or wait for the resharding to end";
    StoreError {
        source: error.source,
        ..StoreError::new(StoreErrorKind::NotDone, what, remedy)
    }
}

/// Sends a command behind `ASKING`, in one write, and gives its own answer.
async fn ask(connection: &mut MultiplexedConnection, command: &Cmd) -> RedisResult<Value> {
    let mut both = redis::pipe();
    both.add_command(redis::cmd("ASKING"));
    both.add_command(command.clone());
    let answers = connection.req_packed_commands(&both, 0, 2).await?;
    let mut answers = answers.into_iter().map(Value::extract_error);
    let (asked, answer) = (answers.next(), answers.next());
    match (asked, answer) {
        // Not carried out: it was sent back to the slot's old node.
        (Some(Err(refused)), Some(Err(_))) if refused.code() == Some("NOPERM") => Err(refused),
        (_, answer) => answer.unwrap_or(Ok(Value::Nil)),
    }
}

/// Whether a server has refused `WAIT` for being a replica.
fn is_of_a_replica(error: &RedisError) -> bool {
    error.code() == Some("ERR")
        && error
            .detail()
            .is_some_and(|said| said.contains("cannot be used with replica"))
}

/// Whether an answer to `HELLO` says so: names and values, in RESP2 one after the other.
fn is_standalone(about: &Value) -> bool {
    let is = |value: &Value, text: &str| match value {
        Value::BulkString(bytes) => bytes == text.as_bytes(),
        Value::SimpleString(said) => said == text,
        _ => false,
    };
    let says = |name: &Value, value: &Value| is(name, "mode") && is(value, "standalone");
    match about {
        Value::Map(pairs) => pairs.iter().any(|(name, value)| says(name, value)),
        Value::Array(items) => items
            .chunks_exact(2)
            .any(|pair| matches!(pair, [name, value] if says(name, value))),
        _ => false,
    }
}

#[cfg(test)]
mod tests;
