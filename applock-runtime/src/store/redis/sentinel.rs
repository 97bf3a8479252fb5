//! The master that sentinels name.
//!
//! A set of sentinels watches a master and its replicas, agrees on when the master is gone, and
//! promotes a replica ('High availability with Redis Sentinel' in Redis's documentation). A client
//! that writes asks them which server is the master. A lock has to ask more often than that:
//!
//! - *The address of a moment ago is never dialled again* ([`Lifetime::Connection`]). A master that
//!   was killed and started again is empty, and grants every lock.
//! - *An error is not waited for.* At a planned failover the old master goes on answering 'yes' for
//!   ten seconds, while the new one grants the same locks. So the store subscribes to each
//!   sentinel's `+switch-master`, and asks one of them each second: [`watch`](Topology::watch).
//! - *A yes of the old master does not count* once the switch is known: its connection is retired.
//!   All holders ask the new one at once whether they hold their locks still.
//! - *Sentinels may disagree.* All are asked; of their answers the one with the highest
//!   configuration epoch counts, and never one with a lower epoch than was seen before.
//! - *They may name a replica.* `ROLE` shows it, after the dial.
//!
//! While no sentinel answers, a connection that is there is kept, and none is made anew.
//!
//! ```text
//! a step ──▶ known? ──no──▶ find ──▶ seek: ask all ─▶ dial ─▶ ROLE ─▶ the node
//! +switch-master, a question a second, an error ──▶ seek, and the old node is retired
//! ```

use std::fmt;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::future::{Either, join3, select};
use futures_util::stream::FuturesUnordered;
use redis::{RedisResult, Value};
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep, timeout, timeout_at};

use crate::key::Key;
use crate::pause::{around, growing, jittered};
use crate::shown::shown;
use crate::store::{
    Notification, Notifications, StoreError, StoreErrorKind, StoreFuture, StoreResult,
};

use super::address::Address;
use super::connection::{About, Connection, Failed, Lifetime};
use super::dial::Connector;
use super::error::{Hint, is_about_login, naming};
use super::flight::Flight;
use super::node::Node;
use super::reply;
use super::topology::{PAUSE, Slot, Topology, Turn, found};

/// The longest that a sentinel may take to answer.
const ANSWER: Duration = Duration::from_millis(300);

/// When more than half have answered, the others get this long still.
const STRAGGLERS: Duration = Duration::from_millis(30);

/// The longest that the dial of a master may take, and its `ROLE`.
const DIAL: Duration = Duration::from_millis(500);

/// How often one sentinel is asked, give or take a fifth.
const QUESTION: Duration = Duration::from_secs(1);

/// Between two tries to listen to a sentinel: the first pause, and the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// How often a silent subscription is tested, and how long the answer may take.
const PING: Duration = Duration::from_secs(2);

/// For so long an older master is not believed, whichever sentinel names it.
const OLDER_FOR_GOOD: Duration = Duration::from_secs(60);

/// For so long a sentinel that the URL does not name is asked, though it does not answer and none
/// tells of it.
const FORGOTTEN: Duration = Duration::from_secs(60);

/// No set has so many: what tells of more is no sentinel.
const MOST_SENTINELS: usize = 64;

/// What a sentinel publishes when another server has become master.
const SWITCH: &str = "+switch-master";

/// What the one sentinel that leads a failover publishes first. It names the new master from then
/// on; its own [`SWITCH`] follows a second later, and that of the others after about 70 ms.
const PROMOTED: &str = "+promoted-slave";

/// The sentinels of one master.
pub(super) struct Sentinels {
    /// Dials servers.
    servers: Arc<dyn Connector>,
    /// Dials sentinels, which have a login of their own.
    sentinels: Arc<dyn Connector>,
    /// What they call the master.
    name: Arc<str>,
    /// Those that the URL names.
    given: Vec<Address>,
    /// The URL without its passwords.
    shown: Arc<str>,
    /// Searches for the master.
    searches: Arc<Flight<StoreResult<Arc<Node>>>>,
    /// A search under way has to begin anew.
    switched: Notify,
    /// Which sentinel is asked next.
    turn: AtomicUsize,
    state: Mutex<State>,
}

