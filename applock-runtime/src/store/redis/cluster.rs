//! A cluster: many masters, each with some of the hash slots.
//!
//! A lock and the keys beside it share a slot, so that each step is one script at one node. The map
//! of slots is fetched from the nodes themselves, and every answer may correct it:
//!
//! | answer | the step | the map |
//! |---|---|---|
//! | `MOVED` | at the node that it names | that slot at once, all soon |
//! | `ASK` | at the node that it names, behind `ASKING` | – |
//! | `TRYAGAIN` | again, after a pause | – |
//! | `CLUSTERDOWN`, `READONLY`, `LOADING`, no connection | again, after a pause | is fetched |
//! | no answer | told: it may have been carried out | is fetched, from other nodes |
//!
//! # The dangers
//!
//! - *A map that is old.* A master that was cut off from the others tells an old one. Three nodes
//!   are asked; the map of the highest epoch counts, of a node that says that the cluster is well.
//! - *A map that is older than a `MOVED`.* A node that has not heard of it yet would take the slot
//!   back: what was moved stays, until a map of a higher epoch says otherwise, or a while has passed.
//! - *A map that is empty*, as a node that was reset tells: it is no answer.
//! - *A map of another cluster*, whose node has got the address that one of ours had. It is known by the
//!   ids of its nodes: a map that shares none with the last one is not believed, whatever its epoch, until
//!   such maps alone have come for long ([`STRANGE_FOR_GOOD`]): then the cluster was set up anew.
//! - *A master that nobody talks to is replaced*, and what was written last is lost. No error would
//!   tell, until the next heartbeat. So while a program has locks, waiters or late releases, it asks
//!   the nodes in turn for their epochs ([`WATCH`]), and fetches the map where they have changed.
//! - *A frozen master.* It refuses nothing, so its first silence has the map fetched; from then on
//!   again and again, until all is well for some time.
//! - *A yes of a master that was replaced.* A node that has lost its slots is retired, and what it
//!   answers then does not count.
//! - *A storm.* One task fetches the map, for all steps that want it.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::future::{Either, join, select};
use futures_util::stream::FuturesUnordered;
use redis::Value;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep, timeout, timeout_at};

use crate::key::Key;
use crate::pause::{around, jittered};
use crate::store::{
    Notification, Notifications, StoreError, StoreErrorKind, StoreFuture, StoreResult,
};

use super::address::Address;
use super::connection::{About, Connection, Failed, Lifetime};
use super::dial::Connector;
use super::error::{CLUSTER_DOWN_REMEDY, Hint};
use super::flight::Flight;
use super::node::Node;
use super::reply;
use super::slots::{Range, SLOTS, ids, is_nameless, ranges, slot};
use super::topology::{PAUSE, Slot, Topology, Turn, found};

/// The longest that a node may take to tell its map.
const ANSWER: Duration = Duration::from_millis(500);

/// When one node has told a good map, the others get this long still.
const STRAGGLERS: Duration = Duration::from_millis(20);

/// So many nodes are asked for it at a time.
const ASKED: usize = 3;

/// How often the map is fetched while a node is in trouble, and while none is. The first is what a
/// holder waits for at a promotion, on the average half of it.
const IN_TROUBLE: Duration = Duration::from_millis(60);
const IN_PEACE: Duration = Duration::from_secs(30);

/// How often one of the nodes that are in use is asked whether there was a failover, while that
/// matters. It bounds how late a holder is told that another node has come to serve, and does not know
/// its lock. An answer costs a node about 15 µs of its time: a hundred programs cost all
/// nodes together 1.5 % of one core.
const WATCH: Duration = Duration::from_millis(100);

/// For so long after the last failure a node counts as being in trouble.
const TROUBLE: Duration = Duration::from_secs(5);

/// Slots that have moved within this time are told of together.
const TOGETHER: Duration = Duration::from_millis(2);

/// A slot that moves on within so long is told of when that is over: between nodes that send to each
/// other it moves with every step, and holders must not beat each time.
const BACK_AND_FORTH: Duration = Duration::from_secs(1);

/// The first pause of a step whose slot is on its way to another node; it doubles.
const MIGRATING: Duration = Duration::from_millis(5);
const LONGEST_MIGRATING: Duration = Duration::from_millis(100);

/// For so long another cluster's map is not believed, while no node of this one answers.
const STRANGE_FOR_GOOD: Duration = Duration::from_secs(30);

/// In the table of slots: no node is known.
const NONE: u16 = u16::MAX;

/// One cluster.
pub(super) struct Cluster {
    connector: Arc<dyn Connector>,
    /// The nodes that the URL names.
    given: Vec<Address>,
    /// The URL without its password.
    shown: Arc<str>,
    /// Fetches of the map.
    fetches: Arc<Flight<StoreResult<()>>>,
    /// A node is in trouble: the task that fetches the map now and then does so at once.
    troubled: Notify,
    state: Mutex<State>,
}

