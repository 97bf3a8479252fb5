//! The places that the suite runs in: one store each, fresh for every test, and what a
//! test can do to it from outside.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, LazyLock, Mutex};
use std::time::Duration;

use applock::clock::ManualClock;
use applock::{AppLocker, Builder, MemoryStore};
use tempfile::TempDir;

use crate::support::cluster::{self, Cluster};
use crate::support::redis::RedisServer;
use crate::support::sentinel::{self, SentinelSet};

/// A lease that is meant to run out, its heart not beating.
pub(crate) const SHORT: Duration = Duration::from_millis(250);

/// The lease of another process that is to die. It need not be held at any certain moment.
pub(crate) const BRIEF: Duration = Duration::from_millis(1_500);

/// A lease that must be kept by its heartbeat, on a machine that is busy with other
/// things, and stands still now and then: about two seconds may pass before the beat
/// comes.
pub(crate) const KEPT: Duration = Duration::from_secs(3);

/// A lease whose end plays no part in a test: whatever becomes free within [`SOON`] was
/// released.
pub(crate) const LONG: Duration = Duration::from_secs(120);

/// The command time-out of a locker that would not wait for the usual second.
pub(crate) const IMPATIENT: Duration = Duration::from_millis(300);

/// How long a test waits for what must come: generous, as it is only used up by failures.
pub(crate) const SOON: Duration = Duration::from_secs(30);

/// What a test may need of a store beyond being one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Need {
    /// Nothing: every store runs it.
    Nothing,
    /// Another program can change what is in it.
    Outside,
    /// It can hang, or fail.
    Fragile,
    /// Several processes share it.
    Processes,
}

/// Why a store does not run the cases that need this. `None`: it runs them.
pub(crate) fn lacking(store: &str, need: Need) -> Option<&'static str> {
    match (store, need) {
        (_, Need::Nothing) => None,
        ("memory", Need::Outside) => {
            Some("its table belongs to this process: no program can write there but by its locks")
        }
        ("memory", Need::Fragile) => {
            Some("it answers at once and always: there is no wire and no disk between")
        }
        ("memory", Need::Processes) => Some("it is the store of one process, as its name says"),
        _ => None,
    }
}

/// One store, for one test.
pub(crate) trait Place: Sync {
    /// For a locker of this store, as another server would build it.
    fn builder(&self) -> Builder;

    /// A locker as another server would have it: its own engine and connection.
    fn locker(&self) -> AppLocker {
        self.builder().build().unwrap()
    }

    /// A locker that gives a command up early, so that a test need not wait for a whole
    /// second of it.
    fn impatient(&self) -> AppLocker {
        let builder = self.builder().command_timeout(IMPATIENT);
        builder.build().unwrap()
    }

    /// A locker by whose clock no time passes: its heart does not beat, as that of a
    /// process that is stopped, while the store's time goes on.
    fn frozen(&self) -> (AppLocker, ManualClock) {
        let clock = ManualClock::new();
        let locker = self.builder().clock(clock.clone()).build().unwrap();
        (locker, clock)
    }

    /// Such a place with nothing but a clock of the test's own, for its store and its
    /// lockers; `None` where the store's time is not to be had.
    fn timeless(&self) -> Option<(Box<dyn Place>, ManualClock)> {
        None
    }

    /// What stands before every key.
    fn prefix(&self) -> &str {
        "QUEUE:"
    }

    /// The URL, for another process.
    fn url(&self) -> String {
        unreachable!("not asked of a store that has no other processes")
    }

    /// Takes the lock's record out of the store, as a flush or a careless person would.
    fn forget(&self, _key: &str) {
        unreachable!("not asked of a store without an outside")
    }

    /// Takes what the store remembers of the lock's fencing tokens out of it.
    fn forget_token(&self, _key: &str) {
        unreachable!("not asked of a store without an outside")
    }

    /// Puts something that is no lock where the lock `key` is, or was.
    fn spoil(&self, _key: &str) {
        unreachable!("not asked of a store without an outside")
    }

    /// All that stands in the store, as text.
    fn contents(&self) -> String {
        unreachable!("not asked of a store without an outside")
    }

