//! The scripts held against the protocol: random steps of several processes that come and
//! go, carried out by the real scripts and by [`crate::protocol`], and compared.
//!
//! A step is drawn from a seed: an acquire, a heartbeat, a release (also by the wrong owner), a
//! forced release, an inspection; or something that befalls the processes and the server: a
//! subscription that breaks or comes back, a restart, a key that is evicted, a flush, and time
//! that passes up to, and beyond, each bound of [`Timing`]. After each step these must be the same:
//!
//! | | |
//! |---|---|
//! | the answer | read by the product's own parser |
//! | the lock | holder, token, claimed or kept or held, time left |
//! | the fence | the token, the last holding, how and when it ended |
//! | the queue | owners and tickets, in order |
//! | the notifications | which process was notified of which grant |
//!
//! The requests are written by the product's own code. The server is the simulation's, whose Lua is
//! of the same version as Redis's and whose clock stands still during a step; a shorter run
//! meets a real `redis-server`, whose scripts are given the time of the step.
//!
//! `APPLOCK_SEED=17 cargo test -p applock-runtime scripts -- --nocapture` runs one seed.

mod real;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fastrand::Rng;
use redis::Value;
use tokio::sync::mpsc::unbounded_channel;

use super::server::Bare;
use crate::info::{Ending, LastHolding, LockInfo};
use crate::key::Key;
use crate::protocol::{
    Begun, Decision, Due, Granted, Holding, LockState, Notify, Outcome, Phase, Process, Reach,
    Releaser, Requester, StoreTime, Tick, Timing, Waiter, WhenBusy,
};
use crate::store::redis::script::ScriptCall;
use crate::store::redis::{reply, requests};
use crate::store::view::{self, Who};
use crate::store::{Acquire, Acquired, By, Grant, Identity, OwnerId, Release, Renew};

const TIMING: Timing = Timing::NANOS;
const MILLI: u64 = 1_000_000;

/// Owners that come and go are drawn from so many at a time.
const OWNERS: usize = 10;
const PROCESSES: usize = 4;

/// The most locks beside ours in one call. Nothing is compared of them.
const OTHERS: usize = 3;

/// What the scripts run on.
trait ScriptServer {
    /// The time of the next step, in milliseconds since 1970.
    fn begin(&mut self) -> u64;
    fn ask(&mut self, call: &ScriptCall) -> Value;
    fn command(&mut self, words: &[&str]) -> Value;
    /// Lets so many milliseconds pass.
    fn pass(&mut self, millis: u64);
    /// Which lengths of time are worth a try.
    fn lengths(&self) -> &'static [u64];
    fn ttls(&self) -> &'static [u64];
    /// For how many milliseconds a holding is remembered.
    fn remembers(&self) -> &'static [u64];
    /// For how many milliseconds `at_least` keeps a lock.
    fn keep(&self, rng: &mut Rng) -> u64;
    fn subscribe(&mut self, channel: &str, listens: bool);
    /// What subscribers received since the last time.
    fn published(&mut self) -> Vec<(String, String)>;
    /// Restarts with the data, if it can: answers the new run id.
    fn restart(&mut self) -> Option<String>;
    fn run_id(&self) -> String;
    fn forget(&mut self);
    /// By how many milliseconds a time may be off.
    fn slack(&self) -> u64;
    /// Whether it is more since `begin`: then a difference proves nothing.
    fn is_held_up(&self) -> bool {
        false
    }
}

/// The simulation's server.
struct Simulated {
    bare: Bare,
    now: u64,
    lives: u64,
}

/// What its clock showed at its start, in milliseconds.
const EPOCH: u64 = 1_800_000_000_000;

impl Simulated {
    fn new() -> Self {
        let bare = Bare::new();
        bare.restart("run0");
        Self {
            bare,
            now: 1_000,
            lives: 0,
        }
    }
}

impl ScriptServer for Simulated {
    fn begin(&mut self) -> u64 {
        self.bare.set_time(Duration::from_millis(self.now));
        EPOCH + self.now
    }

    fn ask(&mut self, call: &ScriptCall) -> Value {
        self.bare.ask(&call.by_text().get_packed_command())
    }

    fn command(&mut self, words: &[&str]) -> Value {
        let mut command = redis::Cmd::new();
        for word in words {
            command.arg(word);
        }
        self.bare.ask(&command.get_packed_command())
    }

    fn pass(&mut self, millis: u64) {
        self.now += millis;
    }

