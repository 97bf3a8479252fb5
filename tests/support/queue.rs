//! The wait queue of a lock on a real server: the order in which waiters come is known, and
//! the fencing tokens show the order in which they were served.

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

pub const APP: &str = "contested";
pub const KEY: &str = "QUEUE:contested";

/// What is handed over within [`LIMIT`] was not left to this.
pub const TTL: Duration = Duration::from_secs(300);

/// How long a grant stays that its waiter has not confirmed.
pub const CLAIM: Duration = Duration::from_secs(3);

/// A queue whose waiters no longer poll expires after this, in milliseconds.
const QUEUE_LIFE: i64 = 45_000;

/// How long it may take until a waiter is in the queue.
const SOON: Duration = Duration::from_secs(20);

/// A waiter's number, in the order of coming, and the fencing token that it was granted.
pub type Served = (usize, u64);

/// The lock that all waiters want, as they ask for it.
pub fn lock(locker: &AppLocker) -> Lock {
    locker.lock(APP).ttl(TTL).wait(LIMIT)
}

/// So many lockers, each as a process of its own would have it.
pub fn lockers(url: &str, count: usize) -> Vec<AppLocker> {
    (0..count)
        .map(|_| AppLocker::connect_blocking(url).expect("a locker"))
        .collect()
}

/// How many waiters are in the queue at the server.
pub fn queue_length(server: &RedisServer) -> usize {
    length_of(server, KEY)
}

/// The same of another lock.
pub fn length_of(server: &RedisServer, key: &str) -> usize {
    server.run(&format!("ZCARD {{{key}}}:queue"))
}

#[track_caller]
pub fn until_queued(server: &RedisServer, count: usize) {
    let what = format!("{count} waiters are in the queue");
    wait::until(&what, SOON, || queue_length(server) == count);
}

/// How many connections have subscribed to notifications.
pub fn subscriptions(server: &RedisServer) -> usize {
    let list: String = server.run("CLIENT LIST TYPE pubsub");
    list.lines().filter(|line| !line.is_empty()).count()
}

#[track_caller]
pub fn until_subscriptions(server: &RedisServer, count: usize) {
    let what = format!("{count} connections have subscribed");
    wait::until(&what, SOON, || subscriptions(server) == count);
}

/// So many processes have subscribed, and the queue says so: they are notified of a grant,
/// and no waiter need poll for it.
#[track_caller]
pub fn until_all_subscribed(server: &RedisServer, count: usize) {
    until_subscriptions(server, count);
    wait::until(
        "the queue knows which processes have subscribed",
        SOON,
        || {
            let fields: HashMap<String, String> = server.run(&format!("HGETALL {{{KEY}}}:waiters"));
            // Where each has subscribed: the server's run id.
            let subscribed = |(field, value): &(&String, &String)| {
                field.starts_with('@') && !value.ends_with(" 0")
            };
            fields.iter().filter(subscribed).count() == count
        },
    );
}

/// What is left of the queue expires.
#[track_caller]
pub fn assert_the_queue_expires(server: &RedisServer) {
    for part in ["queue", "waiters"] {
        let left: i64 = server.run(&format!("PTTL {{{KEY}}}:{part}"));
        // -2: it is gone already.
        assert!(left == -2 || (1..=QUEUE_LIFE).contains(&left), "{left}");
    }
}

