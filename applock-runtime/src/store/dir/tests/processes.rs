//! Several real processes on one directory: contending, stopped, and killed.
#![cfg(unix)]

use std::fmt::Display;
use std::fs::{self, OpenOptions};
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Instant;

use super::super::directory::Directory;
use super::super::file_names::Files;
use super::super::lock_file::LockFile;
use super::*;
use crate::error::Error;
use crate::info::Ending;
use crate::locker::{AppLocker, Lock};

/// What a child process does, and where: set, this test binary is a child.
const PART: &str = "APPLOCK_TEST_PART";
const DIRECTORY: &str = "APPLOCK_TEST_DIRECTORY";
const READY: &str = "child is ready";

/// A process of this same test binary; it ends with the test.
struct ChildProcess(Child);

impl ChildProcess {
    fn start(part: &str, path: &Path) -> Self {
        let child = Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "store::dir::tests::processes::child",
                "--nocapture",
            ])
            .env(PART, part)
            .env(DIRECTORY, path)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        Self(child)
    }

    fn ready(mut self) -> Self {
        let out = BufReader::new(self.0.stdout.take().unwrap());
        let mut lines = out.lines().map(Result::unwrap);
        assert!(
            lines.any(|line| line.contains(READY)),
            "the child has failed"
        );
        self
    }

    fn signal(&self, signal: &str) {
        let pid = self.0.id().to_string();
        let sent = Command::new("kill").args([signal, &pid]).status().unwrap();
        assert!(sent.success());
    }

    fn kill(mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }

    fn succeeds(mut self) {
        assert!(self.0.wait().unwrap().success());
    }
}

