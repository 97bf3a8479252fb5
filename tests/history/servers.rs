//! What serves the locks of a history, and the failovers that befall it.

use std::thread::sleep;
use std::time::Duration;

use crate::faults::Kind;
use crate::record::now;
use crate::support::cluster::{Cluster, SOON, Takes};
use crate::support::redis::RedisServer;
use crate::support::sentinel::{NAME, SentinelSet};
use crate::support::wait;
use crate::{KEYS, lock_of};

/// From when another server serves until every process has learned of it, on a busy machine.
const ALL_KNOW: Duration = Duration::from_secs(1);

/// For how long a replica may fail to acknowledge a write.
const REPLICA_TIMEOUT: Duration = Duration::from_millis(250);

/// Until when every process has learned of what the servers know by now.
pub fn until_all_know() -> u64 {
    now() + u64::try_from(ALL_KNOW.as_nanos()).expect("it is short")
}

pub enum Servers {
    /// It keeps its data.
    One(RedisServer),
    /// Of whose replicas so many have to acknowledge a write.
    Cluster(Shards, usize),
    Sentinels(Set, usize),
}

impl Servers {
    pub fn url(&self) -> String {
        let (url, replicas) = match self {
            Self::One(server) => return server.url(),
            Self::Cluster(shards, replicas) => (shards.cluster.url(), *replicas),
            Self::Sentinels(set, replicas) => (set.set.url(), *replicas),
        };
        if replicas == 0 {
            return url;
        }
        let timeout = REPLICA_TIMEOUT.as_millis();
        format!("{url}?replicas={replicas}&replica_timeout={timeout}ms")
    }

    /// What befalls it and the processes.
    pub fn kinds(&self) -> &'static [Kind] {
        match self {
            Self::One(_) => &[
                Kind::ServerFrozen,
                Kind::ServerKilled,
                Kind::ProcessFrozen,
                Kind::ProcessKilled,
            ],
            Self::Cluster(..) => &[
                Kind::MasterKilled,
                Kind::FailedOver,
                Kind::ProcessFrozen,
                Kind::ProcessKilled,
            ],
            Self::Sentinels(..) => &[Kind::FailedOver, Kind::ProcessFrozen, Kind::ProcessKilled],
        }
    }

    /// After so long an acquire may have left something behind: an acquire that too few replicas
    /// have has been carried out.
    pub fn longest_try(&self, time_out: Duration) -> Duration {
        match self {
            Self::One(_) => time_out,
            Self::Cluster(..) | Self::Sentinels(..) => REPLICA_TIMEOUT / 2,
        }
    }

    pub fn one(&mut self) -> &mut RedisServer {
        match self {
            Self::One(server) => server,
            Self::Cluster(..) | Self::Sentinels(..) => panic!("there are several"),
        }
    }

    /// Another server comes to serve some of the locks: from when until when.
    pub fn switch(&mut self, kind: Kind, key: usize, delay: Duration) -> (u64, u64) {
        let from = now();
        match self {
            Self::Cluster(shards, _) => shards.switch(kind, key, delay),
            Self::Sentinels(set, _) => set.fail_over(),
            Self::One(_) => panic!("there is one server"),
        }
        (
            from,
            now() + u64::try_from(ALL_KNOW.as_nanos()).expect("it is short"),
        )
    }

    /// A server that is about to serve a lock gets no writes of its master any more.
    pub fn part(&mut self, key: usize) {
        match self {
            Self::Cluster(shards, _) => shards.part(key),
            Self::Sentinels(set, _) => set.begin_fail_over(),
            Self::One(_) => panic!("there is one server"),
        }
    }

    /// That server serves it.
    pub fn take_over(&mut self, key: usize) {
        match self {
            Self::Cluster(shards, _) => shards.take_over(key),
            Self::Sentinels(set, _) => set.end_fail_over(),
            Self::One(_) => panic!("there is one server"),
        }
    }

    /// Every master has all its replicas again.
    pub fn heal(&mut self) {
        match self {
            Self::Cluster(shards, _) => shards.heal(),
            Self::Sentinels(set, _) => set.heal(),
            Self::One(_) => panic!("there is one server"),
        }
    }
}

/// A cluster, with the shard of each lock.
pub struct Shards {
    pub cluster: Cluster,
    /// The shard of each lock.
    of: Vec<usize>,
    /// The nodes of each shard, the master first.
    nodes: Vec<[usize; 2]>,
    /// The shards whose replica the others have voted for: they don't again for two minutes.
    voted: Vec<bool>,
    killed: Option<usize>,
}

