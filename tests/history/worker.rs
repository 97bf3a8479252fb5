//! What one of the processes does: four workers that take locks, count under them, and
//! tell all of it.

use std::io::BufRead as _;
use std::path::Path;
use std::sync::{Condvar, Mutex};
use std::time::Duration;

use applock::{AppLocker, Error, LockGuard};
use fastrand::Rng;

use crate::record::{Event, Outcome, Release, What, now};
use crate::resource::Client;
use crate::support::child;
use crate::{KEYS, TIME_OUT, TTL, lock_of};

const WORKERS: u64 = 4;

/// How a process learns what it is: in one line of text.
pub struct Part<'a> {
    pub url: &'a str,
    pub resource: &'a Path,
    /// Counts the processes, so that no two operations have one number.
    pub process: u64,
    pub seed: u64,
}

impl Part<'_> {
    pub fn text(&self) -> String {
        let resource = self.resource.display();
        format!("{} {resource} {} {}", self.url, self.process, self.seed)
    }

    fn parse(text: &str) -> Part<'_> {
        let words: Vec<&str> = text.split(' ').collect();
        let [url, resource, process, seed] = words[..] else {
            panic!("no part to play: {text:?}");
        };
        Part {
            url,
            resource: Path::new(resource),
            process: process.parse().expect("a number"),
            seed: seed.parse().expect("a number"),
        }
    }
}

/// What a process says once all of its workers stand still.
pub const PAUSED: &str = "paused";

/// What the parent says.
pub const PAUSE: &str = "pause";
pub const GO_ON: &str = "go on";
/// ... with a key: one more worker takes that lock, and stays while its guard says that it is held.
pub const TAKE: &str = "take ";

/// What its lease is, and how long it stays at the longest.
const LONG: Duration = Duration::from_secs(3);
const STAYS: Duration = Duration::from_secs(4);

/// Whether an operation is of the worker that takes what it is told to.
pub fn is_told(op: u64) -> bool {
    op >> 32 & 0xFF == WORKERS
}

/// Works until the parent hangs up.
pub fn run(part: &str) {
    let part = Part::parse(part);
    // Not `connect`: the server may be down just now.
    let locker = AppLocker::builder()
        .store(part.url)
        .ttl(TTL)
        .command_timeout(TIME_OUT)
        .build()
        .expect("a locker");
    let gate = Gate::default();
    let worker = |number| {
        let id = part.process << 8 | number;
        Worker {
            locker: locker.clone(),
            resource: Client::connect(part.resource),
            random: Rng::with_seed(part.seed ^ id),
            op: id << 32,
        }
    };
    std::thread::scope(|scope| {
        for number in 0..WORKERS {
            let mut worker = worker(number);
            let gate = &gate;
            scope.spawn(move || {
                while gate.is_open() {
                    worker.attempt();
                }
            });
        }
        gate.listen(worker(WORKERS));
    });
}

#[derive(Clone, Copy, PartialEq, Eq, Default)]
enum Wanted {
    #[default]
    Work,
    Pause,
    End,
}

/// Where the workers stand still between two attempts, when they are to.
#[derive(Default)]
struct Gate {
    state: Mutex<(Wanted, u64)>,
    changed: Condvar,
}

impl Gate {
    fn listen(&self, mut told: Worker) {
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            match (line.as_str(), line.strip_prefix(TAKE)) {
                (PAUSE, _) => self.set(Wanted::Pause),
                (GO_ON, _) => self.set(Wanted::Work),
                (_, Some(key)) => told.take(key.parse().expect("a number")),
                other => panic!("what is {other:?}?"),
            }
        }
        self.set(Wanted::End);
    }

    fn set(&self, wanted: Wanted) {
        let mut state = self.state.lock().expect("the gate");
        state.0 = wanted;
        // They may not have noticed that they might have gone on.
        if wanted == Wanted::Pause && state.1 == WORKERS {
            child::say(PAUSED);
        }
        drop(state);
        self.changed.notify_all();
    }

    fn is_open(&self) -> bool {
        let mut state = self.state.lock().expect("the gate");
        if state.0 == Wanted::Pause {
            state.1 += 1;
            if state.1 == WORKERS {
                child::say(PAUSED);
            }
            state = self
                .changed
                .wait_while(state, |state| state.0 == Wanted::Pause)
                .expect("the gate");
            state.1 -= 1;
        }
        state.0 == Wanted::Work
    }
}