    /// How many locks are recorded as held or not yet cleaned away, and whether
    /// everything else goes by itself in time.
    fn leftovers(&self) -> Leftovers {
        unreachable!("not asked of a store without an outside")
    }

    /// Nothing that changes the store is answered while the guard lives.
    fn stall(&self) -> Stalled {
        unreachable!("not asked of a store that can't hang")
    }

    /// Breaks the store for good.
    fn ruin(&self) {
        unreachable!("not asked of a store that can't break")
    }
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Leftovers {
    pub(crate) locks: usize,
    pub(crate) stays_for_ever: usize,
}

/// While it lives, a store hangs.
pub(crate) struct Stalled(Option<Box<dyn FnOnce() + Send>>);

impl Drop for Stalled {
    fn drop(&mut self) {
        if let Some(end) = self.0.take() {
            end();
        }
    }
}

fn unique() -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    format!("conformance-{}-{count}:", std::process::id())
}

/// The servers of a place.
pub(crate) enum Servers {
    One(RedisServer),
    Cluster(Cluster),
    Sentinel(SentinelSet),
}

impl Servers {
    fn url(&self) -> String {
        match self {
            Self::One(server) => server.url(),
            Self::Cluster(cluster) => cluster.url(),
            Self::Sentinel(set) => set.url(),
        }
    }

    /// Those that serve. No failover happens here.
    pub(crate) fn masters(&self) -> &[RedisServer] {
        match self {
            Self::One(server) => std::slice::from_ref(server),
            Self::Cluster(cluster) => cluster.masters(),
            Self::Sentinel(set) => &set.servers[..1],
        }
    }

    fn masters_mut(&mut self) -> &mut [RedisServer] {
        match self {
            Self::One(server) => std::slice::from_mut(server),
            Self::Cluster(cluster) => &mut cluster.nodes,
            Self::Sentinel(set) => &mut set.servers[..1],
        }
    }

    /// All processes.
    pub(crate) fn all(&self) -> Vec<&RedisServer> {
        match self {
            Self::One(server) => vec![server],
            Self::Cluster(cluster) => cluster.nodes.iter().collect(),
            Self::Sentinel(set) => set.servers.iter().chain(&set.sentinels).collect(),
        }
    }

    /// The one that serves a key.
    fn of(&self, key: &str) -> &RedisServer {
        match self {
            Self::Cluster(cluster) => cluster.master_of(key),
            _ => &self.masters()[0],
        }
    }
}

enum Access {
    Shared(&'static Servers),
    /// To be frozen and killed.
    Own(Arc<Mutex<Servers>>),
}

/// A prefix of its own on a real server, on a cluster, or behind sentinels.
pub(crate) struct RedisPlace {
    servers: Access,
    prefix: String,
}

impl RedisPlace {
    /// On the server of all tests.
    pub(crate) fn fresh() -> Self {
        static SERVER: LazyLock<Servers> =
            LazyLock::new(|| crate::server::of_all_tests(Servers::One(RedisServer::start())));
        Self::shared(&SERVER)
    }

    /// On a server of its own.
    pub(crate) fn fragile() -> Self {
        Self::own(Servers::One(RedisServer::start()))
    }

    /// On the cluster of all tests.
    pub(crate) fn in_cluster() -> Self {
        static CLUSTER: LazyLock<Servers> =
            LazyLock::new(|| crate::server::of_all_tests(Servers::Cluster(Cluster::start())));
        Self::shared(&CLUSTER)
    }

    /// On a cluster of its own. It needs no replicas, for none is to take over.
    pub(crate) fn in_fragile_cluster() -> Self {
        Self::own(Servers::Cluster(Cluster::with(&cluster::Layout {
            replicas_each: 0,
            ..cluster::Layout::default()
        })))
    }

    /// Behind the sentinels of all tests.
    pub(crate) fn behind_sentinels() -> Self {
        static SET: LazyLock<Servers> =
            LazyLock::new(|| crate::server::of_all_tests(Servers::Sentinel(SentinelSet::start())));
        Self::shared(&SET)
    }

    /// Behind sentinels of its own, of a master without replicas.
    pub(crate) fn behind_fragile_sentinels() -> Self {
        Self::own(Servers::Sentinel(SentinelSet::with(&sentinel::Layout {
            replicas: 0,
            ..sentinel::Layout::default()
        })))
    }

