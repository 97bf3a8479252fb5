//! The world that the workers live in, and what befalls it.

use std::collections::BTreeMap;
use std::time::Duration;

use fastrand::Rng;

use crate::record::{Event, Record};
use crate::resource::Resource;
use crate::support::child::ChildProcess;
use crate::support::redis::RedisServer;
use crate::worker::{GO_ON, PAUSE, PAUSED, Part};
use crate::{PROCESSES, TTL};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    ServerFrozen,
    ServerKilled,
    /// Of the process in that place.
    ProcessFrozen(usize),
    ProcessKilled(usize),
}

pub const KINDS: usize = 4;

impl Fault {
    fn draw(kind: usize, random: &mut Rng) -> Self {
        let place = random.usize(0..PROCESSES);
        match kind {
            0 => Self::ServerFrozen,
            1 => Self::ServerKilled,
            2 => Self::ProcessFrozen(place),
            _ => Self::ProcessKilled(place),
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::ServerFrozen => "server frozen",
            Self::ServerKilled => "server killed",
            Self::ProcessFrozen(_) => "process frozen",
            Self::ProcessKilled(_) => "process killed",
        }
    }

    /// What it befalls; nothing is hit twice at a time.
    fn target(self) -> Option<usize> {
        match self {
            Self::ServerFrozen | Self::ServerKilled => None,
            Self::ProcessFrozen(place) | Self::ProcessKilled(place) => Some(place),
        }
    }

    /// How long it lasts. Of those that stand still, most do so for longer than a lease.
    fn length(self, random: &mut Rng) -> Duration {
        TTL.mul_f64(match self {
            Self::ServerFrozen => 0.1 + 1.7 * random.f64(),
            Self::ServerKilled => 1.5 * random.f64(),
            Self::ProcessFrozen(_) => 0.6 + 1.6 * random.f64(),
            Self::ProcessKilled(_) => 0.5 * random.f64(),
        })
    }
}

pub struct World {
    server: RedisServer,
    pub resource: Resource,
    processes: Vec<Option<ChildProcess>>,
    started: u64,
    test: &'static str,
    seed: u64,
    random: Rng,
    deck: Vec<usize>,
    record: Record,
    pub befell: BTreeMap<&'static str, u32>,
}

impl World {
    /// With workers, who play their part in the test of that name.
    pub fn new(test: &'static str, keys: usize, seed: u64) -> Self {
        let mut world = Self {
            server: RedisServer::durable(),
            resource: Resource::serve(keys),
            processes: Vec::new(),
            started: 0,
            test,
            seed,
            random: Rng::with_seed(seed),
            deck: Vec::new(),
            record: Record::default(),
            befell: BTreeMap::new(),
        };
        for _ in 0..PROCESSES {
            let process = world.start();
            world.processes.push(Some(process));
        }
        world
    }

    pub fn url(&self) -> String {
        self.server.url()
    }

    fn start(&mut self) -> ChildProcess {
        self.started += 1;
        let part = Part {
            url: &self.server.url(),
            resource: self.resource.path(),
            process: self.started,
            seed: self.seed,
        };
        ChildProcess::start(self.test, &part.text())
    }

    fn process(&mut self, place: usize) -> &mut ChildProcess {
        self.processes[place].as_mut().expect("it lives")
    }

    /// One fault, or two of which the second begins and ends while the first lasts or
    /// just after it, and a calm after them. All is well again at the end.
    pub fn suffer(&mut self) {
        if self.deck.is_empty() {
            self.deck.extend(0..KINDS);
            self.random.shuffle(&mut self.deck);
        }
        let kind = self.deck.pop().expect("a card");
        let first = Fault::draw(kind, &mut self.random);
        let second = Fault::draw(self.random.usize(0..KINDS), &mut self.random);
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

    fn pass(&mut self, fault: Fault) {
        std::thread::sleep(fault.length(&mut self.random));
    }

    fn begin(&mut self, fault: Fault) {
        *self.befell.entry(fault.name()).or_default() += 1;
        match fault {
            Fault::ServerFrozen => self.server.freeze(),
            Fault::ServerKilled => self.server.kill(),
            Fault::ProcessFrozen(place) => self.process(place).freeze(),
            Fault::ProcessKilled(place) => {
                let process = self.processes[place].take().expect("it lives");
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
        match fault {
            Fault::ServerFrozen => self.server.thaw(),
            Fault::ServerKilled => self.server.restart(),
            Fault::ProcessFrozen(place) => self.process(place).thaw(),
            Fault::ProcessKilled(place) => self.processes[place] = Some(self.start()),
        }
    }

    fn heard(&mut self, line: &str) {
        let event = Event::parse(line).unwrap_or_else(|| panic!("what is {line:?}?"));
        self.record.add(event);
    }

    /// Lets the workers end what they are at, and stand still; what they did until then.
    pub fn pause(&mut self) -> Record {
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
        std::mem::take(&mut self.record)
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