/// What is known, under one mutex that is never held across an `await`.
struct State {
    /// For each slot the place of its master in `nodes`. Empty before the first map.
    owners: Vec<u16>,
    /// Nodes that have slots, or had a step sent to them. One that has gone leaves its place empty.
    nodes: Vec<Option<Arc<Node>>>,
    /// The replicas that the map names: to be asked for the next one.
    replicas: Vec<Address>,
    /// Connections for the map alone: to replicas, and to the URL's hosts.
    others: HashMap<Address, Arc<Connection>>,
    /// Slots that had a node in an earlier map, and have none in this one.
    orphaned: Vec<bool>,
    /// What nodes have said since by `MOVED`.
    corrections: HashMap<Slot, Correction>,
    /// Nodes that have lost a slot by these, since the last map: their places in `nodes`.
    left: HashSet<u16>,
    /// Slots that the engines are still to be told of, from when on; and when the task that does so
    /// has looked last.
    untold: HashMap<Slot, Instant>,
    telling: Option<Instant>,
    /// The highest epoch that a map was told with.
    epoch: u64,
    /// The ids of the nodes in the last map; empty where the servers told none.
    ids: HashSet<String>,
    /// Since when no node has answered that knows one of these, but others have.
    strange_since: Option<Instant>,
    /// When the map was fetched last.
    fetched: Option<Instant>,
    /// Nodes that did not answer, and when: for some time they are asked for the map only where no
    /// other one answers, for each would be waited for.
    suspects: HashMap<Address, Instant>,
    /// The last failure of a node.
    trouble: Option<Instant>,
    /// The engines that are told of slots that have moved.
    notified: Vec<Notifications>,
}

/// A node, and the connection over which the map may be asked for.
type Asked = (Address, Arc<Connection>);

/// What a node has said of one slot by `MOVED`: it knows better than any map that is as old as the
/// one that has led there.
struct Correction {
    to: Address,
    /// That of the map then.
    epoch: u64,
    at: Instant,
    /// When the engines are told of it.
    told: Instant,
}

/// A map, as one node tells it.
#[derive(Clone, PartialEq, Eq)]
struct Told {
    ranges: Vec<Range>,
    epoch: u64,
    ids: HashSet<String>,
}

impl fmt::Debug for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cluster")
            .field("url", &self.shown)
            .finish_non_exhaustive()
    }
}

impl State {
    fn owner(&self, slot: Slot) -> Option<&Arc<Node>> {
        let place = *self.owners.get(usize::from(slot))?;
        self.nodes.get(usize::from(place))?.as_ref()
    }

    /// The nodes that serve the slots; or a slot of which no node is known.
    fn masters(&self) -> Result<Vec<Arc<Node>>, Slot> {
        let mut masters: Vec<Arc<Node>> = Vec::new();
        let mut last = NONE;
        for slot in 0..SLOTS {
            let slot = Slot::try_from(slot).unwrap_or_default();
            let owner = self.owner(slot).ok_or(slot)?;
            let place = self.owners.get(usize::from(slot)).copied();
            // Slots stand in long rows of one master.
            if place != Some(last) && !masters.iter().any(|known| Arc::ptr_eq(known, owner)) {
                masters.push(Arc::clone(owner));
            }
            last = place.unwrap_or(NONE);
        }
        Ok(masters)
    }

    /// Whether these are the ids of another cluster's nodes. While nodes are replaced one by one, each
    /// map shares some with the one before.
    fn is_strange(&self, ids: &HashSet<String>) -> bool {
        !self.ids.is_empty() && !ids.is_empty() && self.ids.is_disjoint(ids)
    }

    /// Whether no node of this cluster has answered for so long that another one may have come in its
    /// place.
    fn has_gone(&self) -> bool {
        self.strange_since
            .is_some_and(|since| since.elapsed() >= STRANGE_FOR_GOOD)
    }

    fn is_troubled(&self) -> bool {
        self.trouble.is_some_and(|at| at.elapsed() < TROUBLE)
    }

    /// The place of the node at that address; where there is none, makes one.
    fn place(&mut self, address: &Address, make: impl FnOnce() -> Arc<Node>) -> u16 {
        let is_there = |node: &Option<Arc<Node>>| match node {
            Some(node) => node.address == *address,
            None => false,
        };
        let place = match self.nodes.iter().position(is_there) {
            Some(place) => place,
            None => match self
                .nodes
                .iter_mut()
                .enumerate()
                .find(|(_, node)| node.is_none())
            {
                Some((place, empty)) => {
                    *empty = Some(make());
                    place
                }
                None => {
                    self.nodes.push(Some(make()));
                    self.nodes.len() - 1
                }
            },
        };
        u16::try_from(place).unwrap_or(NONE)
    }
}

