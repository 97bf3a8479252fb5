//! The world that the workers live in, and what befalls it.

use std::collections::BTreeMap;
use std::time::Duration;

use fastrand::Rng;

use crate::record::{Event, Record, What, now};
use crate::resource::Resource;
use crate::servers::{Servers, until_all_know};
use crate::support::child::ChildProcess;
use crate::worker::{GO_ON, PAUSE, PAUSED, Part, TAKE, is_told};
use crate::{KEYS, PROCESSES, TIME_OUT, TTL};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    ServerFrozen,
    ServerKilled,
    /// Of a shard, whose replica takes over.
    MasterKilled,
    /// As planned: of a shard, or by sentinels.
    FailedOver,
    ProcessFrozen,
    ProcessKilled,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::ServerFrozen => "server frozen",
            Self::ServerKilled => "server killed",
            Self::MasterKilled => "master killed",
            Self::FailedOver => "failed over",
            Self::ProcessFrozen => "process frozen",
            Self::ProcessKilled => "process killed",
        }
    }
}

#[derive(Clone, Copy, Debug)]
pub struct Fault {
    kind: Kind,
    /// Of the process that it befalls, if it does.
    place: usize,
}

impl Fault {
    fn draw(kind: Kind, random: &mut Rng) -> Self {
        let place = random.usize(0..PROCESSES);
        Self { kind, place }
    }

    /// What it befalls; nothing is hit twice at a time.
    fn target(self) -> Option<usize> {
        match self.kind {
            Kind::ProcessFrozen | Kind::ProcessKilled => Some(self.place),
            Kind::ServerFrozen | Kind::ServerKilled | Kind::MasterKilled | Kind::FailedOver => None,
        }
    }

    /// How long it lasts. Of those that stand still, most do so for longer than a lease.
    fn length(self, random: &mut Rng) -> Duration {
        TTL.mul_f64(match self.kind {
            Kind::ServerFrozen => 0.1 + 1.7 * random.f64(),
            Kind::ServerKilled => 1.5 * random.f64(),
            Kind::MasterKilled | Kind::FailedOver => 1.5 * random.f64(),
            Kind::ProcessFrozen => 0.6 + 1.6 * random.f64(),
            Kind::ProcessKilled => 0.5 * random.f64(),
        })
    }
}

pub struct World {
    pub servers: Servers,
    pub resource: Resource,
    processes: Vec<Option<ChildProcess>>,
    started: u64,
    test: &'static str,
    seed: u64,
    random: Rng,
    deck: Vec<Kind>,
    record: Record,
    /// Since the last pause: when other servers came to serve.
    switches: Vec<(u64, u64)>,
    pub befell: BTreeMap<&'static str, u32>,
}

impl World {
    /// With workers, who play their part in the test of that name.
    pub fn new(servers: Servers, test: &'static str, keys: usize, seed: u64) -> Self {
        let mut world = Self {
            servers,
            resource: Resource::serve(keys),
            processes: Vec::new(),
            started: 0,
            test,
            seed,
            random: Rng::with_seed(seed),
            deck: Vec::new(),
            record: Record::default(),
            switches: Vec::new(),
            befell: BTreeMap::new(),
        };
        for _ in 0..PROCESSES {
            let process = world.start();
            world.processes.push(Some(process));
        }
        world
    }

    pub fn url(&self) -> String {
        self.servers.url()
    }

    fn start(&mut self) -> ChildProcess {
        self.started += 1;
        let part = Part {
            url: &self.url(),
            resource: self.resource.path(),
            process: self.started,
            seed: self.seed,
        };
        ChildProcess::start(self.test, &part.text())
    }

    pub fn process(&mut self, place: usize) -> &mut ChildProcess {
        self.processes[place].as_mut().expect("it lives")
    }

    /// One fault, or two of which the second begins and ends while the first lasts or
    /// just after it, and a calm after them. All is well again at the end.
    pub fn suffer(&mut self) {
        if self.deck.is_empty() {
            self.deck.extend(self.servers.kinds());
            self.random.shuffle(&mut self.deck);
        }
        let kind = self.deck.pop().expect("a card");
        let first = Fault::draw(kind, &mut self.random);
        let kinds = self.servers.kinds();
        let kind = kinds[self.random.usize(0..kinds.len())];
        let second = Fault::draw(kind, &mut self.random);
        let both = self.random.u8(0..3) == 0 && second.target() != first.target();
        self.begin(first);
        self.pass(first);
        if both {
            self.begin(second);
            self.pass(second);
        }
        self.end(first);
        if both {
            self.end(second);
        }
        let calm = TTL.mul_f64(0.2 + self.random.f64());
        std::thread::sleep(calm);
    }