/// Of several words the one that counts: that of the highest epoch. Of equal ones the word of more,
/// and then that of the master that serves: where one sentinel names it by its host and another by its
/// IP address, it must not change with each question.
fn that_counts<'a>(words: &'a [Named], serves: Option<&Address>) -> Option<&'a Named> {
    let votes = |named: &Named| words.iter().filter(|other| *other == named).count();
    words
        .iter()
        .max_by_key(|named| (named.epoch, votes(named), serves == Some(&named.master)))
}

/// What is known, under one mutex that is never held across an `await`.
#[derive(Default)]
struct State {
    /// Those of the URL first, then those that they told of.
    peers: Vec<Arc<Peer>>,
    /// The server that serves, with the one connection to it.
    master: Option<Arc<Node>>,
    /// There was one before: the one that comes now is another, or has a new connection.
    has_served: bool,
    /// The highest epoch that a sentinel has named a master with.
    epoch: u64,
    /// Since when only lower ones are told.
    older_since: Option<Instant>,
    /// The engines that are told of another master.
    notified: Vec<Notifications>,
    /// A person was told that no sentinel answers, or that they name a replica.
    warned: bool,
}

/// One sentinel.
struct Peer {
    address: Address,
    connection: Arc<Connection>,
    /// A task is subscribed there, or tries to.
    is_heard: AtomicBool,
    /// When it has answered last, or another one has told of it.
    known: Mutex<Instant>,
}

/// A sentinel's word.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Named {
    master: Address,
    /// Of the configuration that it is the master of: each failover has a higher one.
    epoch: u64,
}

impl fmt::Debug for Sentinels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sentinels")
            .field("url", &self.shown)
            .finish_non_exhaustive()
    }
}