impl Cluster {
    /// `given` are nodes of the cluster; `shown` is the URL without its password. Does no I/O.
    pub(super) fn new(connector: Arc<dyn Connector>, given: Vec<Address>, shown: Arc<str>) -> Self {
        Self {
            connector,
            given,
            shown,
            fetches: Arc::default(),
            troubled: Notify::new(),
            state: Mutex::new(State {
                owners: Vec::new(),
                orphaned: Vec::new(),
                corrections: HashMap::new(),
                left: HashSet::new(),
                untold: HashMap::new(),
                telling: None,
                nodes: Vec::new(),
                replicas: Vec::new(),
                others: HashMap::new(),
                epoch: 0,
                ids: HashSet::new(),
                strange_since: None,
                fetched: None,
                suspects: HashMap::new(),
                trouble: None,
                notified: Vec::new(),
            }),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn make_node(&self, address: &Address) -> Arc<Node> {
        let shown = format!("the node {address} of {}", self.shown);
        Node::new(
            &self.connector,
            address.clone(),
            shown.into(),
            Lifetime::Node,
        )
    }

    /// The node at an address that another node has named.
    fn node_at(&self, address: &Address) -> Option<Arc<Node>> {
        let mut state = self.state();
        let place = state.place(address, || self.make_node(address));
        state.nodes.get(usize::from(place))?.clone()
    }

    /// Notes that a node has failed, and has the map fetched.
    fn trouble(self: &Arc<Self>, node: &Address) {
        let mut state = self.state();
        let now = Instant::now();
        state.trouble = Some(now);
        state.suspects.insert(node.clone(), now);
        drop(state);
        self.fetch_soon();
    }

    /// Has the map fetched, unless that is being done.
    fn fetch_soon(self: &Arc<Self>) {
        self.fetches.start(Arc::clone(self).fetch());
        self.troubled.notify_one();
    }

    /// The connections over which the map may be asked for, the best first: to masters, to
    /// replicas, to the URL's hosts; and apart from these those that did not answer last.
    fn to_be_asked(&self) -> (Vec<Asked>, Vec<Asked>) {
        let mut state = self.state();
        let nodes = state.nodes.iter().flatten();
        let mut all: Vec<_> = nodes
            .map(|node| (node.address.clone(), Arc::clone(&node.connection)))
            .collect();
        fastrand::shuffle(&mut all);
        let mut more = state.replicas.clone();
        fastrand::shuffle(&mut more);
        for address in more.into_iter().chain(self.given.iter().cloned()) {
            if all.iter().any(|(known, _)| *known == address) {
                continue;
            }
            let connection = state.others.entry(address.clone()).or_insert_with(|| {
                let shown = format!("the node {address} of {}", self.shown);
                Arc::new(Connection::new(
                    Arc::clone(&self.connector),
                    address.clone(),
                    shown.into(),
                    Lifetime::Node,
                ))
            });
            all.push((address, Arc::clone(connection)));
        }
        state.suspects.retain(|_, at| at.elapsed() < TROUBLE);
        let is_suspect = |(address, _): &(Address, _)| state.suspects.contains_key(address);
        let (suspects, others): (Vec<_>, Vec<_>) = all.into_iter().partition(is_suspect);
        (others, suspects)
    }

    /// Fetches the map once: asks some nodes, and where none of them tells a good one, others.
    async fn fetch(self: Arc<Self>) -> StoreResult<()> {
        let before = self.state().fetched;
        if let Some(at) = before {
            // Not in step with other processes, and not in a storm.
            let pause = jittered(IN_TROUBLE).saturating_sub(at.elapsed());
            sleep(pause).await;
        }
        self.state().fetched = Some(Instant::now());
        let (others, suspects) = self.to_be_asked();
        let (mut failed, mut older, mut strange) = (None, None, None);
        let mut has_answered = false;
        let groups = others.chunks(ASKED).map(|some| (some, false));
        for (some, is_suspect) in groups.chain(suspects.chunks(ASKED).map(|some| (some, true))) {
            if is_suspect && has_answered {
                break;
            }
            let mut answers: FuturesUnordered<_> =
                some.iter()
                    .map(|(address, connection)| async move {
                        (address, ask(address, connection).await)
                    })
                    .collect();
            let mut silent: Vec<&Address> = some.iter().map(|(address, _)| address).collect();
            let mut until = Instant::now() + ANSWER;
            let mut maps: Vec<Told> = Vec::new();
            while let Ok(Some((from, (ids, answer)))) = timeout_at(until, answers.next()).await {
                let is_late = answer.as_ref().is_err_and(StoreError::is_late);
                if !is_late {
                    silent.retain(|address| *address != from);
                }
                if self.note_answer(from, &ids) {
                    // All others are asked before it is believed, also those that were silent.
                    strange = strange.or(answer.ok());
                    continue;
                }
                has_answered |= !is_late;
                match answer {
                    Ok(told) => {
                        // One that is older than what is known is no good one.
                        let is_good = told.epoch >= self.state().epoch;
                        maps.push(told);
                        if is_good {
                            until = until.min(Instant::now() + STRAGGLERS);
                        }
                    }
                    Err(error) => keep_worst(&mut failed, error),
                }
            }
            drop(answers);
            if maps.is_empty() {
                let now = Instant::now();
                let mut state = self.state();
                let silent = silent.into_iter().map(|address| (address.clone(), now));
                state.suspects.extend(silent);
            }
            // Of one epoch, the map of more: right after a promotion some have not heard of it.
            let votes = |told: &Told| maps.iter().filter(|other| *other == told).count();
            let best = maps.iter().max_by_key(|told| (told.epoch, votes(told)));
            match best.cloned() {
                Some(told) if told.epoch >= self.state().epoch => {
                    self.adopt(told);
                    return Ok(());
                }
                // A master that was cut off; or, where all say so, a cluster that was set up anew.
                Some(told) => {
                    let newest = older.get_or_insert_with(|| told.clone());
                    if told.epoch >= newest.epoch {
                        *newest = told;
                    }
                }
                None => (),
            }
        }
        let has_gone = self.state().has_gone();
        let is_strange = strange.is_some();
        if let Some(told) = older.or(strange.filter(|_| has_gone)) {
            self.adopt(told);
            return Ok(());
        }
        if is_strange {
            return Err(StoreError::new(
                StoreErrorKind::NotDone,
                "the nodes that answer are of another cluster than before",
                "if this one was set up anew, it is believed half a minute after the old one; if not, \
                 give the nodes of each cluster a password of their own",
            ));
        }
        Err(failed.unwrap_or_else(|| {
            StoreError::new(
                StoreErrorKind::NotDone,
                "no node of the cluster answers",
                "see whether the nodes that the URL names are up, and can be reached",
            )
        }))
    }

    /// Notes that a node has answered, that knows nodes of these ids. `true`: it is another cluster's, and
    /// for some time asked only where no other node answers.
    fn note_answer(&self, from: &Address, ids: &HashSet<String>) -> bool {
        let mut state = self.state();
        let now = Instant::now();
        let is_strange = state.is_strange(ids);
        if is_strange {
            state.suspects.insert(from.clone(), now);
            state.strange_since.get_or_insert(now);
        } else if !ids.is_empty() {
            state.strange_since = None;
        }
        is_strange
    }

    /// Takes a map over: nodes that have lost their slots are retired, and holders and waiters of
    /// slots that have another node are told.
    fn adopt(self: &Arc<Self>, told: Told) {
        let mut state = self.state();
        if state.is_strange(&told.ids) {
            tracing::warn!(store = %self.shown, "another cluster is in the place of the one before");
            state.corrections.clear();
        }
        state.epoch = told.epoch;
        state.ids = told.ids;
        state.strange_since = None;
        state.replicas.clear();
        let mut owners = vec![NONE; SLOTS];
        for range in &told.ranges {
            let place = state.place(&range.master, || self.make_node(&range.master));
            for owner in owners
                .iter_mut()
                .take(usize::from(range.last) + 1)
                .skip(usize::from(range.first))
            {
                *owner = place;
            }
            state.replicas.extend(range.replicas.iter().cloned());
        }
        // A node that has not heard of it yet tells the map of before.
        state.corrections.retain(|_, correction| {
            told.epoch == correction.epoch && correction.at.elapsed() < TROUBLE
        });
        let corrections: Vec<_> = state
            .corrections
            .iter()
            .map(|(slot, it)| (*slot, it.to.clone()))
            .collect();
        for (slot, to) in corrections {
            let place = state.place(&to, || self.make_node(&to));
            if let Some(owner) = owners.get_mut(usize::from(slot)) {
                *owner = place;
            }
        }
        let before = std::mem::replace(&mut state.owners, owners);
        let mut orphaned = std::mem::take(&mut state.orphaned);
        orphaned.resize(SLOTS, false);
        // A slot without a node has no other node than before; it may have one after.
        let moved: Vec<bool> = before
            .iter()
            .zip(&state.owners)
            .zip(&mut orphaned)
            .map(|((before, now), orphaned)| {
                let had_one = *before != NONE || *orphaned;
                *orphaned = had_one && *now == NONE;
                had_one && before != now && *now != NONE
            })
            .collect();
        state.orphaned = orphaned;
        // One that never had any may be about to get some. One may have lost its last by a `MOVED`.
        let mut had_slots = std::mem::take(&mut state.left);
        had_slots.extend(&before);
        let mut retired = Vec::new();
        for place in had_slots {
            if !state.owners.contains(&place) {
                let node = state.nodes.get_mut(usize::from(place));
                retired.extend(node.and_then(Option::take));
            }
        }
        let replicas = state.replicas.clone();
        let with_slots: Vec<Address> = state
            .nodes
            .iter()
            .flatten()
            .map(|node| node.address.clone())
            .collect();
        // A node that serves is asked over the connection that its steps have.
        let is_needed = |address: &Address| {
            !with_slots.contains(address)
                && (replicas.contains(address) || self.given.contains(address))
        };
        state.others.retain(|address, _| is_needed(address));
        state.notified.retain(|engine| !engine.is_closed());
        let engines = state.notified.clone();
        drop(state);
        for node in retired {
            tracing::info!(store = %self.shown, node = %node.address, "this node has no slots any more");
            node.retire();
        }
        if moved.contains(&true) {
            let moved = Arc::new(moved);
            for engine in engines {
                let moved = Arc::clone(&moved);
                let has_moved =
                    move |key: &Key| moved.get(usize::from(slot(&key.lock))) == Some(&true);
                // An engine that has ended has dropped its receiver.
                let _ = engine.send(Notification::Moved(Arc::new(has_moved)));
            }
        }
    }

    /// Notes that a node has named another one for a slot.
    fn moved(self: &Arc<Self>, slot: Slot, to: &Address) -> Option<Arc<Node>> {
        let mut state = self.state();
        let place = state.place(to, || self.make_node(to));
        let before = match state.owners.get_mut(usize::from(slot)) {
            Some(owner) => std::mem::replace(owner, place),
            None => NONE,
        };
        if before != NONE && before != place {
            state.left.insert(before);
        }
        let now = Instant::now();
        let again = state.corrections.get(&slot).map(|last| last.told);
        let again = again.map_or(now, |told| now.max(told + BACK_AND_FORTH));
        let told = *state.untold.entry(slot).or_insert(again);
        let correction = Correction {
            to: to.clone(),
            epoch: state.epoch,
            at: now,
            told,
        };
        state.corrections.insert(slot, correction);
        let node = state.nodes.get(usize::from(place))?.clone();
        // A task that was to tell may have ended with its runtime.
        let is_on = |last: Instant| now - last < TOGETHER * 100;
        if !state.telling.is_some_and(is_on) {
            state.telling = Some(now);
            tokio::spawn(Arc::clone(self).tell_moved());
        }
        node
    }

    /// Tells the engines of slots that nodes have named others for, a little later, for it is many that
    /// do so at the same moment: each time an engine goes through all its locks. Ends when all are told
    /// of.
    async fn tell_moved(self: Arc<Self>) {
        loop {
            sleep(TOGETHER).await;
            let now = Instant::now();
            let mut state = self.state();
            let (slots, later): (HashMap<_, _>, HashMap<_, _>) = std::mem::take(&mut state.untold)
                .into_iter()
                .partition(|(_, at)| *at <= now);
            let is_last = later.is_empty();
            state.untold = later;
            state.telling = (!is_last).then_some(now);
            let engines = match slots.is_empty() {
                true => Vec::new(),
                false => state.notified.clone(),
            };
            drop(state);
            let slots = Arc::new(slots);
            for engine in engines {
                let slots = Arc::clone(&slots);
                let has_moved = move |key: &Key| slots.contains_key(&slot(&key.lock));
                // An engine that has ended has dropped its receiver.
                let _ = engine.send(Notification::Moved(Arc::new(has_moved)));
            }
            if is_last {
                return;
            }
        }
    }

    /// Asks the nodes that are in use, each in its turn, whether there was a failover.
    async fn watch_for_failovers(
        self: Arc<Self>,
        engine: Notifications,
        mut needed: watch::Receiver<bool>,
    ) {
        let mut heard: HashMap<Address, Epochs> = HashMap::new();
        for turn in 0.. {
            let next = async {
                // An engine that has ended needs none.
                needed.wait_for(|needed| *needed).await.is_ok() && {
                    sleep(around(WATCH)).await;
                    true
                }
            };
            match select(pin!(next), pin!(engine.closed())).await {
                Either::Left((true, _)) => (),
                _ => return,
            }
            let Some((address, connection)) = self.next_in_use(turn) else {
                continue;
            };
            match timeout(ANSWER, epochs(&connection)).await {
                Ok(Ok(said)) => {
                    let is_newer = said.current > Some(self.state().epoch);
                    let before = heard.insert(address, said);
                    // What others tell may be older than what this node has just heard: each
                    // change that a node shows has the map fetched once more.
                    if is_newer || before.is_some_and(|before| before != said) {
                        self.fetch_soon();
                    }
                }
                // It hangs up, or refuses connections.
                Ok(Err(failed)) if failed.hint != Hint::None => self.trouble(&address),
                Ok(Err(_)) => (),
                // It may be busy: others are asked, and they know when it is replaced.
                Err(_) => {
                    self.state().suspects.insert(address, Instant::now());
                    self.fetch_soon();
                }
            }
        }
    }

    /// A node with a live connection, another one each turn: not one that was silent a moment ago, if
    /// there are others.
    fn next_in_use(&self, turn: usize) -> Option<Asked> {
        let state = self.state();
        let is_silent = |node: &Node| {
            let silent = state.suspects.get(&node.address);
            silent.is_some_and(|at| at.elapsed() < TROUBLE)
        };
        let nodes = state.nodes.iter().flatten();
        let (silent, others): (Vec<_>, Vec<_>) = nodes
            .filter(|node| node.connection.is_live())
            .partition(|node| is_silent(node));
        let in_use = if others.is_empty() { silent } else { others };
        let node = in_use.get(turn.checked_rem(in_use.len())?)?;
        Some((node.address.clone(), Arc::clone(&node.connection)))
    }

    /// Fetches the map now and then, and while a node is in trouble again and again.
    async fn fetch_now_and_then(self: Arc<Self>, engine: Notifications) {
        loop {
            let (is_used, pause) = {
                let state = self.state();
                let pause = if state.is_troubled() {
                    IN_TROUBLE
                } else {
                    IN_PEACE
                };
                (state.fetched.is_some(), pause)
            };
            let over = pin!(engine.closed());
            let (timer, troubled) = (pin!(sleep(around(pause))), pin!(self.troubled.notified()));
            match select(select(timer, troubled), over).await {
                Either::Right(_) => return,
                Either::Left(_) if is_used => {
                    let _ = self.fetches.outcome(Arc::clone(&self).fetch()).await;
                }
                Either::Left(_) => (),
            }
        }
    }
}

/// Of several failures the one that a person has to mend.
fn keep_worst(kept: &mut Option<StoreError>, error: StoreError) {
    if kept.as_ref().is_none_or(StoreError::is_passing) {
        *kept = Some(error);
    }
}

/// What a node says of failovers: each has a higher epoch, and so has a node that serves slots of
/// another one from then on, or is made a replica of that.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Epochs {
    is_well: bool,
    current: Option<u64>,
    its_own: Option<u64>,
}

impl Epochs {
    /// Out of the answer to `CLUSTER INFO`.
    fn read(info: &str) -> Self {
        let field = |name: &str| reply::info_field(info, name);
        let number = |name: &str| field(name)?.parse().ok();
        Self {
            is_well: field("cluster_state") == Some("ok"),
            current: number("cluster_current_epoch"),
            its_own: number("cluster_my_epoch"),
        }
    }
}

/// Asks one node for its epochs.
async fn epochs(connection: &Arc<Connection>) -> Result<Epochs, Failed> {
    let mut info = redis::cmd("CLUSTER");
    info.arg("INFO");
    // Not its time-out, but that of the caller: a busy node's connection is not given up for it.
    let within = 2 * ANSWER;
    let about = About::default();
    let said = connection.send(&info, about, within).await?;
    Ok(Epochs::read(&reply::text(&said).unwrap_or_default()))
}

/// Asks one node for its map, and whether the cluster is well. With it come the ids of all nodes that it
/// knows with slots, also where it says that the cluster is not well.
async fn ask(
    address: &Address,
    connection: &Arc<Connection>,
) -> (HashSet<String>, StoreResult<Told>) {
    let command = |what: &str| {
        let mut command = redis::cmd("CLUSTER");
        command.arg(what);
        command
    };
    let (info, slots) = (command("INFO"), command("SLOTS"));
    let about = About::default();
    let send = |command| connection.send(command, about, ANSWER);
    let (info, slots) = join(send(&info), send(&slots)).await;
    match slots {
        Ok(slots) => {
            let ids = ids(&slots);
            (ids.clone(), read(address, info, &slots, ids))
        }
        Err(failed) => (HashSet::new(), Err(no_cluster(failed.error))),
    }
}

/// The map in what that node has answered to both, with these ids.
fn read(
    address: &Address,
    info: Result<Value, Failed>,
    slots: &Value,
    ids: HashSet<String>,
) -> StoreResult<Told> {
    let info = info
        .map_err(|failed| failed.error)
        .map(|info| reply::text(&info).unwrap_or_default())?;
    let epochs = Epochs::read(&info);
    if !epochs.is_well {
        return Err(StoreError::new(
            StoreErrorKind::NotDone,
            format!("the cluster is down, as its node {address} says"),
            CLUSTER_DOWN_REMEDY,
        ));
    }
    match ranges(slots, address) {
        Some(ranges) => Ok(Told {
            ranges,
            epoch: epochs.current.unwrap_or(0),
            ids,
        }),
        None if is_nameless(slots) => Err(StoreError::new(
            StoreErrorKind::NotDone,
            format!("the nodes that {address} knows are to be known by their names, and have none"),
            "set cluster-announce-hostname on each, or leave out cluster-preferred-endpoint-type",
        )),
        None => Err(StoreError::new(
            StoreErrorKind::NotDone,
            format!("the node {address} knows of no slot that a node has"),
            "see whether it was reset, and is part of the cluster",
        )),
    }
}

/// What a server that is no cluster's node answers is no trouble that passes.
fn no_cluster(error: StoreError) -> StoreError {
    if !error.what.contains("cluster support disabled") {
        return error;
    }
    StoreError::new(
        StoreErrorKind::Misconfigured,
        "this Redis is no node of a cluster",
        "write redis:// in place of redis+cluster://",
    )
}

impl Topology for Cluster {
    fn slot(&self, key: &Key) -> Slot {
        slot(&key.lock)
    }