    fn lengths(&self) -> &'static [u64] {
        &[
            1, 2, 10, 100, 499, 501, 999, 1_500, 2_999, 3_001, 3_500, 10_000, 20_000, 30_000,
            39_999, 40_001, 44_999, 45_001, 60_000,
        ]
    }

    fn ttls(&self) -> &'static [u64] {
        &[100, 1_000, 2_500, 5_000, 60_000, 300_000, 2_592_000_000]
    }

    fn remembers(&self) -> &'static [u64] {
        &[1_000, 20_000, 604_800_000]
    }

    fn keep(&self, rng: &mut Rng) -> u64 {
        rng.u64(1..20_000)
    }

    fn subscribe(&mut self, channel: &str, listens: bool) {
        self.bare.subscribe(channel, listens);
    }

    fn published(&mut self) -> Vec<(String, String)> {
        self.bare.published()
    }

    fn restart(&mut self) -> Option<String> {
        self.lives += 1;
        self.bare.restart(&self.run_id());
        Some(self.run_id())
    }

    fn run_id(&self) -> String {
        format!("run{}", self.lives)
    }

    fn forget(&mut self) {
        self.bare.forget();
    }

    fn slack(&self) -> u64 {
        0
    }
}

/// A process as the test knows it.
#[derive(Clone)]
struct Peer {
    channel: String,
    identity: Arc<Identity>,
    /// Whether a connection of it is subscribed at the server.
    is_subscribed: bool,
    /// The run of the server that it believes to be subscribed at.
    believes: Option<String>,
    /// The same, as its last request that entered the wait queue said.
    said: Option<String>,
}

/// How the module reaches a process: as the server would.
struct Subscriptions<'a> {
    peers: &'a [Peer],
    run: &'a str,
    notified: Vec<(Process, Granted)>,
}

impl Notify<Who> for Subscriptions<'_> {
    fn reach(&mut self, waiter: &Waiter<Who>, grant: &Granted) -> Reach {
        let peer = &self.peers[usize::try_from(waiter.process).unwrap()];
        if peer.is_subscribed {
            self.notified.push((waiter.process, *grant));
            Reach::Notified
        } else if peer.said.as_deref().is_some_and(|said| said != self.run) {
            Reach::MayReturn {
                within: TIMING.grace,
            }
        } else {
            Reach::Unreachable
        }
    }
}

/// The scripts on a server, the protocol beside them, and what has happened.
struct Pair<S> {
    server: S,
    state: LockState<Who, By>,
    key: Key,
    peers: Vec<Peer>,
    rng: Rng,
    now: StoreTime,
    /// Owners, the process of each, and the last ticket that it was given.
    owners: Vec<(OwnerId, usize, Option<u64>)>,
    /// The newest owner that has asked for each of the other locks.
    others: BTreeMap<Arc<str>, OwnerId>,
    /// The ttl of each owner that has made a request.
    ttls: BTreeMap<OwnerId, u64>,
    /// And for how long it wants to be remembered.
    remembers: BTreeMap<OwnerId, u64>,
    /// The lease of the newest holding was cut: by an eviction, or to the grace.
    is_cut: bool,
    /// The same of the newest success before it.
    is_success_cut: bool,
    history: Vec<String>,
}

impl<S: ScriptServer> Pair<S> {
    fn new(server: S, seed: u64) -> Self {
        let peers = (0..PROCESSES).map(|number| Peer {
            channel: format!("applock:{number}"),
            identity: Arc::new(Identity {
                instance: format!("web-{number}"),
                host: "db7".into(),
                pid: u32::try_from(number).unwrap() + 1,
            }),
            is_subscribed: false,
            believes: None,
            said: None,
        });
        let mut this = Self {
            peers: peers.collect(),
            server,
            state: LockState::default(),
            key: Key::of("QUEUE:", "reports", Some("eu")).unwrap(),
            rng: Rng::with_seed(seed),
            now: StoreTime::default(),
            owners: Vec::new(),
            others: BTreeMap::new(),
            ttls: BTreeMap::new(),
            remembers: BTreeMap::new(),
            is_cut: false,
            is_success_cut: false,
            history: Vec::new(),
        };
        for _ in 0..OWNERS {
            let owner = this.new_owner();
            this.owners.push(owner);
        }
        this
    }

    fn new_owner(&mut self) -> (OwnerId, usize, Option<u64>) {
        let owner = OwnerId::from_u128(self.rng.u128(..));
        (owner, self.rng.usize(..PROCESSES), None)
    }

    /// An owner that may come to hold one of the other locks.
    fn new_other(&mut self, key: &Key) -> OwnerId {
        let owner = OwnerId::from_u128(self.rng.u128(..));
        self.others.insert(Arc::clone(&key.lock), owner);
        owner
    }

    fn note(&mut self, what: String) {
        let at = self.now.at / MILLI;
        self.history.push(format!("{at}: {what}"));
    }