impl Shards {
    /// 3 masters with a replica each.
    pub fn start() -> Self {
        let cluster = Cluster::start();
        let masters = cluster.masters().len();
        let shard_of = |key| {
            let slot = usize::from(cluster.slot(&format!("QUEUE:{}", lock_of(key))));
            let shard = (0..masters).find(|at| cluster.slots_of(*at).contains(&slot));
            shard.expect("every slot has a master")
        };
        Self {
            of: (0..KEYS).map(shard_of).collect(),
            nodes: (0..masters)
                .map(|shard| [shard, cluster.replica_of(shard)])
                .collect(),
            voted: vec![false; masters],
            killed: None,
            cluster,
        }
    }

    fn switch(&mut self, kind: Kind, key: usize, delay: Duration) {
        let shard = self.of[key];
        let [master, replica] = self.nodes[shard];
        let takes = if kind == Kind::MasterKilled {
            self.cluster.nodes[master].kill();
            self.killed = Some(master);
            sleep(delay);
            Takes::Power
        } else if std::mem::replace(&mut self.voted[shard], true) {
            // For a moment both serve.
            Takes::Power
        } else {
            Takes::Over
        };
        self.promote(shard, replica, takes);
    }

    /// The replica of a lock's shard gets no writes any more; clients notice nothing. (A frozen one
    /// would read them from its socket when it wakes.)
    fn part(&mut self, key: usize) {
        let [master, replica] = self.nodes[self.of[key]].map(|at| &self.cluster.nodes[at]);
        until_done(replica, "CONFIG SET masterauth wrong");
        until_done(master, "CLIENT KILL TYPE replica");
        wait::until("the master has no replica", SOON, || {
            master.info("connected_slaves") == 0
        });
    }

    /// It takes over, without asking, and without what it did not get.
    fn take_over(&mut self, key: usize) {
        let shard = self.of[key];
        let [old, new] = self.nodes[shard];
        self.promote(shard, new, Takes::Power);
        until_done(&self.cluster.nodes[new], "CONFIG SET masterauth ");
        wait::until("the old master knows", SOON, || {
            self.cluster.nodes[old].is_replica()
        });
    }

    fn promote(&mut self, shard: usize, replica: usize, takes: Takes) {
        self.cluster.promote(replica, takes);
        self.nodes[shard].swap(0, 1);
    }

    fn heal(&mut self) {
        if let Some(node) = self.killed.take() {
            self.cluster.nodes[node].restart();
        }
        self.cluster.until_well();
    }
}

/// A server that becomes another's replica hangs up on its clients: then it is asked again.
fn until_done(server: &RedisServer, command: &str) {
    let words: Vec<&str> = command.split(' ').collect();
    wait::until(command, SOON, || {
        server.try_run::<redis::Value>(&words).is_ok()
    });
}

/// A master, two replicas and three sentinels.
pub struct Set {
    set: SentinelSet,
    master: usize,
    demoted: Option<usize>,
}

impl Set {
    pub fn start() -> Self {
        let set = SentinelSet::start();
        set.ask_often();
        Self {
            set,
            master: 0,
            demoted: None,
        }
    }

    /// As planned: the old master goes on answering.
    fn fail_over(&mut self) {
        self.begin_fail_over();
        self.end_fail_over();
    }

    /// Until a replica has been made a master. No sentinel names it before a second later.
    fn begin_fail_over(&mut self) {
        let set = &self.set;
        wait::until("a failover begins", SOON, || {
            let words = ["SENTINEL", "FAILOVER", NAME];
            set.sentinels[0].try_run::<()>(&words).is_ok()
        });
        let mut promoted = None;
        wait::until("a replica is promoted", SOON, || {
            let mut others = (0..set.servers.len()).filter(|at| *at != self.master);
            promoted = others.find(|at| set.servers[*at].is_master());
            promoted.is_some()
        });
        self.demoted = Some(self.master);
        self.master = promoted.expect("it was seen");
    }

    /// Until all sentinels name it.
    fn end_fail_over(&self) {
        self.set.names().until_all(self.master);
    }

    /// The sentinels would make the old master a replica, ten seconds later.
    fn heal(&mut self) {
        let port = self.set.servers[self.master].port();
        if let Some(old) = self.demoted.take() {
            until_done(
                &self.set.servers[old],
                &format!("REPLICAOF 127.0.0.1 {port}"),
            );
        }
        let master = &self.set.servers[self.master];
        wait::until("the new master has all replicas", SOON, || {
            let info = master.try_run::<String>(&["INFO", "replication"]);
            let online = info.map_or(0, |info| info.matches("state=online").count());
            online == self.set.servers.len() - 1
        });
        self.set.until_known();
        self.set.until_seen_as_replicas();
    }
}
