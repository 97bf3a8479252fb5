//! Other processes: this very binary, started again to play a part.

use std::env;
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, SystemTime};

use applock::{AppLocker, Error, Lock};
use rustix::process::{Pid, Signal, kill_process};

use crate::asking::runtime;
use crate::store::{Place, SOON};

const PART: &str = "APPLOCK_CONFORMANCE_PART";
const STORE: &str = "APPLOCK_CONFORMANCE_STORE";
const PREFIX: &str = "APPLOCK_CONFORMANCE_PREFIX";
const TTL: &str = "APPLOCK_CONFORMANCE_TTL";

/// What tells our lines from those of the test harness.
const MARK: &str = "> ";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// Takes `app`, says `held TOKEN`, releases it on `release`.
    Hold,
    /// The same, for a name that a locale might change.
    HoldTitle,
    /// Says `ready`, tries `app` on `go`, says `won` or `busy`; keeps it until its end.
    Race,
    /// Says `ready`, waits for `app` on `wait`, says `held TOKEN`, releases it on `release`.
    Wait,
    /// Holds `app` until SIGTERM, and shuts down then, as a service does.
    Serve,
    /// Holds `app`, and starts a process of its own that outlives it: says its id.
    Parent,
    /// Holds `app`, and makes effects all the time, each after a check: says `did WHEN`,
    /// until it says `refused: WHY`.
    Work,
}

const PARTS: [(&str, Part); 7] = [
    ("hold", Part::Hold),
    ("title", Part::HoldTitle),
    ("race", Part::Race),
    ("wait", Part::Wait),
    ("serve", Part::Serve),
    ("parent", Part::Parent),
    ("work", Part::Work),
];

pub(crate) struct Child {
    process: std::process::Child,
    to: ChildStdin,
    from: Receiver<String>,
}

impl Child {
    pub(crate) fn start(place: &dyn Place, part: Part, ttl: Duration) -> Self {
        Self::start_with(place, part, ttl, &[])
    }

    pub(crate) fn start_with(
        place: &dyn Place,
        part: Part,
        ttl: Duration,
        environment: &[(&str, &str)],
    ) -> Self {
        let name = PARTS.iter().find(|(_, known)| *known == part).unwrap().0;
        let mut process = Command::new(env::current_exe().unwrap())
            .args(["--exact", "children::a_part_is_played", "--nocapture"])
            .args(["--test-threads", "1"])
            .env(PART, name)
            .env(STORE, place.url())
            .env(PREFIX, place.prefix())
            .env(TTL, ttl.as_millis().to_string())
            .envs(environment.iter().copied())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let to = process.stdin.take().unwrap();
        let out = BufReader::new(process.stdout.take().unwrap());
        let (line, from) = channel();
        thread::spawn(move || {
            for heard in out.lines().map_while(Result::ok) {
                // The harness's own words may stand before ours on the same line.
                if let Some((_, said)) = heard.split_once(MARK) {
                    let _ = line.send(said.to_owned());
                }
            }
        });
        Self { process, to, from }
    }

    /// The next that it says.
    #[track_caller]
    pub(crate) fn hear(&mut self) -> String {
        match self.from.recv_timeout(SOON) {
            Ok(said) => said,
            Err(error) => panic!("nothing from the other process: {error}"),
        }
    }

    #[track_caller]
    pub(crate) fn hears(&mut self, expected: &str) {
        assert_eq!(self.hear(), expected);
    }

    #[track_caller]
    pub(crate) fn say(&mut self, line: &str) {
        writeln!(self.to, "{line}").unwrap();
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.id()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.process), signal).unwrap();
    }

    /// Waits for its end.
    pub(crate) fn wait(&mut self) -> std::process::ExitStatus {
        self.process.wait().unwrap()
    }

    /// SIGKILL: it is gone when this returns.
    pub(crate) fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The time that two processes can compare.
pub(crate) fn micros_now() -> u128 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.unwrap().as_micros()
}

fn say(line: impl std::fmt::Display) {
    println!("{MARK}{line}");
}

fn heard() -> Option<String> {
    let mut line = String::new();
    let length = std::io::stdin().read_line(&mut line).unwrap();
    (length > 0).then(|| line.trim_end().to_owned())
}

/// In the run of the suite itself there is no part to play.
#[test]
fn a_part_is_played() {
    let Ok(part) = env::var(PART) else {
        return;
    };
    let part = PARTS.iter().find(|(known, _)| *known == part).unwrap().1;
    let ttl = Duration::from_millis(env::var(TTL).unwrap().parse().unwrap());
    let locker = AppLocker::builder()
        .store(env::var(STORE).unwrap())
        .key_prefix(env::var(PREFIX).unwrap())
        .build()
        .unwrap();
    let lock = locker.lock("app").ttl(ttl);
    match part {
        Part::Hold => hold(&lock),
        Part::HoldTitle => hold(&lock.name("TITLE iıIİ")),
        Part::Race => race(&lock),
        Part::Wait => {
            say("ready");
            assert_eq!(heard().as_deref(), Some("wait"));
            hold(&lock.wait_forever());
        }
        Part::Serve => serve(&locker, &lock),
        Part::Parent => parent(&lock),
        Part::Work => work(&lock),
    }
}

fn hold(lock: &Lock) {
    let guard = lock.acquire_blocking().unwrap();
    say(format_args!("held {}", guard.fencing_token()));
    if heard().as_deref() == Some("release") {
        guard.release_blocking().unwrap();
        say("released");
        heard();
    }
}

fn race(lock: &Lock) {
    // So that the race is for the lock, and not for the connection.
    lock.info_blocking().unwrap();
    say("ready");
    assert_eq!(heard().as_deref(), Some("go"));
    let mut result = lock.acquire_blocking();
    while matches!(result, Err(Error::Unavailable(_))) {
        // The lock may be ours without our knowledge, until that is undone.
        let again = lock.clone().wait(Duration::from_secs(5));
        result = again.acquire_blocking();
    }
    match &result {
        Ok(_) => say("won"),
        Err(Error::Busy(_)) => say("busy"),
        Err(error) => say(error),
    }
    heard();
}

fn serve(locker: &AppLocker, lock: &Lock) {
    runtime().block_on(async {
        use tokio::signal::unix::{SignalKind, signal};
        let mut end = signal(SignalKind::terminate()).unwrap();
        let guard = lock.acquire().await.unwrap();
        say(format_args!("held {}", guard.fencing_token()));
        end.recv().await;
        let shutdown = locker.shutdown(Duration::from_secs(10));
        let stopped = async {
            guard.lost().await;
            drop(guard);
        };
        tokio::join!(stopped, async { shutdown.await.unwrap() });
        say("shut down");
    });
}

fn parent(lock: &Lock) {
    let guard = lock.acquire_blocking().unwrap();
    let mut child = Command::new("sleep")
        .arg("60")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    say(format_args!("held {}", guard.fencing_token()));
    say(child.id());
    heard();
    drop(guard);
    let _ = child.kill();
    let _ = child.wait();
}

fn work(lock: &Lock) {
    let guard = lock.acquire_blocking().unwrap();
    say(format_args!("held {}", guard.fencing_token()));
    loop {
        match guard.ensure_held() {
            Ok(()) => say(format_args!("did {}", micros_now())),
            Err(error) => {
                say(format_args!("refused: {error}"));
                break;
            }
        }
        thread::sleep(Duration::from_millis(5));
    }
    heard();
}