    /// Runs so many steps; panics at the first difference.
    fn run(&mut self, steps: usize) {
        for _ in 0..steps {
            self.pass_a_bound();
            self.begin();
            let compared = catch_unwind(AssertUnwindSafe(|| {
                self.step();
                self.compare();
            }));
            match compared {
                Ok(()) => {}
                Err(_) if self.server.is_held_up() => {
                    self.server.published();
                    self.flush();
                }
                Err(difference) => resume_unwind(difference),
            }
        }
    }

    /// Sets the time of the step.
    fn begin(&mut self) {
        let millis = self.server.begin();
        self.now = StoreTime {
            at: millis * MILLI,
            micros: millis * 1_000,
        };
    }

    /// At the very millisecond of a lease's end Redis has the key still.
    fn pass_a_bound(&mut self) {
        let slack = self.server.slack() + 1;
        loop {
            let now = self.server.begin();
            let newest = self.state.newest.as_ref().map(|newest| newest.expires_at);
            let forgotten = self.state.newest.as_ref().map(Holding::forgotten_at);
            let bounds = [newest, forgotten, Some(self.state.queue.expires_at)];
            let is_near = |bound: u64| (bound / MILLI).abs_diff(now) < slack;
            if !bounds.into_iter().flatten().any(is_near) {
                return;
            }
            self.server.pass(slack);
        }
    }

    fn step(&mut self) {
        let which = self.rng.usize(..OWNERS);
        match self.rng.u32(..100) {
            0..30 => self.acquire(which),
            30..42 => self.renew(which),
            42..62 => self.release(which),
            62..66 => self.force_release(),
            66..80 => {
                let lengths = self.server.lengths();
                let length = lengths[self.rng.usize(..lengths.len())];
                self.note(format!("{length} ms pass"));
                self.server.pass(length);
                // The next comparison uses the new time.
                self.begin();
                self.pass_a_bound();
                self.begin();
            }
            80..88 => self.change_subscription(),
            88..94 => {
                self.owners[which] = self.new_owner();
                self.note(format!("owner {which} is another"));
            }
            94..96 => {
                if let Some(run) = self.server.restart() {
                    self.note(format!("the server restarts as {run}"));
                    for peer in &mut self.peers {
                        peer.is_subscribed = false;
                    }
                }
            }
            96..98 => self.evict(),
            98 => self.flush(),
            _ => {}
        }
    }

    fn flush(&mut self) {
        self.note("flush".into());
        self.server.forget();
        self.state = LockState::default();
    }

    fn change_subscription(&mut self) {
        let which = self.rng.usize(..PROCESSES);
        let run = self.server.run_id();
        let change = self.rng.u32(..4);
        let peer = &mut self.peers[which];
        match change {
            // As it should be.
            0 | 1 => {
                peer.is_subscribed = true;
                peer.believes = Some(run);
            }
            // It breaks, and the process does not know yet.
            2 => peer.is_subscribed = false,
            // It breaks, and the process knows.
            _ => {
                peer.is_subscribed = false;
                peer.believes = None;
            }
        }
        let (channel, listens) = (peer.channel.clone(), peer.is_subscribed);
        let believes = peer.believes.clone();
        self.server.subscribe(&channel, listens);
        self.note(format!(
            "process {which}: subscribed {listens}, believes {believes:?}"
        ));
    }

    fn evict(&mut self) {
        self.note("the lock is evicted".into());
        let key = self.key.lock.to_string();
        self.server.command(&["DEL", &key]);
        if let Some(newest) = &mut self.state.newest
            && newest.is_taken(self.now)
        {
            // The fence lives on as long as it would have.
            newest.remember += newest.expires_at - self.now.at;
            newest.expires_at = self.now.at;
            self.is_cut = true;
        }
    }

