//! Standing in line for a lock on a real server: who comes after whom is known, and who
//! was served after whom is told by the fencing tokens.

use std::collections::HashMap;
use std::sync::mpsc::{Receiver, channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use applock::{AppLocker, Lock, LockGuard};

use super::child::{self, ChildProcess};
use super::lease::LIMIT;
use super::redis::RedisServer;
use super::steps::{assert_verified, take};
use super::wait;

pub const APP: &str = "line";
pub const KEY: &str = "QUEUE:line";

/// What is handed over within [`LIMIT`] was not left to this.
pub const TTL: Duration = Duration::from_secs(300);

/// How long a grant that nobody has confirmed stays.
pub const CLAIM: Duration = Duration::from_secs(3);

/// A line in which nobody asks any more goes by itself, in milliseconds.
const LINE_LIFE: i64 = 120_000;

/// How long it may take to stand in line.
const SOON: Duration = Duration::from_secs(20);

/// The number that somebody came with, and the fencing token that it was served with.
pub type Served = (usize, u64);

/// The lock that all stand in line for, as they ask for it.
pub fn lock(locker: &AppLocker) -> Lock {
    locker.lock(APP).ttl(TTL).wait(LIMIT)
}

/// So many lockers, each as a process of its own would have it.
pub fn lockers(url: &str, count: usize) -> Vec<AppLocker> {
    (0..count)
        .map(|_| AppLocker::connect_blocking(url).expect("a locker"))
        .collect()
}

/// How many stand in line, as the server has it.
pub fn in_line(server: &RedisServer) -> usize {
    server.run(&format!("ZCARD {{{KEY}}}:queue"))
}

#[track_caller]
pub fn until_in_line(server: &RedisServer, count: usize) {
    let what = format!("{count} stand in line");
    wait::until(&what, SOON, || in_line(server) == count);
}

/// How many connections listen for what the server has to tell.
pub fn listeners(server: &RedisServer) -> usize {
    let list: String = server.run("CLIENT LIST TYPE pubsub");
    list.lines().filter(|line| !line.is_empty()).count()
}

#[track_caller]
pub fn until_listeners(server: &RedisServer, count: usize) {
    let what = format!("{count} connections listen");
    wait::until(&what, SOON, || listeners(server) == count);
}

/// So many processes listen, and the line says so: a grant is told to them, and nobody
/// need ask for it.
#[track_caller]
pub fn until_all_hear(server: &RedisServer, count: usize) {
    until_listeners(server, count);
    wait::until("the line knows who listens", SOON, || {
        let who: HashMap<String, String> = server.run(&format!("HGETALL {{{KEY}}}:waiters"));
        let hears =
            |(field, value): &(&String, &String)| field.starts_with('@') && value.ends_with(" 1");
        who.iter().filter(hears).count() == count
    });
}

/// What is left of the line goes by itself.
#[track_caller]
pub fn assert_the_line_expires(server: &RedisServer) {
    for part in ["queue", "waiters"] {
        let left: i64 = server.run(&format!("PTTL {{{KEY}}}:{part}"));
        // -2: it is gone already.
        assert!(left == -2 || (1..=LINE_LIFE).contains(&left), "{left}");
    }
}

/// Nothing of the line is left at the server: nobody in it, and nothing beside it.
#[track_caller]
pub fn until_nothing_is_left_of_the_line(server: &RedisServer) {
    let mut keys: Vec<String> = Vec::new();
    wait::until("nothing but the lock and its fence is left", LIMIT, || {
        keys = server.run("KEYS *");
        let known = |key: &String| *key == KEY || *key == format!("{{{KEY}}}:fence");
        keys.iter().all(known)
    });
}

/// When it was granted, by the server's clock: a token is the larger of that and of the
/// last token and one.
pub fn granted_at(token: u64) -> Duration {
    Duration::from_micros(token)
}

/// Who holds the lock at the server.
pub fn holder(server: &RedisServer) -> (Option<u32>, Option<u64>) {
    server.run(&format!("HMGET {KEY} pid token"))
}

pub struct Line {
    pub server: RedisServer,
    holder: Option<LockGuard>,
    came: usize,
}

impl Line {
    /// Behind somebody who keeps the lock until the line [`opens`](Self::opens).
    pub fn start() -> Self {
        let server = RedisServer::start();
        let url = server.url();
        Self::at(server, &url)
    }

    /// The same at this server, for a holder who comes by that URL.
    pub fn at(server: RedisServer, url: &str) -> Self {
        let locker = AppLocker::connect_blocking(url).expect("a locker");
        let holder = take(&locker.lock(APP).ttl(TTL));
        Self {
            server,
            holder: Some(holder),
            came: 0,
        }
    }

    /// How many have come.
    pub fn len(&self) -> usize {
        self.came
    }

    /// The next one comes, begun with its number: it stands in line when this returns.
    #[track_caller]
    pub fn comes<T>(&mut self, begin: impl FnOnce(usize) -> T) -> T {
        let before = in_line(&self.server);
        let begun = begin(self.came);
        until_in_line(&self.server, before + 1);
        self.came += 1;
        begun
    }

    /// One that blocks its thread, and lets go as soon as it was served.
    #[track_caller]
    pub fn thread(&mut self, locker: &AppLocker) -> JoinHandle<Served> {
        let lock = lock(locker);
        self.comes(|number| thread::spawn(move || served_blocking(&lock, number)))
    }

    /// One in another process, which [`plays_in_line`].
    #[track_caller]
    pub fn child(&mut self, child: &mut ChildProcess) {
        self.comes(|number| child.tell(&format!("pass {number}")));
    }

    /// One in another process, which keeps the lock until it is told `go`.
    #[track_caller]
    pub fn child_that_stays(&mut self, child: &mut ChildProcess) {
        self.comes(|number| child.tell(&format!("stay {number}")));
    }

    /// The guard of the one who holds the lock.
    pub fn holder(&self) -> &LockGuard {
        self.holder.as_ref().expect("it has not let go yet")
    }

    /// Its holder lets go.
    #[track_caller]
    pub fn opens(&mut self) {
        let holder = self.holder.take().expect("it opens once");
        assert_verified(&holder);
        holder.release_blocking().expect("it was held");
    }
}

/// Waits, is served, and lets go.
pub fn served_blocking(lock: &Lock, number: usize) -> Served {
    let guard = lock.acquire_blocking().expect("its turn comes");
    let token = guard.fencing_token();
    guard.release_blocking().expect("it was held");
    (number, token)
}

/// The same for tasks.
pub async fn served(lock: Lock, number: usize) -> Served {
    let guard = lock.acquire().await.expect("its turn comes");
    let token = guard.fencing_token();
    guard.release().await.expect("it was held");
    (number, token)
}

/// What these threads were served with.
#[track_caller]
pub fn joined(threads: Vec<JoinHandle<Served>>) -> Vec<Served> {
    let join = |thread: JoinHandle<Served>| thread.join().expect("it was served");
    threads.into_iter().map(join).collect()
}

/// What a child says when one of its waiters was served.
#[track_caller]
pub fn told(child: &ChildProcess) -> Served {
    let said = child.says();
    let (number, token) = said.split_once(' ').unwrap_or_else(|| panic!("{said}"));
    let number = number.parse().unwrap_or_else(|_| panic!("{said}"));
    (number, token.parse().expect("a token"))
}

/// All of them were served, in the order in which they came. (A token of its own is one
/// after the other.)
#[track_caller]
pub fn assert_in_order(served: &[Served], came: impl IntoIterator<Item = usize>) {
    let mut served = served.to_vec();
    served.sort_by_key(|(_, token)| *token);
    let order: Vec<usize> = served.iter().map(|(number, _)| *number).collect();
    let came: Vec<usize> = came.into_iter().collect();
    assert_eq!(order, came, "served in another order than they came in");
    let rising = served.windows(2).all(|pair| pair[0].1 < pair[1].1);
    assert!(rising, "two of them with one token: {served:?}");
}

/// In a child: waits as it is told, each time in a thread of its own. `pass 7` says
/// `7 TOKEN` when it was served, and lets go; `stay 7` keeps the lock until `go 7`, and
/// says `7 done` or why not. Anything else is left to `other`.
pub fn plays_in_line(url: &str, other: impl Fn(&str)) {
    let locker = AppLocker::connect_blocking(url).expect("a locker");
    let mut staying = HashMap::new();
    child::say("ready");
    while let Some(told) = child::hear() {
        let (what, number) = told.split_once(' ').unwrap_or((&told, ""));
        let (lock, number) = (lock(&locker), number.to_owned());
        match what {
            "pass" => drop(thread::spawn(move || {
                let number = number.parse().expect("a number");
                let (number, token) = served_blocking(&lock, number);
                child::say(format_args!("{number} {token}"));
            })),
            "stay" => {
                let (go, gone) = channel();
                staying.insert(number.clone(), go);
                thread::spawn(move || stays(&lock, &number, &gone));
            }
            "go" => drop(staying.remove(&number)),
            _ => other(&told),
        }
    }
}

fn stays(lock: &Lock, number: &str, gone: &Receiver<()>) {
    let guard = lock.acquire_blocking().expect("its turn comes");
    child::say(format_args!("{number} {}", guard.fencing_token()));
    gone.recv().ok();
    match guard.release_blocking() {
        Ok(()) => child::say(format_args!("{number} done")),
        Err(error) => child::say(format_args!("{number} {error}")),
    }
}

/// So many other processes, each ready to stand in line; `test` plays the part with
/// [`plays_in_line`].
pub fn children(test: &str, url: &str, count: usize) -> Vec<ChildProcess> {
    let children: Vec<_> = (0..count).map(|_| ChildProcess::start(test, url)).collect();
    for child in &children {
        assert_eq!(child.says(), "ready");
    }
    children
}