impl Sentinels {
    /// `servers` dials the servers, `sentinels` the sentinels. Does no I/O.
    pub(super) fn new(
        servers: Arc<dyn Connector>,
        sentinels: Arc<dyn Connector>,
        given: Vec<Address>,
        name: Arc<str>,
        shown: Arc<str>,
    ) -> Self {
        Self {
            servers,
            sentinels,
            name,
            given,
            shown,
            searches: Arc::default(),
            switched: Notify::new(),
            turn: AtomicUsize::new(0),
            state: Mutex::default(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The sentinels that are known.
    fn peers(&self) -> Vec<Arc<Peer>> {
        let mut state = self.state();
        if state.peers.is_empty() {
            state.peers = self.given.iter().map(|given| self.peer(given)).collect();
        }
        state.peers.clone()
    }

    fn peer(&self, address: &Address) -> Arc<Peer> {
        let connection = Connection::new(
            Arc::clone(&self.sentinels),
            address.clone(),
            format!("the sentinel {address} of {}", self.shown).into(),
            Lifetime::Program,
        );
        Arc::new(Peer {
            address: address.clone(),
            connection: Arc::new(connection),
            is_heard: AtomicBool::new(false),
            known: Mutex::new(Instant::now()),
        })
    }

    /// Notes sentinels that another one has told of, which has answered, and forgets those that none
    /// tells of any more: one that has moved to another address would be waited for with each
    /// question, and in the end there would be no room for new ones.
    fn learn(&self, told: &[Address]) {
        let mut state = self.state();
        for address in told {
            match state.peers.iter().find(|peer| peer.address == *address) {
                Some(peer) => peer.note(),
                None if state.peers.len() < MOST_SENTINELS => state.peers.push(self.peer(address)),
                None => (),
            }
        }
        let given = &self.given;
        state
            .peers
            .retain(|peer| given.contains(&peer.address) || peer.is_known());
    }

    fn knows(&self, peer: &Arc<Peer>) -> bool {
        self.state()
            .peers
            .iter()
            .any(|known| Arc::ptr_eq(known, peer))
    }

    /// Asks all sentinels, and gives the word that counts.
    async fn ask_all(self: &Arc<Self>) -> StoreResult<Named> {
        let peers = self.peers();
        let mut answers: FuturesUnordered<_> =
            peers.iter().map(|peer| peer.ask(&self.name)).collect();
        let mut until = Instant::now() + ANSWER;
        let mut words: Vec<Named> = Vec::new();
        let mut strangers = 0;
        let mut refused = None;
        let mut failed = None;
        let mut told = Vec::new();
        while let Ok(Some(answer)) = timeout_at(until, answers.next()).await {
            match answer {
                Ok((Some(named), others)) => {
                    words.push(named);
                    told.extend(others);
                }
                Ok((None, _)) => strangers += 1,
                Err(error) if !error.is_passing() => refused = Some(error),
                Err(error) => failed = Some(error),
            }
            if words.len() > peers.len() / 2 {
                until = until.min(Instant::now() + STRAGGLERS);
            }
        }
        drop(answers);
        self.learn(&told);
        let serves = self
            .state()
            .master
            .as_ref()
            .map(|master| master.address.clone());
        let Some(named) = that_counts(&words, serves.as_ref()) else {
            return Err(match refused {
                Some(refused) => refused,
                None if strangers > 0 => StoreError::new(
                    StoreErrorKind::Misconfigured,
                    format!(
                        "the sentinels know no master of the name {}",
                        shown(&self.name)
                    ),
                    "end the URL with the name that sentinel.conf gives it: \
                     redis+sentinel://host:26379/mymaster",
                ),
                None => StoreError::new(
                    StoreErrorKind::NotDone,
                    match failed {
                        Some(StoreError { what, .. }) => format!("no sentinel answers: {what}"),
                        None => "no sentinel answers".to_owned(),
                    },
                    match self.sentinels.is_encrypted() {
                        false => {
                            "see whether the sentinels that the URL names are up, and can be reached"
                        }
                        true => {
                            "see whether the sentinels that the URL names are up, can be reached, and \
                             speak TLS (if not, add ?sentinel_tls=no)"
                        }
                    },
                ),
            });
        };
        let mut state = self.state();
        // Those that answer may be cut off from the ones that have agreed on a newer master. Sentinels
        // that were set up anew count from nothing again: then all say so, or say so for long.
        let is_older = named.epoch < state.epoch;
        let since = *state.older_since.get_or_insert_with(Instant::now);
        if is_older && words.len() < peers.len() && since.elapsed() < OLDER_FOR_GOOD {
            return Err(StoreError::new(
                StoreErrorKind::NotDone,
                "the sentinels that answer name the master of before the last failover",
                "see whether the other sentinels are up",
            ));
        }
        state.epoch = named.epoch;
        state.older_since = None;
        Ok(named.clone())
    }

    /// Looks who is master, and makes it the one that serves. If it is another than before, that
    /// one is retired at once, before the new one is dialled.
    async fn look(self: &Arc<Self>) -> StoreResult<Arc<Node>> {
        let named = self.ask_all().await?;
        let before = {
            let mut state = self.state();
            match &state.master {
                Some(master) if master.address == named.master && !master.connection.is_over() => {
                    return Ok(Arc::clone(master));
                }
                _ => state.master.take(),
            }
        };
        if let Some(before) = &before {
            before.retire();
        }
        let node = Node::new(
            &self.servers,
            named.master,
            Arc::clone(&self.shown),
            Lifetime::Connection,
        );
        let named = |failed| naming(&node.address, failed);
        node.connection.open(DIAL).await.map_err(named)?;
        is_master(&node).await.map_err(named)?;
        let mut state = self.state();
        // Also if a search has retired the one before and then come to nothing.
        let is_another = std::mem::replace(&mut state.has_served, true);
        state.master = Some(Arc::clone(&node));
        state.notified.retain(|engine| !engine.is_closed());
        let engines = state.notified.clone();
        let warned = std::mem::take(&mut state.warned);
        drop(state);
        if is_another || warned {
            tracing::info!(store = %self.shown, master = %node.address, "the sentinels name this master");
        }
        for engine in &engines {
            self.listen_to_all(engine);
            if is_another {
                // An engine that has ended has dropped its receiver.
                let _ = engine.send(Notification::Moved(Arc::new(|_| true)));
            }
        }
        Ok(node)
    }

    /// Looks, and begins anew when one of the sentinels tells of a switch meanwhile: the dial of a
    /// dead master may take long.
    async fn seek(self: Arc<Self>) -> StoreResult<Arc<Node>> {
        loop {
            let looking = pin!(self.look());
            let switched = pin!(self.switched.notified());
            if let Either::Left((outcome, _)) = select(looking, switched).await {
                if let Err(error) = &outcome {
                    self.warn(error);
                }
                return outcome;
            }
        }
    }

    /// One warning, until a master is found again.
    fn warn(&self, error: &StoreError) {
        if !std::mem::replace(&mut self.state().warned, true) {
            tracing::warn!(
                store = %self.shown, reason = %error.what,
                "no master is found; asking the sentinels again"
            );
        }
    }

    /// Starts a search, or lets the one under way begin anew.
    fn look_again(self: &Arc<Self>) {
        if !self.searches.start(Arc::clone(self).seek()) {
            self.switched.notify_one();
        }
    }

    /// Subscribes to each sentinel that no task is subscribed to.
    fn listen_to_all(self: &Arc<Self>, engine: &Notifications) {
        for peer in self.peers() {
            if !peer.is_heard.swap(true, Ordering::Relaxed) {
                let engine = engine.clone();
                tokio::spawn(Arc::clone(self).listen(peer, engine));
            }
        }
    }

    /// Hears of switches from one sentinel, for as long as the engine lives. When the subscription
    /// ends, a switch may have gone unheard: all are asked.
    async fn listen(self: Arc<Self>, peer: Arc<Peer>, engine: Notifications) {
        let _heard = Heard(&peer);
        let mut failures: u32 = 0;
        while !engine.is_closed() && self.knows(&peer) {
            if self.hear(&peer, &engine).await.is_ok() {
                failures = 0;
                self.look_again();
            }
            sleep(growing(FIRST_PAUSE, LONGEST_PAUSE, failures)).await;
            failures = failures.saturating_add(1);
        }
    }

    /// Subscribes once, and hears what comes until that ends. An error: it did not begin.
    async fn hear(self: &Arc<Self>, peer: &Peer, engine: &Notifications) -> RedisResult<()> {
        let subscribing = async {
            let mut subscription = peer.connection.subscription().await?;
            subscription.subscribe(SWITCH).await?;
            // The right to this one may be missing: it only comes sooner.
            let _ = subscription.subscribe(PROMOTED).await;
            RedisResult::Ok(subscription.split())
        };
        let subscribed = timeout(PING, subscribing).await;
        let (mut sink, mut messages) = match subscribed {
            Ok(subscribed) => subscribed?,
            Err(_) => return Err(std::io::Error::from(std::io::ErrorKind::TimedOut).into()),
        };
        // What came before was not heard.
        self.look_again();
        loop {
            let over = pin!(engine.closed());
            let heard = pin!(timeout(PING, messages.next()));
            match select(heard, over).await {
                Either::Right(_) | Either::Left((Ok(None), _)) => return Ok(()),
                Either::Left((Ok(Some(message)), _)) => {
                    let text: String = message.get_payload().unwrap_or_default();
                    if is_about(&text, &self.name) {
                        self.look_again();
                    }
                }
                Either::Left((Err(_), _)) => match timeout(PING, sink.ping::<Value>()).await {
                    Ok(Ok(_)) => (),
                    _ => return Ok(()),
                },
            }
        }
    }

    /// Asks one sentinel each second, each in its turn; all of them, where it names another master.
    async fn ask_now_and_then(self: Arc<Self>, engine: Notifications) {
        loop {
            let next = around(QUESTION);
            let over = pin!(engine.closed());
            if let Either::Right(_) = select(pin!(sleep(next)), over).await {
                return;
            }
            let Some(master) = self.state().master.clone() else {
                // No step has needed one yet, or it is being looked for.
                continue;
            };
            self.listen_to_all(&engine);
            let peers = self.peers();
            let turn = self.turn.fetch_add(1, Ordering::Relaxed);
            let Some(peer) = peers.get(turn % peers.len().max(1)) else {
                continue;
            };
            if let Ok((Some(named), others)) = peer.ask(&self.name).await {
                self.learn(&others);
                if named.master != master.address {
                    self.look_again();
                }
            }
        }
    }
}

impl Peer {
    fn known(&self) -> MutexGuard<'_, Instant> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self) {
        *self.known() = Instant::now();
    }

    fn is_known(&self) -> bool {
        self.known().elapsed() < FORGOTTEN
    }

    /// The error of a question, in words about sentinels.
    fn refused(&self, error: StoreError) -> StoreError {
        match error.kind {
            // What another server than a sentinel answers is no trouble that passes.
            StoreErrorKind::Misconfigured => StoreError::new(
                error.kind,
                format!(
                    "what answers at a sentinel's address, {}, is no sentinel ({})",
                    self.address, error.what
                ),
                "name the sentinels (port 26379) in redis+sentinel://…, or write redis:// for one server",
            ),
            StoreErrorKind::Denied => {
                let remedy = match is_about_login(&error) {
                    true => {
                        "sentinels have a login of their own: \
                         ?sentinel_user=…&sentinel_password=… at the end of the URL"
                    }
                    false => error.remedy,
                };
                let what = format!("{} (the sentinel {})", error.what, self.address);
                let named = StoreError::new(error.kind, what, remedy);
                StoreError {
                    source: error.source,
                    ..named
                }
            }
            _ => error,
        }
    }

    /// Whom it names as the master, and which other sentinels it knows. `None`: it knows no master
    /// of that name.
    async fn ask(&self, name: &str) -> StoreResult<(Option<Named>, Vec<Address>)> {
        let question = |what: &'static str| {
            let mut command = redis::cmd("SENTINEL");
            command.arg(what).arg(name);
            command
        };
        let [address, master, others] =
            ["get-master-addr-by-name", "master", "sentinels"].map(question);
        let about = About::default();
        let send = |command| self.connection.send(command, about, ANSWER);
        let (address, master, others) = join3(send(&address), send(&master), send(&others)).await;
        let address = address.map_err(|failed| self.refused(failed.error))?;
        // A user may lack the right to the others: then the majority decides, and those of the URL
        // are all.
        let epoch = master.ok().and_then(|about| {
            let fields = reply::fields(&about)?;
            fields.get("config-epoch")?.parse().ok()
        });
        let others = match others {
            Ok(Value::Array(others)) => others.iter().filter_map(address_in).collect(),
            _ => Vec::new(),
        };
        let named = match &address {
            Value::Array(parts) => match parts.as_slice() {
                [host, port] => address_of(reply::text(host), reply::text(port)),
                _ => None,
            },
            _ => None,
        };
        self.note();
        let named = named.map(|master| Named {
            master,
            epoch: epoch.unwrap_or(0),
        });
        Ok((named, others))
    }
}

fn address_of(host: Option<String>, port: Option<String>) -> Option<Address> {
    let host = host.filter(|host| !host.is_empty())?;
    Some(Address::Named(host.into(), port?.parse().ok()?))
}

/// Whether an event is of the master of that name: `NAME old-ip old-port new-ip new-port`, or of a
/// replica of it: `slave … @ NAME ip port`.
fn is_about(event: &str, name: &str) -> bool {
    let of = match event.rsplit_once(" @ ") {
        Some((_, of)) => of,
        None => event,
    };
    of.split(' ').next() == Some(name)
}

/// The address in what a sentinel says of another one.
fn address_in(about: &Value) -> Option<Address> {
    let mut fields = reply::fields(about)?;
    address_of(fields.remove("ip"), fields.remove("port"))
}

/// Asks the server whether it is a master. A user that may not ask goes on: the scripts' own
/// `READONLY` is the other guard.
async fn is_master(node: &Node) -> StoreResult<()> {
    let role = redis::cmd("ROLE");
    let about = About::default();
    let answer = match node.connection.send(&role, about, DIAL).await {
        Ok(Value::Array(parts)) => parts.first().and_then(reply::text),
        Ok(_) => None,
        // Not so where it is the login that fails: that has ended the connection.
        Err(failed)
            if failed.error.kind == StoreErrorKind::Denied && !node.connection.is_over() =>
        {
            return Ok(());
        }
        Err(failed) => return Err(failed.error),
    };
    match answer.as_deref() {
        Some("master") | None => Ok(()),
        Some(_) => {
            node.retire();
            Err(StoreError::new(
                StoreErrorKind::NotDone,
                "the master that the sentinels name is a read-only replica",
                "wait for the failover to end; after a FAILOVER by hand the sentinels have to be told \
                 (SENTINEL RESET)",
            ))
        }
    }
}

/// The task that is subscribed to a sentinel. When it ends, however, another one may begin.
struct Heard<'a>(&'a Peer);