    fn known(&self, slot: Slot) -> Option<Arc<Node>> {
        self.state().owner(slot).cloned()
    }

    fn place(&self, key: &Key) -> u64 {
        let place = self
            .state()
            .owners
            .get(usize::from(slot(&key.lock)))
            .copied();
        u64::from(place.unwrap_or(NONE))
    }

    fn find(self: Arc<Self>, slot: Slot, within: Duration) -> StoreFuture<StoreResult<Arc<Node>>> {
        Box::pin(async move {
            let nobody = || {
                StoreError::new(
                    StoreErrorKind::NotDone,
                    format!("no node of the cluster has the lock's slot ({slot})"),
                    CLUSTER_DOWN_REMEDY,
                )
            };
            let known = || self.known(slot);
            let ask = || async {
                let fetched = self.fetches.outcome(Arc::clone(&self).fetch()).await?;
                Some(fetched.and_then(|()| known().ok_or_else(nobody)))
            };
            found(within, known, ask).await
        })
    }

    fn all(self: Arc<Self>, within: Duration) -> StoreFuture<StoreResult<Vec<Arc<Node>>>> {
        Box::pin(async move {
            let deadline = Instant::now() + within;
            loop {
                let missing = match self.state().masters() {
                    Ok(masters) => return Ok(masters),
                    Err(missing) => missing,
                };
                // What is known of the others is fetched with it.
                let left = deadline.saturating_duration_since(Instant::now());
                Arc::clone(&self).find(missing, left).await?;
            }
        })
    }