    /// Whether each kind of fault has befallen it as often as any other, but for those that came
    /// in pairs.
    pub fn is_even(&self) -> bool {
        self.deck.is_empty()
    }

    fn pass(&mut self, fault: Fault) {
        std::thread::sleep(fault.length(&mut self.random));
    }

    fn begin(&mut self, fault: Fault) {
        *self.befell.entry(fault.kind.name()).or_default() += 1;
        match fault.kind {
            Kind::ServerFrozen => self.servers.one().freeze(),
            Kind::ServerKilled => self.servers.one().kill(),
            Kind::MasterKilled | Kind::FailedOver => {
                let key = self.random.usize(0..KEYS);
                let delay = TTL.mul_f64(self.random.f64());
                let switch = self.servers.switch(fault.kind, key, delay);
                self.switches.push(switch);
            }
            Kind::ProcessFrozen => self.process(fault.place).freeze(),
            Kind::ProcessKilled => {
                let process = self.processes[fault.place].take().expect("it lives");
                let mut words = process.last_words();
                // Of the last line a part may be missing.
                if words
                    .last()
                    .is_some_and(|line| Event::parse(line).is_none())
                {
                    words.pop();
                }
                for line in words {
                    self.heard(&line);
                }
            }
        }
    }

    fn end(&mut self, fault: Fault) {
        match fault.kind {
            Kind::ServerFrozen => self.servers.one().thaw(),
            Kind::ServerKilled => self.servers.one().restart(),
            Kind::MasterKilled | Kind::FailedOver => self.servers.heal(),
            Kind::ProcessFrozen => self.process(fault.place).thaw(),
            Kind::ProcessKilled => self.processes[fault.place] = Some(self.start()),
        }
    }

    /// Has a process take a lock and keep it; waits for the answer.
    pub fn take(&mut self, place: usize, key: usize) {
        self.process(place).tell(&format!("{TAKE}{key}"));
        loop {
            let line = self.process(place).says();
            self.heard(&line);
            let event = Event::parse(&line).expect("it was understood");
            if is_told(event.op) && matches!(event.what, What::Outcome(_)) {
                break;
            }
        }
    }

    /// A lock's master is about to be replaced by a server that gets no writes of it any more.
    /// [`World::switch`] follows.
    pub fn part(&mut self, key: usize) {
        self.switches.push((now(), 0));
        self.servers.part(key);
    }

    /// That server serves the lock, and its old master knows.
    pub fn switch(&mut self, key: usize) {
        self.servers.take_over(key);
        if let Some((_, until)) = self.switches.last_mut() {
            *until = until_all_know();
        }
    }

    /// After so long an acquire may have left something behind: nanoseconds.
    pub fn longest_try(&self) -> u64 {
        let longest = self.servers.longest_try(TIME_OUT);
        u64::try_from(longest.as_nanos()).expect("it is short")
    }

    fn heard(&mut self, line: &str) {
        let event = Event::parse(line).unwrap_or_else(|| panic!("what is {line:?}?"));
        self.record.add(event);
    }

    /// Lets the workers end what they are at, and stand still; what they did until then, and when
    /// other servers came to serve meanwhile.
    pub fn pause(&mut self) -> (Record, Vec<(u64, u64)>) {
        self.still();
        let switches = std::mem::take(&mut self.switches);
        (std::mem::take(&mut self.record), switches)
    }

    /// The same, in the middle of a history.
    pub fn still(&mut self) {
        for place in 0..PROCESSES {
            self.process(place).tell(PAUSE);
        }
        for place in 0..PROCESSES {
            loop {
                let line = self.process(place).says();
                if line == PAUSED {
                    break;
                }
                self.heard(&line);
            }
        }
    }

    pub fn go_on(&mut self) {
        for place in 0..PROCESSES {
            self.process(place).tell(GO_ON);
        }
    }

    /// They end by themselves, in order.
    pub fn dismiss(self) {
        for process in self.processes.into_iter().flatten() {
            process.dismiss();
        }
    }
}