impl Drop for Heard<'_> {
    fn drop(&mut self) {
        self.0.is_heard.store(false, Ordering::Relaxed);
    }
}

impl Topology for Sentinels {
    fn slot(&self, _key: &Key) -> Slot {
        0
    }

    fn known(&self, _slot: Slot) -> Option<Arc<Node>> {
        let state = self.state();
        let master = state.master.as_ref()?;
        (!master.connection.is_over()).then(|| Arc::clone(master))
    }

    fn find(self: Arc<Self>, slot: Slot, within: Duration) -> StoreFuture<StoreResult<Arc<Node>>> {
        Box::pin(async move {
            let seek = || async { self.searches.outcome(Arc::clone(&self).seek()).await };
            found(within, || self.known(slot), seek).await
        })
    }

    fn all(self: Arc<Self>, within: Duration) -> StoreFuture<StoreResult<Vec<Arc<Node>>>> {
        let master = self.find(0, within);
        Box::pin(async move { Ok(vec![master.await?]) })
    }

    fn turn(self: Arc<Self>, slot: Slot, _: &Arc<Node>, failed: &Failed, _tries: u32) -> Turn {
        match failed.hint {
            // Nothing was done. Its connection has ended, so the sentinels are asked, unless they
            // have named another meanwhile.
            Hint::Unreachable | Hint::NotServing if self.known(slot).is_some() => {
                Turn::Again(Duration::ZERO)
            }
            Hint::Unreachable | Hint::NotServing => Turn::Again(jittered(PAUSE)),
            // It may be dead; the sentinels may know that already.
            Hint::Silent => {
                self.look_again();
                Turn::Tell
            }
            _ => Turn::Tell,
        }
    }