    fn turn(self: Arc<Self>, slot: Slot, from: &Arc<Node>, failed: &Failed, tries: u32) -> Turn {
        let beside = |to: &Address| match to {
            Address::Named(host, port) if host.is_empty() => {
                Address::beside(None, *port, &from.address)
            }
            to => to.clone(),
        };
        match &failed.hint {
            Hint::Moved(to) => {
                let node = self.moved(slot, &beside(to));
                self.fetch_soon();
                match node {
                    Some(node) => Turn::At {
                        node,
                        asking: false,
                    },
                    None => Turn::Again(jittered(PAUSE)),
                }
            }
            Hint::Ask(to) => match self.node_at(&beside(to)) {
                Some(node) => Turn::At { node, asking: true },
                None => Turn::Again(jittered(PAUSE)),
            },
            Hint::Migrating => {
                let pause = MIGRATING.saturating_mul(1 << tries.min(8));
                Turn::Again(jittered(pause.min(LONGEST_MIGRATING)))
            }
            Hint::ClusterDown | Hint::NotServing | Hint::Unreachable => {
                // It was replaced meanwhile.
                if let Some(node) = self.known(slot)
                    && from.connection.is_over()
                    && node.address != from.address
                {
                    return Turn::At {
                        node,
                        asking: false,
                    };
                }
                self.trouble(&from.address);
                Turn::Again(jittered(PAUSE))
            }
            Hint::Silent => {
                self.trouble(&from.address);
                Turn::Tell
            }
            Hint::None => Turn::Tell,
        }
    }