struct Worker {
    locker: AppLocker,
    resource: Client,
    random: Rng,
    op: u64,
}

impl Worker {
    fn say(&self, at: u64, what: What) {
        let event = Event {
            op: self.op,
            at,
            what,
        };
        child::say(event);
    }

    fn pause(&mut self, longest_ms: u64) {
        std::thread::sleep(Duration::from_millis(self.random.u64(0..=longest_ms)));
    }

    fn attempt(&mut self) {
        self.pause(30);
        self.op += 1;
        let key = self.random.usize(0..KEYS);
        let mut lock = self.locker.lock(lock_of(key));
        let waits = self.random.u8(0..4) == 0;
        if waits {
            // Shorter than a command's time-out: what took longer has met a fault.
            let longest = TIME_OUT.mul_f64(0.8 * self.random.f64());
            lock = lock.wait(longest);
        }
        self.say(now(), What::Acquiring { key, waits });
        let outcome = lock.acquire_blocking();
        let end = now();
        match outcome {
            Ok(guard) => {
                let token = guard.fencing_token();
                self.say(end, What::Outcome(Outcome::Acquired(token)));
                self.hold(key, guard);
            }
            Err(Error::Busy(_)) => self.say(end, What::Outcome(Outcome::Busy)),
            Err(Error::Unavailable(_)) => {
                self.say(end, What::Outcome(Outcome::Unknown));
                self.pause(150);
            }
            Err(other) => panic!("not among what may happen: {other}"),
        }
    }

    /// Whether the guard says that it is held. The time is taken first: it was held then,
    /// whatever happened between the two.
    fn checks(&self, guard: &LockGuard) -> bool {
        let at = now();
        let held = guard.is_held();
        if held {
            self.say(at, What::Held);
        }
        held
    }

    fn hold(&mut self, key: usize, guard: LockGuard) {
        self.checks(&guard);
        let token = guard.fencing_token();
        let value = self.resource.under(key, token).read();
        // Now and then it works on, though the lock was lost: the resource must see to
        // that.
        let careless = self.random.bool();
        let mut held = self.stay(&guard);
        if let Some(value) = value
            && (held || careless)
        {
            self.say(now(), What::Writing);
            let taken = self.resource.write(value + 1);
            self.say(now(), What::Written(taken));
            held = self.checks(&guard);
        }
        if held && careless {
            self.stay(&guard);
        }
        self.release(guard);
    }

    /// As it is told, and not at random.
    fn take(&mut self, key: usize) {
        self.op += 1;
        let waits = false;
        self.say(now(), What::Acquiring { key, waits });
        let outcome = self.locker.lock(lock_of(key)).ttl(LONG).acquire_blocking();
        let end = now();
        match outcome {
            Ok(guard) => {
                let token = guard.fencing_token();
                self.say(end, What::Outcome(Outcome::Acquired(token)));
                self.stay_for(&guard, STAYS);
                self.release(guard);
            }
            Err(Error::Busy(_)) => self.say(end, What::Outcome(Outcome::Busy)),
            Err(Error::Unavailable(_)) => self.say(end, What::Outcome(Outcome::Unknown)),
            Err(other) => panic!("not among what may happen: {other}"),
        }
    }

    fn release(&self, guard: LockGuard) {
        self.say(now(), What::Releasing);
        let released = guard.release_blocking();
        let how = match released {
            Ok(()) => Release::Released,
            Err(Error::NotHeld { .. }) => Release::NotHeld,
            Err(Error::Lost { .. }) => Release::Lost,
            Err(Error::Unavailable(_)) => Release::Unknown,
            Err(other) => panic!("not among what may happen: {other}"),
        };
        self.say(now(), What::Release(how));
    }

    /// Stays for a while, mostly a short one, and checks the guard meanwhile.
    fn stay(&mut self, guard: &LockGuard) -> bool {
        let longest = match self.random.u8(0..25) {
            0 => 2_500,
            _ => 25,
        };
        let stay = Duration::from_millis(self.random.u64(0..=longest));
        self.stay_for(guard, stay)
    }

    fn stay_for(&self, guard: &LockGuard, stay: Duration) -> bool {
        let end = now() + u64::try_from(stay.as_nanos()).expect("it is short");
        let mut held = self.checks(guard);
        while held && now() < end {
            std::thread::sleep(Duration::from_millis(5));
            held = self.checks(guard);
        }
        held
    }
}