impl Drop for ChildProcess {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The part of a child process: without the variables that the tests below set, there
/// is nothing to do here.
#[tokio::test]
async fn child() {
    let (Ok(part), Ok(path)) = (std::env::var(PART), std::env::var(DIRECTORY)) else {
        return;
    };
    let (path, key) = (Path::new(&path), key("a"));
    let home = Home::at(&path.join("locks"));
    home.store().open(LONG).await.unwrap();
    match part.as_str() {
        "contend" => contend(&home, path).await,
        "hold" => {
            home.acquire(&key, 1).await.unwrap();
            ready_for_ever();
        }
        "inside" => {
            let _taken = lock_file(&home.store.directory, &key);
            ready_for_ever();
        }
        "churn" => churn(&home).await,
        "wait" => wait(path).await,
        "contend with an engine" => contend_with_an_engine(path).await,
        "open files" => open_files(&home).await,
        other => panic!("{other}"),
    }
}

fn ready_for_ever() -> ! {
    println!("{READY}");
    loop {
        thread::park();
    }
}

fn lock_file(directory: &Directory, key: &Key) -> LockFile {
    LockFile::try_take(directory, &Files::of(directory.path(), &key.lock).lock_file)
        .unwrap()
        .unwrap()
}

/// Takes the lock 25 times, and writes down each token while it holds it.
async fn contend(home: &Home, path: &Path) {
    let (key, inside) = (key("a"), path.join("inside"));
    let mut taken = 0;
    while taken < 25 {
        let owner = Uuid::new_v4().as_u128();
        let Ok(token) = home.acquire(&key, owner).await else {
            thread::yield_now();
            continue;
        };
        let alone = OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(&inside);
        alone.expect("two are inside");
        let mut tokens = OpenOptions::new()
            .append(true)
            .create(true)
            .open(path.join("tokens"))
            .unwrap();
        writeln!(tokens, "{token}").unwrap();
        fs::remove_file(&inside).unwrap();
        assert!(home.release(&key, owner, None).await);
        taken += 1;
    }
}

fn locker(path: &Path) -> AppLocker {
    let url = format!("dir:{}", path.join("locks").display());
    AppLocker::connect_blocking(url).unwrap()
}

/// The lock that the processes with an engine contend for, as in production.
fn lock(locker: &AppLocker) -> Lock {
    locker.lock("contended").ttl(TTL).wait(LONG)
}

fn note(path: &Path, what: impl Display) {
    let mut file = OpenOptions::new()
        .append(true)
        .create(true)
        .open(path.join("notes"))
        .unwrap();
    writeln!(file, "{what}").unwrap();
}

fn notes(path: &Path) -> Vec<u32> {
    let notes = fs::read_to_string(path.join("notes")).unwrap();
    notes.lines().map(|note| note.parse().unwrap()).collect()
}

/// Waits for the lock, and notes its process id while it holds it.
async fn wait(path: &Path) {
    let guard = lock(&locker(path)).acquire().await.unwrap();
    note(path, std::process::id());
    guard.release().await.unwrap();
}

/// Several tasks take the lock again and again, each alone inside.
async fn contend_with_an_engine(path: &Path) {
    let (locker, inside) = (locker(path), path.join("inside"));
    let task = || async {
        for _ in 0..10 {
            let guard = lock(&locker).acquire().await.unwrap();
            let alone = OpenOptions::new()
                .write(true)
                .create_new(true)
                .open(&inside);
            alone.expect("two are inside");
            note(path, std::process::id());
            fs::remove_file(&inside).unwrap();
            guard.release().await.unwrap();
        }
    };
    tokio::join!(task(), task(), task());
}

/// How many wait for a lock that is held.
fn waiters_of(locker: &AppLocker) -> u64 {
    let holder = lock(locker).info_blocking().unwrap().unwrap();
    holder.waiters().unwrap()
}

fn until_waiting(locker: &AppLocker, count: u64) {
    let began = Instant::now();
    while waiters_of(locker) != count {
        assert!(began.elapsed() < LONG, "{} wait", waiters_of(locker));
        thread::sleep(Duration::from_millis(5));
    }
}

/// Nothing but the record and its lock file.
fn is_tidy(path: &Path) -> bool {
    let entries = fs::read_dir(path.join("locks")).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names
        .filter(|name| !name.ends_with(".lock") && !name.ends_with(".latch"))
        .count()
        == 0
}

/// Writes records as fast as it can, until it is killed.
async fn churn(home: &Home) {
    let key = key("a");
    for owner in 1.. {
        // The process before may have been killed while it held the lock.
        home.advance(TTL);
        home.acquire(&key, owner).await.unwrap();
        assert!(home.renew(&key, owner).await);
        if owner == 1 {
            println!("{READY}");
        }
        if owner % 2 == 0 {
            assert!(home.release(&key, owner, None).await);
        }
    }
}

async fn open_files(home: &Home) {
    let count = || fs::read_dir("/dev/fd").unwrap().count();
    let key = key("a");
    home.acquire(&key, 1).await.unwrap();
    let before = count();
    for _ in 0..1_000 {
        home.acquire(&key, 2).await.unwrap_err();
    }
    for _ in 0..60 {
        assert!(home.release(&key, 1, None).await);
        home.acquire(&key, 1).await.unwrap();
    }
    let taken = lock_file(&home.store.directory, &key);
    for _ in 0..50 {
        let renew = Renew {
            token: 1,
            remember: std::time::Duration::from_secs(3_600),
            key: key.clone(),
            owner: Uuid::from_u128(1),
            ttl: TTL,
        };
        let outcome = home
            .store()
            .renew(vec![renew], SHORT / 40)
            .await
            .pop()
            .unwrap();
        assert_eq!(kind(&outcome), Some(StoreErrorKind::NotDone));
    }
    drop(taken);
    while home.store.threads.available_permits() < super::super::THREADS {
        tokio::task::yield_now().await;
    }
    assert!(count() <= before, "{} files open, before {before}", count());
}

#[test]
fn processes_exclude_one_another_and_tokens_grow_across_them() {
    let directory = scratch();
    let processes: Vec<ChildProcess> = (0..4)
        .map(|_| ChildProcess::start("contend", directory.path()))
        .collect();
    processes.into_iter().for_each(ChildProcess::succeeds);
    let tokens = fs::read_to_string(directory.path().join("tokens")).unwrap();
    let tokens: Vec<u64> = tokens.lines().map(|token| token.parse().unwrap()).collect();
    assert_eq!(tokens.len(), 4 * 25);
    assert!(tokens.is_sorted_by(|a, b| a < b), "{tokens:?}");
}

#[tokio::test]
async fn a_killed_holders_lock_is_free_at_the_end_of_its_lease_and_not_before() {
    let directory = scratch();
    let holder = ChildProcess::start("hold", directory.path()).ready();
    let (home, key) = (Home::at(&directory.path().join("locks")), key("a"));
    let pid = holder.0.id();
    holder.kill();
    let info = home.acquire(&key, 2).await.unwrap_err();
    assert_eq!(info.pid(), Some(pid));
    home.advance(TTL);
    assert!(home.acquire(&key, 2).await.unwrap() > info.fencing_token().unwrap());
}

#[tokio::test]
async fn a_process_stopped_inside_hinders_only_its_key_and_its_death_frees_it() {
    let directory = scratch();
    let inside = ChildProcess::start("inside", directory.path()).ready();
    inside.signal("-STOP");
    let home = Home::at(&directory.path().join("locks"));
    let outcome = home.try_acquire(&key("a"), 2, SHORT).await;
    assert_eq!(kind(&outcome), Some(StoreErrorKind::NotDone));
    home.acquire(&key("b"), 2).await.unwrap();
    inside.kill();
    home.acquire(&key("a"), 2).await.unwrap();
}

#[tokio::test]
async fn a_process_killed_at_any_moment_leaves_a_record_that_can_be_used() {
    let directory = scratch();
    let (home, key) = (Home::at(&directory.path().join("locks")), key("a"));
    let mut last = 0;
    for round in 0..12 {
        let churning = ChildProcess::start("churn", directory.path()).ready();
        // The one sleep of these tests: the moment of death shall be any.
        thread::sleep(Duration::from_micros(2_000 + 700 * round));
        churning.kill();
        let seen = home.inspect(&key).await.last.unwrap();
        assert!(seen.fencing_token >= last);
        assert!(seen.ending != Ending::Forced);
        last = seen.fencing_token;
        // It may be held, by the clock of the killed one, which ran ahead.
        let force = home
            .store()
            .force_release(key.clone(), None, By::of_a_test(), LONG)
            .await;
        force.unwrap();
        let token = home.acquire(&key, 7).await.unwrap();
        assert!(token > last);
        last = token;
        assert!(home.release(&key, 7, None).await);
    }
}

#[test]
fn processes_are_served_in_the_order_of_their_coming_and_the_dead_are_skipped() {
    let directory = scratch();
    let path = directory.path();
    let locker = locker(path);
    let holder = lock(&locker).acquire_blocking().unwrap();
    let mut waiting = Vec::new();
    for count in 1..=6 {
        waiting.push(ChildProcess::start("wait", path));
        until_waiting(&locker, count);
    }
    // The first of all, and one in the middle.
    let middle = waiting.remove(3);
    let first = waiting.remove(0);
    let dead = [first.0.id(), middle.0.id()];
    first.kill();
    middle.kill();
    holder.release_blocking().unwrap();
    let order: Vec<u32> = waiting.iter().map(|process| process.0.id()).collect();
    waiting.into_iter().for_each(ChildProcess::succeeds);
    let served = notes(path);
    assert_eq!(served, order, "the dead are {dead:?}");
}

#[test]
fn a_wait_that_is_given_up_leaves_the_queue_and_nothing_behind() {
    let directory = scratch();
    let path = directory.path();
    let (one, other) = (locker(path), locker(path));
    let holder = lock(&one).acquire_blocking().unwrap();
    thread::scope(|scope| {
        let late = scope.spawn(|| lock(&other).wait(Duration::from_secs(1)).acquire_blocking());
        until_waiting(&one, 1);
        let late = late.join().unwrap().unwrap_err();
        assert!(matches!(late, Error::Busy(info) if info.waiters() == Some(1)));
    });
    until_waiting(&one, 0);
    assert!(is_tidy(path));
    holder.release_blocking().unwrap();
}

#[test]
fn processes_of_many_waiters_contend_until_all_are_served() {
    let directory = scratch();
    let path = directory.path();
    let all: Vec<ChildProcess> = (0..3)
        .map(|_| ChildProcess::start("contend with an engine", path))
        .collect();
    let processes: Vec<u32> = all.iter().map(|process| process.0.id()).collect();
    all.into_iter().for_each(ChildProcess::succeeds);
    let served = notes(path);
    for process in processes {
        let grants = served.iter().filter(|served| **served == process);
        assert_eq!(grants.count(), 30);
    }
    assert!(is_tidy(path));
}

#[test]
fn no_file_stays_open_after_steps_done_refused_or_given_up() {
    let directory = scratch();
    ChildProcess::start("open files", directory.path()).succeeds();
}