    fn shared(servers: &'static Servers) -> Self {
        Self {
            servers: Access::Shared(servers),
            prefix: unique(),
        }
    }

    fn own(servers: Servers) -> Self {
        Self {
            servers: Access::Own(Arc::new(servers.into())),
            prefix: unique(),
        }
    }

    fn with_all<T>(&self, ask: impl FnOnce(&Servers) -> T) -> T {
        match &self.servers {
            Access::Shared(servers) => ask(servers),
            Access::Own(servers) => ask(&servers.lock().unwrap()),
        }
    }

    /// At the only server of a place that has one.
    pub(crate) fn with<T>(&self, ask: impl FnOnce(&RedisServer) -> T) -> T {
        self.with_all(|servers| {
            let Servers::One(server) = servers else {
                panic!("several servers");
            };
            ask(server)
        })
    }

    /// Runs a command on a key, at the server that serves it.
    fn on<T: redis::FromRedisValue>(&self, words: &[&str]) -> T {
        self.with_all(|servers| servers.of(words[1]).try_run(words).unwrap())
    }

    /// How many scripts the server has run, or was asked to.
    pub(crate) fn scripts_run(&self) -> u64 {
        self.with(RedisServer::scripts)
    }

    pub(crate) fn keys(&self) -> Vec<String> {
        let pattern = format!("*{}*", self.prefix);
        let of =
            |server: &RedisServer| -> Vec<String> { server.try_run(&["KEYS", &pattern]).unwrap() };
        let mut keys: Vec<String> =
            self.with_all(|servers| servers.masters().iter().flat_map(of).collect());
        keys.sort();
        keys
    }
}

impl Place for RedisPlace {
    fn builder(&self) -> Builder {
        AppLocker::builder()
            .store(self.url())
            .key_prefix(&self.prefix)
    }

    fn prefix(&self) -> &str {
        &self.prefix
    }

    fn url(&self) -> String {
        self.with_all(Servers::url)
    }

    fn forget(&self, key: &str) {
        let gone: i64 = self.on(&["DEL", key]);
        assert_eq!(gone, 1, "{key:?} was not there");
    }

    fn forget_token(&self, key: &str) {
        self.forget(&format!("{{{key}}}:fence"));
    }

    fn spoil(&self, key: &str) {
        let _: i64 = self.on(&["DEL", key]);
        let _: i64 = self.on(&["RPUSH", key, "garbage"]);
    }

    fn contents(&self) -> String {
        let mut text = String::new();
        for key in self.keys() {
            let kind: String = self.on(&["TYPE", &key]);
            let read: &[&str] = match kind.as_str() {
                "hash" => &["HGETALL", &key],
                "list" => &["LRANGE", &key, "0", "-1"],
                _ => &["GET", &key],
            };
            let value: redis::Value = self.on(read);
            writeln!(text, "{key} {value:?}").unwrap();
        }
        text
    }

    fn leftovers(&self) -> Leftovers {
        let (mut locks, mut stays_for_ever) = (0, 0);
        for key in self.keys() {
            locks += usize::from(key.starts_with(&self.prefix));
            let left: i64 = self.on(&["PTTL", &key]);
            stays_for_ever += usize::from(left == -1);
        }
        Leftovers {
            locks,
            stays_for_ever,
        }
    }

    fn stall(&self) -> Stalled {
        let Access::Own(servers) = &self.servers else {
            panic!("list this case under `fragile`: it freezes its server");
        };
        let all = |act: fn(&RedisServer), servers: &Mutex<Servers>| {
            servers.lock().unwrap().masters().iter().for_each(act);
        };
        all(RedisServer::freeze, servers);
        let servers = Arc::clone(servers);
        Stalled(Some(Box::new(move || all(RedisServer::thaw, &servers))))
    }

    fn ruin(&self) {
        let Access::Own(servers) = &self.servers else {
            panic!("list this case under `fragile`: it kills its server");
        };
        let mut servers = servers.lock().unwrap();
        servers.masters_mut().iter_mut().for_each(RedisServer::kill);
    }
}

/// A directory of its own.
pub(crate) struct DirPlace(TempDir);

impl DirPlace {
    /// In memory where the system has a file system for that: the suite is about locks,
    /// and a disk that is busy with other things takes seconds for a sync. (That a sync
    /// is asked for where it must be is for the store's own tests.)
    pub(crate) fn fresh() -> Self {
        let memory = Path::new("/dev/shm");
        Self(match tempfile::tempdir_in(memory) {
            Ok(directory) => directory,
            Err(_) => tempfile::tempdir().unwrap(),
        })
    }