/// Nothing of the queue is left at the server: no waiter, and no key beside it.
#[track_caller]
pub fn until_nothing_is_left_of_the_queue(server: &RedisServer) {
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

/// The holder of the lock at the server: its process and its token.
pub fn holder(server: &RedisServer) -> (Option<u32>, Option<u64>) {
    let lock = server.text(KEY);
    let number = |name: &str| lock.as_ref()?[name].as_u64();
    (
        number("pid").and_then(|pid| u32::try_from(pid).ok()),
        number("token"),
    )
}

/// A holder, and the waiters behind it.
pub struct WaitQueue {
    pub server: RedisServer,
    holder: Option<LockGuard>,
    came: usize,
}

impl WaitQueue {
    /// Behind a holder that keeps the lock until [`holder_releases`](Self::holder_releases).
    pub fn start() -> Self {
        let server = RedisServer::start();
        let url = server.url();
        Self::at(server, &url)
    }

    /// The same at this server, for a holder that connects by that URL.
    pub fn at(server: RedisServer, url: &str) -> Self {
        let locker = AppLocker::connect_blocking(url).expect("a locker");
        let holder = take(&locker.lock(APP).ttl(TTL));
        Self {
            server,
            holder: Some(holder),
            came: 0,
        }
    }

    /// How many waiters have come.
    pub fn len(&self) -> usize {
        self.came
    }

    /// The next waiter comes, begun with its number: it is in the queue when this returns.
    #[track_caller]
    pub fn enqueue<T>(&mut self, begin: impl FnOnce(usize) -> T) -> T {
        let before = queue_length(&self.server);
        let begun = begin(self.came);
        until_queued(&self.server, before + 1);
        self.came += 1;
        begun
    }

    /// A waiter that blocks its thread, and releases the lock as soon as it was granted it.
    #[track_caller]
    pub fn thread(&mut self, locker: &AppLocker) -> JoinHandle<Served> {
        let lock = lock(locker);
        self.enqueue(|number| thread::spawn(move || served_blocking(&lock, number)))
    }

    /// A waiter in another process, which [`plays_waiters`].
    #[track_caller]
    pub fn child(&mut self, child: &mut ChildProcess) {
        self.enqueue(|number| child.tell(&format!("pass {number}")));
    }

    /// A waiter in another process, which keeps the lock until the parent says `go`.
    #[track_caller]
    pub fn child_that_stays(&mut self, child: &mut ChildProcess) {
        self.enqueue(|number| child.tell(&format!("stay {number}")));
    }

    /// The holder's guard.
    pub fn holder(&self) -> &LockGuard {
        self.holder.as_ref().expect("it has not released yet")
    }

    /// The holder releases the lock.
    #[track_caller]
    pub fn holder_releases(&mut self) {
        let holder = self.holder.take().expect("it releases once");
        assert_verified(&holder);
        holder.release_blocking().expect("it was held");
    }
}

/// Waits, is granted the lock, and releases it.
pub fn served_blocking(lock: &Lock, number: usize) -> Served {
    let guard = lock.acquire_blocking().expect("it is granted the lock");
    let token = guard.fencing_token();
    guard.release_blocking().expect("it was held");
    (number, token)
}

/// The same for tasks.
pub async fn served(lock: Lock, number: usize) -> Served {
    let guard = lock.acquire().await.expect("it is granted the lock");
    let token = guard.fencing_token();
    guard.release().await.expect("it was held");
    (number, token)
}

/// What these threads were granted.
#[track_caller]
pub fn joined(threads: Vec<JoinHandle<Served>>) -> Vec<Served> {
    let join = |thread: JoinHandle<Served>| thread.join().expect("it was served");
    threads.into_iter().map(join).collect()
}

/// What a child says when one of its waiters was served.
#[track_caller]
pub fn served_in(child: &ChildProcess) -> Served {
    let said = child.says();
    let (number, token) = said.split_once(' ').unwrap_or_else(|| panic!("{said}"));
    let number = number.parse().unwrap_or_else(|_| panic!("{said}"));
    (number, token.parse().expect("a token"))
}

/// All of them were served, in the order in which they came. (Tokens grow from one grant to
/// the next.)
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

/// In a child: waits as the parent says, each time in a thread of its own. `pass 7` says
/// `7 TOKEN` when it was granted the lock, and releases it; `stay 7` keeps the lock until
/// `go 7`, and says `7 done` or why not. Anything else is left to `other`.
pub fn plays_waiters(url: &str, other: impl Fn(&str)) {
    let locker = AppLocker::connect_blocking(url).expect("a locker");
    let mut staying = HashMap::new();
    child::say("ready");
    while let Some(command) = child::hear() {
        let (what, number) = command.split_once(' ').unwrap_or((&command, ""));
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
            _ => other(&command),
        }
    }
}

fn stays(lock: &Lock, number: &str, gone: &Receiver<()>) {
    let guard = lock.acquire_blocking().expect("it is granted the lock");
    child::say(format_args!("{number} {}", guard.fencing_token()));
    gone.recv().ok();
    match guard.release_blocking() {
        Ok(()) => child::say(format_args!("{number} done")),
        Err(error) => child::say(format_args!("{number} {error}")),
    }
}

/// So many other processes, each ready to wait in the queue; `test` plays the part with
/// [`plays_waiters`].
pub fn children(test: &str, url: &str, count: usize) -> Vec<ChildProcess> {
    let children: Vec<_> = (0..count).map(|_| ChildProcess::start(test, url)).collect();
    for child in &children {
        assert_eq!(child.says(), "ready");
    }
    children
}