    /// Calls the module with the server's subscriptions, and compares who was notified.
    fn decide<T>(
        &mut self,
        decide: impl FnOnce(&mut LockState<Who, By>, StoreTime, &mut Subscriptions<'_>) -> T,
    ) -> T {
        let run = self.server.run_id();
        let before = self.state.newest.clone();
        let (success, was_cut) = (self.success_token(), self.is_cut);
        let mut wires = Subscriptions {
            peers: &self.peers,
            run: &run,
            notified: Vec::new(),
        };
        let answer = decide(&mut self.state, self.now, &mut wires);
        let expected: Vec<(String, Grant)> = wires
            .notified
            .iter()
            .map(|(process, granted)| {
                let peer = &self.peers[usize::try_from(*process).unwrap()];
                (peer.channel.clone(), grant(granted))
            })
            .collect();
        if before.as_ref().map(|one| one.token) != self.state.newest.as_ref().map(|one| one.token) {
            let newest = self.state.newest.as_ref();
            self.is_cut = newest.is_some_and(|newest| {
                newest.phase == Phase::Claimed
                    && newest.expires_at - newest.acquired.at != newest.term(&TIMING)
            });
        }
        if success != self.success_token() {
            self.is_success_cut = was_cut;
        }
        let heard: Vec<(String, Grant)> = self
            .server
            .published()
            .into_iter()
            .map(|(channel, message)| (channel, reply::grant(&message).unwrap().1))
            .collect();
        self.same(
            "notifications",
            &format!("{expected:?}"),
            &format!("{heard:?}"),
        );
        answer
    }

    fn success_token(&self) -> Option<u64> {
        self.state.success.as_ref().map(|success| success.token)
    }

    fn acquire(&mut self, which: usize) {
        if self.rng.u32(..16) == 0 {
            // As a waiter that comes from another node: there its process listens elsewhere.
            self.owners[which].1 = self.rng.usize(..self.peers.len());
        }
        let (owner, process, known) = self.owners[which];
        let ttls = self.server.ttls();
        let drawn = ttls[self.rng.usize(..ttls.len())];
        let ttl = *self.ttls.entry(owner).or_insert(drawn);
        let remembers = self.server.remembers();
        let drawn = remembers[self.rng.usize(..remembers.len())];
        let remember = *self.remembers.entry(owner).or_insert(drawn);
        let waits = self.rng.u32(..4) > 0;
        let ticket = match self.rng.u32(..4) {
            0 => None,
            // A ticket that is older than the whole queue, or of no waiter.
            1 if self.rng.u32(..8) == 0 => Some(self.now.micros - self.rng.u64(..60_000_000)),
            _ => known,
        };
        let peer = self.peers[process].clone();
        let due = self.due();
        let request = Acquire {
            key: self.key.clone(),
            owner,
            ttl: Duration::from_millis(ttl),
            remember: Duration::from_millis(remember),
            due,
            identity: Arc::clone(&peer.identity),
            notifications: waits.then(|| unbounded_channel().0),
            ticket,
        };
        self.note(format!(
            "owner {which} ({}) of process {process} acquires, ttl {ttl}, remember {remember}, {due:?}, \
             waits {waits}, ticket {ticket:?}, listens {:?}",
            owner.simple(),
            peer.believes
        ));
        let is_its = |state: &LockState<Who, By>, now| {
            let newest = state.newest.as_ref();
            newest.is_some_and(|newest| newest.is_held_by(owner.as_u128(), now))
        };
        let is_forbidden = {
            let mut state = self.state.clone();
            let asked = state.acquire(
                Requester {
                    owner: owner.as_u128(),
                    process: process as Process,
                    ttl: ttl * MILLI,
                    remember: remember * MILLI,
                    due,
                    who: Who::of(&request),
                },
                WhenBusy::Refuse,
                self.now,
                &TIMING,
                &mut Subscriptions {
                    peers: &self.peers,
                    run: &self.server.run_id(),
                    notified: Vec::new(),
                },
            );
            matches!(asked, Ok(Decision::AlreadyRan(_)))
        };
        let joins = waits
            && !is_forbidden
            && !is_its(&self.state, self.now)
            && (self.state.is_taken(self.now) || self.state.waiters(self.now) > 0);
        if joins {
            self.peers[process].said.clone_from(&peer.believes);
        }
        let who = Who::of(&request);
        // What is the same of all is sent once.
        let others_remember = self.others_remember(Duration::from_millis(remember));
        let (requests, at) = self.among_others(request, |this, key| Acquire {
            owner: this.new_other(&key),
            key,
            ttl: Duration::from_millis(ttl),
            remember: others_remember,
            due: this.others_due(due),
            identity: Arc::clone(&this.peers[process].identity),
            notifications: None,
            ticket: None,
        });
        let call = requests::acquire(&each(&requests), &peer.channel, peer.believes.as_deref());
        let answer = self.answer(&call, at, requests.len());
        let found = reply::acquired(&self.key, &answer, peer.believes.is_some()).unwrap();
        let decision = self.decide(|state, now, wires| {
            let requester = Requester {
                owner: owner.as_u128(),
                process: process as Process,
                ttl: ttl * MILLI,
                remember: remember * MILLI,
                due,
                who,
            };
            let when_busy = match waits {
                false => WhenBusy::Refuse,
                true => WhenBusy::Wait {
                    ticket: ticket.filter(|ticket| *ticket > 0),
                    listens: peer.believes.is_some(),
                },
            };
            state.acquire(requester, when_busy, now, &TIMING, wires)
        });
        let newest = self.state.newest.clone().unwrap();
        match (decision.unwrap(), found) {
            (Decision::AlreadyRan(_), Acquired::AlreadyRan(found)) => {
                let expected = view::acquired(&self.state, decision.unwrap(), false, self.now);
                let Ok(Acquired::AlreadyRan(expected)) = expected else {
                    panic!("{expected:?}");
                };
                self.same_last(Some(&expected), Some(&found));
                // Its next request has no ticket.
                self.owners[which].2 = None;
            }
            (Decision::Granted, Acquired::Granted { token, at }) => {
                self.same("token", &newest.token, &token);
                self.same("since", &view::acquired_at(&newest), &at);
                // Its next request has no ticket.
                self.owners[which].2 = None;
            }
            (Decision::Busy, Acquired::Busy(info)) => self.same_holder(Some(&info)),
            (
                Decision::Queued {
                    ahead,
                    ticket: place,
                    is_new,
                },
                Acquired::Queued(position),
            ) => {
                self.same("ahead", &(ahead as u64), &position.ahead);
                // It is told where the request brought none.
                let told = (is_new || ticket.is_none_or(|known| known == 0)).then_some(place);
                self.same("ticket", &told, &position.ticket);
                self.same("is new", &is_new, &position.is_new);
                self.same_holder(Some(&position.holder));
                self.owners[which].2 = told.or(self.owners[which].2);
            }
            (decided, found) => self.differ("answer", &decided, &found),
        }
    }

    /// What an earlier run forbids the request: mostly nothing.
    fn due(&mut self) -> Option<Due> {
        let lengths = self.server.lengths();
        let length = lengths[self.rng.usize(..lengths.len())];
        let tick = match self.rng.u32(..4) {
            0 => Due::gap(length * 1_000),
            // Around the last one, and beyond 53 bits.
            1 => {
                let newest = self.state.newest.as_ref();
                let last = newest.and_then(|newest| newest.tick);
                let last = last.map_or(self.rng.u64(1..100), |begun| begun.number);
                let step = [0, 0, 1, 1, 1, 2, 90, 1_000_000_007, 1 << 54];
                let next = last.saturating_add(step[self.rng.usize(..step.len())]);
                Tick::Number(next.saturating_sub(self.rng.u64(..2)))
            }
            _ => return None,
        };
        Some(Due {
            tick,
            retry_failed: self.rng.bool(),
        })
    }

    /// That of a request for another lock, which is to be granted it. Of a short and a long
    /// call each.
    fn others_due(&mut self, due: Option<Due>) -> Option<Due> {
        let tick = Due::gap(0);
        let retry_failed = false;
        (due.is_some() && self.rng.bool()).then_some(Due { tick, retry_failed })
    }

    fn renew(&mut self, which: usize) {
        let owner = self.an_owner(which);
        let ttl = self.ttls.get(&owner).copied().unwrap_or(1_000);
        self.note(format!("{} renews", owner.simple()));
        let beat = Renew {
            key: self.key.clone(),
            owner,
            token: 0,
            ttl: Duration::from_millis(ttl),
            remember: self.remember_of(owner),
        };
        let others_remember = self.others_remember(beat.remember);
        let (beats, at) = self.among_others(beat, |this, key| Renew {
            key,
            owner: OwnerId::from_u128(this.rng.u128(..)),
            token: 0,
            ttl: Duration::from_millis(ttl),
            remember: others_remember,
        });
        let answer = self.server.ask(&requests::renew(&each(&beats)));
        let found = reply::flags(&answer, beats.len()).unwrap()[at];
        let now = self.now;
        let decided = self.state.renew(owner.as_u128(), ttl * MILLI, now);
        if decided {
            self.is_cut = false;
        }
        self.same("renewed", &decided, &found);
    }

    /// As the one that is compared, or not.
    fn others_remember(&mut self, own: Duration) -> Duration {
        match self.rng.bool() {
            true => own,
            false => Duration::from_secs(3_600),
        }
    }

    /// For how long its request said that the holding is to be remembered.
    fn remember_of(&self, owner: OwnerId) -> Duration {
        Duration::from_millis(self.remembers.get(&owner).copied().unwrap_or(1_000))
    }

    fn release(&mut self, which: usize) {
        let owner = self.an_owner(which);
        let process = self.process_of(owner);
        let keep = match self.rng.u32(..5) {
            0 => self.server.keep(&mut self.rng),
            _ => 0,
        };
        let outcome = Outcome::NAMES[self.rng.usize(..Outcome::NAMES.len())].0;
        let end = Release {
            key: self.key.clone(),
            owner,
            token: None,
            outcome,
            remember: self.remember_of(owner),
            keep: (keep > 0).then(|| Duration::from_millis(keep)),
        };
        self.note(format!(
            "{} releases, {outcome:?}, keep {keep}",
            owner.simple()
        ));
        let channel = self.peers[process].channel.clone();
        let others_remember = self.others_remember(end.remember);
        let outcomes = [Outcome::Ok, outcome];
        let others_outcome = outcomes[self.rng.usize(..2)];
        let (ends, at) = self.among_others(end, |this, key| Release {
            owner: this.others.get(&key.lock).copied().unwrap_or_default(),
            key,
            token: None,
            outcome: others_outcome,
            remember: others_remember,
            keep: None,
        });
        let answer = self.answer(&requests::release(&each(&ends), &channel), at, ends.len());
        let found = reply::released(&answer).unwrap();
        let decided = self.decide(|state, now, wires| {
            let releaser = Releaser {
                owner: owner.as_u128(),
                outcome,
                keep: keep * MILLI,
                own: Some(process as Process),
            };
            state.release(releaser, now, &TIMING, wires)
        });
        self.same("ended", &decided.ended, &found.ended);
        if decided.ended {
            self.retire(owner);
        }
        let granted = decided.granted.as_ref().map(grant);
        self.same(
            "next",
            &format!("{granted:?}"),
            &format!("{:?}", found.next),
        );
    }

    fn force_release(&mut self) {
        let stale = match self.rng.u32(..3) {
            0 => None,
            1 => Some(0),
            _ => Some(self.rng.u64(..40_000)),
        };
        self.note(format!("forced, stale {stale:?}"));
        let asked = stale.map(Duration::from_millis);
        if let Some(stale) = stale
            && self.is_at_the_bound(stale)
        {
            return;
        }
        let newest = self.state.newest.as_ref().map(|newest| newest.owner);
        let by = By::of_a_test();
        let call = requests::force_release(&self.key, asked, &by);
        let answer = self.server.ask(&call);
        let found = reply::forced(&answer).unwrap();
        let decided = self.decide(|state, now, wires| {
            state.force_release(
                stale.map(|stale| stale * MILLI),
                (*by).clone(),
                now,
                &TIMING,
                wires,
            )
        });
        self.same("forced", &decided, &found);
        if let Some(owner) = newest.filter(|_| decided) {
            self.retire(OwnerId::from_u128(owner));
        }
    }

    /// An owner id belongs to one acquisition (rule R6): it is not drawn again after its end.
    fn retire(&mut self, owner: OwnerId) {
        if let Some(at) = self.owners.iter().position(|known| known.0 == owner) {
            self.owners[at] = self.new_owner();
        }
    }

    /// Where a real clock may decide either way; or where the expiry does not tell the age of the
    /// last heartbeat.
    fn is_at_the_bound(&self, stale: u64) -> bool {
        let Some(newest) = &self.state.newest else {
            return false;
        };
        let age = (self.now.at - newest.heartbeat_at) / MILLI;
        let slack = self.server.slack();
        let half = newest.term(&TIMING) / MILLI / 2;
        self.is_cut || slack > 0 && age.abs_diff(stale.max(half)) <= slack
    }

    /// Mostly the holder, or a waiter.
    fn an_owner(&mut self, which: usize) -> OwnerId {
        let newest = self.state.newest.as_ref().map(|newest| newest.owner);
        match (self.rng.u32(..3), newest) {
            (0 | 1, Some(owner)) => OwnerId::from_u128(owner),
            _ => self.owners[which].0,
        }
    }

    fn process_of(&mut self, owner: OwnerId) -> usize {
        let known = self.owners.iter().find(|known| known.0 == owner);
        known.map_or_else(|| self.rng.usize(..PROCESSES), |known| known.1)
    }

    /// The request, mostly by itself, else in a call with those of other locks; and its place
    /// among them.
    fn among_others<T>(
        &mut self,
        request: T,
        mut other: impl FnMut(&mut Self, Key) -> T,
    ) -> (Vec<T>, usize) {
        let others = match self.rng.u32(..3) {
            0 => self.rng.usize(1..=OTHERS),
            _ => 0,
        };
        let mut all: Vec<T> = Vec::new();
        for number in 0..others {
            let key = Key::of("QUEUE:", "others", Some(&number.to_string())).unwrap();
            all.push(other(self, key));
        }
        let at = self.rng.usize(..=others);
        all.insert(at, request);
        (all, at)
    }

    /// The answer for the lock at that place, of a script that answers for each.
    fn answer(&mut self, call: &ScriptCall, at: usize, count: usize) -> Value {
        match self.server.ask(call) {
            answer if count == 1 => answer,
            Value::Array(mut answers) if answers.len() == count => answers.swap_remove(at),
            other => panic!("{other:?}\n{}", self.story()),
        }
    }

    /// The server's data is what the state says.
    fn compare(&mut self) {
        let answer = self.server.ask(&requests::inspect(&self.key));
        let found = reply::inspection(&self.key, &answer).unwrap();
        self.same_holder(found.holder.as_ref());
        let expected = view::inspection(&self.state, self.now).last;
        self.same_last(expected.as_ref(), found.last.as_ref());
        let expected = view::inspection(&self.state, self.now).success;
        self.same_last(expected.as_ref(), found.success.as_ref());
        self.same_phase();
        self.same_tick();
        self.same_queue();
    }

    fn same_holder(&mut self, found: Option<&LockInfo>) {
        let expected = view::inspection(&self.state, self.now).holder;
        let shown = |info: &LockInfo| {
            (
                info.owner_id().to_owned(),
                info.fencing_token(),
                info.instance_id().to_owned(),
                info.pid(),
                info.acquired_at(),
                info.ttl(),
                info.waiters(),
            )
        };
        self.same("holder", &expected.as_ref().map(shown), &found.map(shown));
        let (Some(expected), Some(found)) = (expected, found) else {
            return;
        };
        self.near("time left", expected.remaining(), found.remaining());
        if !self.is_cut {
            self.near(
                "last heartbeat",
                expected.heartbeat_age(),
                found.heartbeat_age(),
            );
        }
    }

    fn same_last(&mut self, expected: Option<&LastHolding>, found: Option<&LastHolding>) {
        let shown = |last: &LastHolding| {
            (
                last.owner_id.clone(),
                last.instance_id.clone(),
                last.pid,
                last.fencing_token,
                last.from,
                last.ending,
                last.forced_by.clone(),
            )
        };
        self.same("last holding", &expected.map(shown), &found.map(shown));
        let (Some(expected), Some(found)) = (expected, found) else {
            return;
        };
        let newest = self.state.newest.as_ref().map(|newest| newest.token);
        // Of a key that was evicted the fence knows nothing; and that a lease has run out is
        // told by the fence's own time left, which counts a claim as a lease.
        let is_newest = newest == Some(expected.fencing_token);
        let is_cut = if is_newest {
            self.is_cut
        } else {
            self.is_success_cut
        };
        if expected.ending != Ending::Expired && !is_cut {
            let since = |end: Option<SystemTime>| end?.duration_since(UNIX_EPOCH).ok();
            self.near("its end", since(expected.until), since(found.until));
        }
    }

    /// Held, claimed or kept: as the lock's own text says.
    fn same_phase(&mut self) {
        const AWAITED: &str = "\"state\":\"awaited\",  ";
        let key = self.key.lock.to_string();
        let found = match self.server.command(&["GET", &key]) {
            Value::BulkString(bytes) => String::from_utf8(bytes).unwrap(),
            Value::Nil => String::new(),
            other => panic!("{other:?}"),
        };
        let newest = self.state.newest.as_ref();
        let expected = match newest.filter(|newest| newest.is_taken(self.now)) {
            None => String::new(),
            Some(newest) => {
                let owner = OwnerId::from_u128(newest.owner).simple().to_string();
                let state = match newest.phase {
                    Phase::Kept => "\"state\":\"kept\",     ",
                    Phase::Claimed => "\"state\":\"claimed\",  ",
                    _ if found.contains(AWAITED) => AWAITED,
                    // A release that finds this asks no queue.
                    _ if !self.state.queue.is_empty() => "(held, though requests wait)",
                    _ => "\"state\":\"held\",     ",
                };
                let (token, since) = (newest.token, newest.acquired.micros / 1_000);
                let since = match newest.token == newest.acquired.micros {
                    true => String::new(),
                    false => format!(",\"acquired_at\":{since}"),
                };
                format!("{{\"applock\":1,{state}\"owner\":\"{owner}\",\"token\":{token}{since}}}")
            }
        };
        // Without what stands between.
        let found = match (
            found.split_once(",\"ttl\":"),
            found.split_once(",\"token\":"),
        ) {
            (Some((beginning, _)), Some((_, end))) => format!("{beginning},\"token\":{end}"),
            _ => found,
        };
        self.same("state", &expected, &found);
    }

    /// What ticks need, and the last one that was begun: the third line of the fence.
    fn same_tick(&mut self) {
        let fence = format!("{{{}}}:fence", self.key.lock);
        let text: Option<String> =
            redis::from_redis_value(self.server.command(&["GET", &fence])).unwrap();
        let found = text.as_deref().and_then(|text| text.lines().nth(2));
        let newest = self.state.remembered(self.now);
        let expected = newest
            .filter(|newest| newest.ticks_remember > 0)
            .map(|newest| {
                let remember = newest.ticks_remember / MILLI;
                let tick = newest
                    .tick
                    .map(|Begun { number, token }| format!(",\"tick\":{number},\"token\":{token}"));
                format!("{{\"remember\":{remember}{}}}", tick.unwrap_or_default())
            });
        self.same("tick", &expected.as_deref(), &found);
    }

    fn same_queue(&mut self) {
        let queue = format!("{{{}}}:queue", self.key.lock);
        let words = ["ZRANGE", &queue, "0", "-1", "WITHSCORES"];
        let found: Vec<String> = redis::from_redis_value(self.server.command(&words)).unwrap();
        let mut expected = Vec::new();
        if self.state.waiters(self.now) > 0 {
            for (ticket, owner) in self.state.queue.waiters.keys() {
                expected.push(OwnerId::from_u128(*owner).simple().to_string());
                expected.push(ticket.to_string());
            }
        }
        self.same("queue", &expected, &found);
        // What the server keeps beside it: nothing for a waiter or a process that has gone.
        let waiters = format!("{{{}}}:waiters", self.key.lock);
        let found: usize =
            redis::from_redis_value(self.server.command(&["HLEN", &waiters])).unwrap();
        let queue = &self.state.queue;
        let expected = match self.now.at < queue.expires_at {
            true => queue.len() + 2 * queue.processes.len() + usize::from(queue.claimed.is_some()),
            false => 0,
        };
        self.same("fields beside the queue", &expected, &found);
    }

    fn near(&mut self, what: &str, expected: Option<Duration>, found: Option<Duration>) {
        let slack = Duration::from_millis(self.server.slack());
        let is_near = match (expected, found) {
            (Some(expected), Some(found)) => expected.abs_diff(found) <= slack,
            (expected, found) => expected == found,
        };
        if !is_near {
            self.differ(what, &expected, &found);
        }
    }

    fn same<T: PartialEq + std::fmt::Debug>(&mut self, what: &str, expected: &T, found: &T) {
        if expected != found {
            self.differ(what, expected, found);
        }
    }

    fn differ(&self, what: &str, expected: &dyn std::fmt::Debug, found: &dyn std::fmt::Debug) {
        panic!(
            "{what}: the protocol says {expected:?}, the scripts say {found:?}\n{}",
            self.story()
        );
    }

    /// The last steps.
    fn story(&self) -> String {
        let mut story = String::new();
        let from = self.history.len().saturating_sub(40);
        for step in &self.history[from..] {
            let _ = writeln!(story, "  {step}");
        }
        story
    }
}

fn grant(granted: &Granted) -> Grant {
    Grant {
        owner: OwnerId::from_u128(granted.owner),
        token: granted.token,
        at: view::unix(granted.acquired.micros / 1_000 * 1_000),
        micros: granted.acquired.micros,
        claim: Duration::from_nanos(granted.claim),
        needs_proof: false,
    }
}

/// Steps of a seed.
const STEPS: usize = 1_500;

fn check(seed: u64) {
    eprintln!(
        "replay: {}={seed} cargo test -p applock-runtime scripts -- --nocapture",
        super::VARIABLE
    );
    Pair::new(Simulated::new(), seed).run(STEPS);
}

/// As the requests' callers have them: one by one.
fn each<Q>(all: &[Q]) -> Vec<&Q> {
    all.iter().collect()
}

fn seeds(all: std::ops::Range<u64>) {
    match super::asked_seed() {
        Some(seed) if all.start == 0 => check(seed),
        Some(_) => {}
        None => all.for_each(check),
    }
}

/// A batch may hold several requests for one lock: of callers of one process.
#[test]
fn of_requests_for_one_lock_in_a_call_the_first_is_granted_it() {
    let mut pair = Pair::new(Simulated::new(), 0);
    pair.begin();
    let request = |number: u128| Acquire {
        key: pair.key.clone(),
        owner: OwnerId::from_u128(number),
        ttl: Duration::from_secs(60),
        remember: Duration::from_secs(3_600),
        due: None,
        identity: Arc::clone(&pair.peers[0].identity),
        notifications: None,
        ticket: None,
    };
    let end = |number: u128| Release {
        key: pair.key.clone(),
        owner: OwnerId::from_u128(number),
        token: None,
        outcome: Outcome::Released,
        remember: Duration::from_secs(3_600),
        keep: None,
    };
    for round in 0..2 {
        let call = requests::acquire(&[&request(1), &request(2), &request(1)], "applock:0", None);
        let ends = requests::release(&[&end(2), &end(1), &end(1)], "applock:0");
        let answers: Vec<Value> = redis::from_redis_value(pair.server.ask(&call)).unwrap();
        let read = |answer: &Value| match reply::acquired(&pair.key, answer, false).unwrap() {
            Acquired::Granted { token, .. } => Some(token),
            _ => None,
        };
        let tokens: Vec<Option<u64>> = answers.iter().map(read).collect();
        assert!(tokens[0].is_some(), "{round}");
        assert_eq!(tokens, [tokens[0], None, tokens[0]], "{round}");
        let answers: Vec<Value> = redis::from_redis_value(pair.server.ask(&ends)).unwrap();
        assert_eq!(
            answers,
            [Value::Int(0), Value::Int(1), Value::Int(0)],
            "{round}"
        );
        pair.server.pass(10);
        pair.server.begin();
    }
}

#[test]
fn the_scripts_decide_as_the_protocol_does_1() {
    seeds(0..14);
}

#[test]
fn the_scripts_decide_as_the_protocol_does_2() {
    seeds(14..28);
}