    fn shares_calls(&self, _node: &Node) -> bool {
        // Those of one slot.
        true
    }

    fn watch(
        self: Arc<Self>,
        notifications: &Notifications,
        needed: watch::Receiver<bool>,
    ) -> bool {
        self.state().notified.push(notifications.clone());
        tokio::spawn(Arc::clone(&self).watch_for_failovers(notifications.clone(), needed));
        tokio::spawn(self.fetch_now_and_then(notifications.clone()));
        true
    }

    fn forked(&self) -> Arc<dyn Topology> {
        Arc::new(Self::new(
            Arc::clone(&self.connector),
            self.given.clone(),
            Arc::clone(&self.shown),
        ))
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc;

    use super::super::dial::Nowhere;
    use super::*;

    fn node(port: u16) -> Address {
        Address::Named("h".into(), port)
    }

    fn cluster() -> Arc<Cluster> {
        let shown = "redis+cluster://h".into();
        Arc::new(Cluster::new(Arc::new(Nowhere), vec![node(1)], shown))
    }

    /// A map: the last slots of those that have the same node.
    fn map(ranges: &[(Slot, u16)], epoch: u64) -> Told {
        let mut first = 0;
        let range = |(last, port): &(Slot, u16)| Range {
            first: std::mem::replace(&mut first, last + 1),
            last: *last,
            master: node(*port),
            replicas: Vec::new(),
        };
        Told {
            ranges: ranges.iter().map(range).collect(),
            epoch,
            ids: HashSet::new(),
        }
    }

    fn told_of(cluster: &Cluster) -> mpsc::UnboundedReceiver<Notification> {
        let (notified, told) = mpsc::unbounded_channel();
        cluster.state().notified.push(notified);
        told
    }

    #[tokio::test(start_paused = true)]
    async fn a_map_without_a_node_that_is_known_is_strange_until_none_of_these_answers_for_long() {
        fn of(ids: &[&str]) -> HashSet<String> {
            ids.iter().map(|id| (*id).to_owned()).collect()
        }
        let cluster = cluster();
        let adopt = |ids: &[&str]| {
            cluster.adopt(Told {
                ids: of(ids),
                ..map(&[(16_383, 1)], 1)
            });
        };
        assert!(!cluster.note_answer(&node(1), &of(&["a"])), "none is known");
        // Old servers tell no ids.
        adopt(&[]);
        assert!(!cluster.note_answer(&node(1), &of(&["a", "b"])));
        // One by one each node is replaced by another.
        for ids in [["a", "b"], ["b", "c"], ["c", "d"]] {
            assert!(!cluster.note_answer(&node(1), &of(&ids)));
            adopt(&ids);
        }
        assert!(
            !cluster.note_answer(&node(1), &of(&[])),
            "a node that was reset"
        );
        for _ in 0..10 {
            sleep(STRANGE_FOR_GOOD / 2).await;
            assert!(cluster.note_answer(&node(2), &of(&["x", "y"])));
            assert!(!cluster.state().has_gone(), "nodes of ours answer");
            assert!(!cluster.note_answer(&node(1), &of(&["d"])));
        }
        sleep(STRANGE_FOR_GOOD).await;
        assert!(cluster.note_answer(&node(2), &of(&["x", "y"])));
        assert!(!cluster.state().has_gone(), "none was asked meanwhile");
        sleep(STRANGE_FOR_GOOD).await;
        assert!(cluster.note_answer(&node(2), &of(&["x", "y"])));
        assert!(cluster.state().has_gone(), "set up anew");
        adopt(&["x", "y"]);
        assert!(!cluster.note_answer(&node(2), &of(&["y"])));
    }

    /// A subscription there would stay for good.
    #[tokio::test(start_paused = true)]
    async fn a_node_that_has_lost_its_last_slot_by_a_redirection_is_retired_with_the_next_map() {
        let cluster = cluster();
        cluster.adopt(map(&[(99, 1), (100, 2), (16_383, 3)], 1));
        let node_of = |slot| cluster.state().owner(slot).cloned().unwrap();
        let (kept, left) = (node_of(0), node_of(100));
        cluster.moved(100, &node(1));
        cluster.moved(101, &node(1));
        assert!(!left.connection.is_over());
        cluster.adopt(map(&[(101, 1), (16_383, 3)], 1));
        assert!(left.connection.is_over(), "it has no slots");
        assert!(!kept.connection.is_over());
        assert!(!node_of(200).connection.is_over(), "it has other slots");
    }

    /// A holder beats each time that it is told: by its own beats it would be told again.
    #[tokio::test(start_paused = true)]
    async fn a_slot_that_two_nodes_send_back_and_forth_is_told_of_once_a_second() {
        let cluster = cluster();
        cluster.adopt(map(&[(16_383, 1)], 1));
        let mut told = told_of(&cluster);
        let key = Key::of_lock("QUEUE:job");
        let other = Key::of_lock("QUEUE:other");
        for hop in 0..1_000 {
            cluster.moved(slot(&key.lock), &node(1 + hop % 2));
            if hop == 10 {
                cluster.moved(slot(&other.lock), &node(2));
            }
            sleep(Duration::from_millis(5)).await;
        }
        sleep(2 * BACK_AND_FORTH).await;
        let (mut of_it, mut of_other) = (0, 0);
        while let Ok(notification) = told.try_recv() {
            let Notification::Moved(has_moved) = notification else {
                panic!("of a slot that moves");
            };
            of_it += u32::from(has_moved(&key));
            of_other += u32::from(has_moved(&other));
        }
        // In five seconds; the last hop is told of in the end.
        assert!((5..=7).contains(&of_it), "{of_it}");
        assert_eq!(of_other, 1, "another slot is told of at once, by itself");
    }

    /// An engine goes through all its locks for each: of ten thousand, for each of thousands, it would
    /// beat for none meanwhile.
    #[tokio::test(start_paused = true)]
    async fn slots_that_move_at_the_same_moment_are_told_of_together() {
        let cluster = cluster();
        let mut told = told_of(&cluster);
        let key = |number: u32| Key::of_lock(&format!("QUEUE:job-{number}"));
        for round in [2, 3] {
            for number in 0..3_000 {
                cluster.moved(slot(&key(number).lock), &node(round));
            }
            let Some(Notification::Moved(has_moved)) = told.recv().await else {
                panic!("the engine is told");
            };
            assert!((0..3_000).all(|number| has_moved(&key(number))));
            let others = (3_000..60_000).filter(|number| has_moved(&key(*number)));
            assert!(others.count() < 57_000, "of all slots");
            assert!(told.try_recv().is_err(), "more than one notification");
        }
    }
}