    pub(crate) fn fragile() -> Self {
        Self::fresh()
    }

    fn files(&self, ending: &str) -> Vec<PathBuf> {
        let mut files: Vec<PathBuf> = fs::read_dir(self.0.path())
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.to_string_lossy().ends_with(ending))
            .collect();
        files.sort();
        files
    }

    fn records(&self) -> Vec<PathBuf> {
        self.files(".lock")
    }

    fn record(&self, key: &str) -> PathBuf {
        let line = format!("{{\"key\":{key:?},");
        self.records()
            .into_iter()
            .find(|path| fs::read_to_string(path).unwrap().contains(&line))
            .unwrap_or_else(|| panic!("no record of {key:?}"))
    }
}

impl Place for DirPlace {
    fn builder(&self) -> Builder {
        AppLocker::builder().store(self.url())
    }

    fn url(&self) -> String {
        format!("dir:{}", self.0.path().display())
    }

    fn forget(&self, key: &str) {
        fs::remove_file(self.record(key)).unwrap();
    }

    /// It was in the record.
    fn forget_token(&self, _key: &str) {}

    fn spoil(&self, key: &str) {
        fs::write(self.record(key), "garbage").unwrap();
    }

    fn contents(&self) -> String {
        let mut text = String::new();
        for path in self.records() {
            let bytes = fs::read(&path).unwrap();
            writeln!(text, "{path:?} {}", String::from_utf8_lossy(&bytes)).unwrap();
        }
        text
    }

    /// Records outlive their locks by a week, for the fencing tokens in them; what must
    /// not be there is anything else.
    fn leftovers(&self) -> Leftovers {
        let mut stays_for_ever = 0;
        for entry in fs::read_dir(self.0.path()).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            let known = name.ends_with(".lock") || name.ends_with(".latch");
            stays_for_ever += usize::from(!known);
        }
        let held = |path: &PathBuf| {
            fs::read_to_string(path)
                .unwrap()
                .contains("\"phase\":\"held\"")
        };
        Leftovers {
            locks: self.records().iter().filter(|path| held(path)).count(),
            stays_for_ever,
        }
    }

    /// As a process would that was stopped inside of every critical section.
    fn stall(&self) -> Stalled {
        let lock_files: Vec<File> = self
            .files(".latch")
            .into_iter()
            .map(|path| {
                let file = File::options().write(true).open(path).unwrap();
                file.lock().unwrap();
                file
            })
            .collect();
        assert!(!lock_files.is_empty(), "take the lock once before");
        Stalled(Some(Box::new(move || drop(lock_files))))
    }

    fn ruin(&self) {
        fs::remove_dir_all(self.0.path()).unwrap();
        fs::write(self.0.path(), "no directory").unwrap();
    }
}

impl Drop for DirPlace {
    fn drop(&mut self) {
        // What `ruin` has put there; the directory itself goes by its own drop.
        if self.0.path().is_file() {
            fs::remove_file(self.0.path()).unwrap();
        }
    }
}

/// A table of its own.
pub(crate) struct MemoryPlace {
    store: MemoryStore,
    clock: Option<ManualClock>,
}

impl MemoryPlace {
    pub(crate) fn fresh() -> Self {
        Self {
            store: MemoryStore::new(),
            clock: None,
        }
    }
}

impl Place for MemoryPlace {
    fn builder(&self) -> Builder {
        let builder = AppLocker::builder().store(self.store.clone());
        match &self.clock {
            Some(clock) => builder.clock(clock.clone()),
            None => builder,
        }
    }

    fn timeless(&self) -> Option<(Box<dyn Place>, ManualClock)> {
        let clock = ManualClock::new();
        let place = Self {
            store: MemoryStore::with_clock(clock.clone()),
            clock: Some(clock.clone()),
        };
        Some((Box::new(place), clock))
    }
}