    fn shares_calls(&self, node: &Node) -> bool {
        node.connection.is_single()
    }

    fn watch(self: Arc<Self>, notifications: &Notifications, _: watch::Receiver<bool>) -> bool {
        self.state().notified.push(notifications.clone());
        tokio::spawn(self.ask_now_and_then(notifications.clone()));
        true
    }

    fn forked(&self) -> Arc<dyn Topology> {
        Arc::new(Self::new(
            Arc::clone(&self.servers),
            Arc::clone(&self.sentinels),
            self.given.clone(),
            Arc::clone(&self.name),
            Arc::clone(&self.shown),
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::super::dial::Nowhere;
    use super::*;

    fn address(port: u16) -> Address {
        Address::Named("h".into(), port)
    }

    fn sentinels(given: &[u16]) -> Sentinels {
        Sentinels::new(
            Arc::new(Nowhere),
            Arc::new(Nowhere),
            given.iter().copied().map(address).collect(),
            "mm".into(),
            "redis+sentinel://h/mm".into(),
        )
    }

    fn known(sentinels: &Sentinels) -> Vec<Address> {
        let peers = sentinels.peers();
        peers.iter().map(|peer| peer.address.clone()).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn a_sentinel_that_none_tells_of_any_more_is_forgotten_and_makes_room() {
        let sentinels = sentinels(&[1]);
        assert_eq!(known(&sentinels), [address(1)]);
        // Each of many was started at another address than the one before.
        for port in 2..500 {
            sentinels.learn(&[address(port), address(1_000)]);
            let known = known(&sentinels);
            assert!(known.contains(&address(port)), "{port}: no room");
            assert!(known.len() <= MOST_SENTINELS);
            tokio::time::advance(FORGOTTEN / 10).await;
        }
        tokio::time::advance(FORGOTTEN).await;
        sentinels.learn(&[address(1_000)]);
        assert_eq!(known(&sentinels), [address(1), address(1_000)]);
    }

    #[test]
    fn of_equal_words_that_of_the_master_that_serves_counts() {
        let word = |port, epoch| Named {
            master: address(port),
            epoch,
        };
        let counts = |words: &[Named], serves: u16| {
            let named = that_counts(words, Some(&address(serves))).unwrap();
            named.master.clone()
        };
        let by_two_names = [word(1, 7), word(2, 7)];
        for serves in [1, 2] {
            assert_eq!(counts(&by_two_names, serves), address(serves));
        }
        let mut swapped = by_two_names.clone();
        swapped.reverse();
        assert_eq!(counts(&swapped, 1), address(1));
        // More words, and a newer configuration, count before.
        assert_eq!(counts(&[word(1, 7), word(2, 7), word(2, 7)], 1), address(2));
        assert_eq!(counts(&[word(1, 7), word(1, 7), word(2, 8)], 1), address(2));
    }
}
