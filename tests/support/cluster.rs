//! A real cluster: masters, each with a replica, on free ports, to be frozen, killed, failed
//! over, and to have its slots moved.

use std::ops::RangeInclusive;
use std::time::{Duration, Instant};

use super::redis::RedisServer;
use super::sets::Permit;
use super::wait;

/// However long the nodes may take to agree on something on a busy machine.
pub const SOON: Duration = Duration::from_secs(40);

/// After so long without an answer a node counts as failed: longer than a test, so that no
/// busy machine makes it fail over.
const PATIENT: Duration = Duration::from_secs(60);

/// For a test in which a master is to be found dead: about 4 seconds until its replica serves.
const QUICK: Duration = Duration::from_secs(2);

const SLOTS: usize = 16_384;

/// What a cluster is made of.
pub struct Layout<'a> {
    pub masters: usize,
    pub replicas_each: usize,
    pub node_timeout: Duration,
    /// Further arguments of each node.
    pub arguments: &'a [&'a str],
}

impl Default for Layout<'_> {
    fn default() -> Self {
        Self {
            masters: 3,
            replicas_each: 1,
            node_timeout: PATIENT,
            arguments: &[],
        }
    }
}

/// How a replica is made a master.
#[derive(Clone, Copy, Debug)]
pub enum Takes {
    /// As its master agrees: nothing is lost.
    Over,
    /// Without its master, by a vote of the others.
    Force,
    /// Without asking.
    Power,
}

/// The masters first, then the replicas in the order of their masters.
pub struct Cluster {
    pub nodes: Vec<RedisServer>,
    masters: usize,
    ids: Vec<String>,
    _permit: Permit,
}

impl Cluster {
    /// 3 masters and 3 replicas that take a busy machine for no failure.
    pub fn start() -> Self {
        Self::with(&Layout::default())
    }

    /// The same, of which a dead or frozen master is replaced within seconds.
    pub fn quick() -> Self {
        Self::with(&Layout {
            node_timeout: QUICK,
            ..Layout::default()
        })
    }

    pub fn with(layout: &Layout<'_>) -> Self {
        Self::started(layout, Permit::get())
    }

    fn started(layout: &Layout<'_>, permit: Permit) -> Self {
        let timeout = layout.node_timeout.as_millis().to_string();
        let mut arguments = vec![
            "--cluster-enabled",
            "yes",
            "--cluster-node-timeout",
            &timeout,
            "--repl-diskless-sync-delay",
            "0",
        ];
        arguments.extend(layout.arguments);
        let count = layout.masters * (1 + layout.replicas_each);
        let nodes: Vec<_> = (0..count)
            .map(|_| RedisServer::reserved(&arguments))
            .collect();
        let ids = nodes.iter().map(|node| node.run("CLUSTER MYID")).collect();
        let cluster = Self {
            nodes,
            masters: layout.masters,
            ids,
            _permit: permit,
        };
        cluster.join();
        cluster
    }

    fn join(&self) {
        for (at, node) in self.nodes.iter().enumerate() {
            if at < self.masters {
                let slots: Vec<String> = self.slots_of(at).map(|slot| slot.to_string()).collect();
                let words = ["CLUSTER", "ADDSLOTS"].into_iter();
                let words: Vec<&str> = words.chain(slots.iter().map(String::as_str)).collect();
                let () = node.try_run(&words).expect("the slots are free");
            }
            let () = node.run(&format!("CLUSTER SET-CONFIG-EPOCH {}", at + 1));
            if at > 0 {
                let () = node.run(&format!("CLUSTER MEET 127.0.0.1 {}", self.nodes[0].port()));
            }
        }
        self.until_all("all know each other", |about| {
            about.len() == self.nodes.len() && !about.iter().any(|node| node.has("handshake"))
        });
        for at in self.masters..self.nodes.len() {
            let master = self.master_before(at);
            wait::until("it becomes a replica", SOON, || {
                let words = ["CLUSTER", "REPLICATE", &self.ids[master]];
                self.nodes[at].try_run::<()>(&words).is_ok()
            });
        }
        self.until_well();
    }

    /// The masters that it begins with.
    pub fn masters(&self) -> &[RedisServer] {
        &self.nodes[..self.masters]
    }

    /// The master that a key begins at.
    pub fn master_of(&self, key: &str) -> &RedisServer {
        let slot = usize::from(self.slot(key));
        let at = (0..self.masters).find(|at| self.slots_of(*at).contains(&slot));
        &self.nodes[at.expect("every slot has a master")]
    }

    /// The slots that a master begins with.
    pub fn slots_of(&self, master: usize) -> RangeInclusive<usize> {
        let first = |at: usize| at * SLOTS / self.masters;
        first(master)..=first(master + 1) - 1
    }

    /// The master that a replica begins with.
    fn master_before(&self, replica: usize) -> usize {
        (replica - self.masters) % self.masters
    }

    /// The first replica of a master, as they begin.
    pub fn replica_of(&self, master: usize) -> usize {
        assert!(master < self.masters, "{master} began as a replica");
        self.masters + master
    }

    /// Waits until all nodes agree that all is well: every slot has a master, and every replica
    /// has its master's data.
    pub fn until_well(&self) {
        let replicas = self.nodes.len() - self.masters;
        self.until_all("all know of the replicas", |about| {
            about.iter().filter(|node| node.has("slave")).count() == replicas
                && !about
                    .iter()
                    .any(|node| node.has("fail") || node.has("fail?"))
        });
        wait::until("all say that the cluster is well", SOON, || {
            self.nodes.iter().all(is_well)
        });
        for node in &self.nodes {
            wait::until("the replicas have the data", SOON, || {
                node.is_master() || node.is_in_sync()
            });
        }
    }

    fn until_all(&self, what: &str, met: impl Fn(&[About]) -> bool) {
        wait::until(what, SOON, || {
            self.nodes.iter().all(|node| met(&about(node)))
        });
    }

    /// A URL that names all nodes.
    pub fn url(&self) -> String {
        self.url_of(0..self.nodes.len())
    }

    /// A URL that names these nodes.
    pub fn url_of(&self, nodes: impl IntoIterator<Item = usize>) -> String {
        let hosts: Vec<String> = nodes
            .into_iter()
            .map(|at| format!("127.0.0.1:{}", self.nodes[at].port()))
            .collect();
        format!("redis+cluster://{}", hosts.join(","))
    }

    pub fn id(&self, node: usize) -> &str {
        &self.ids[node]
    }

    /// The slot of a key, as a server says.
    pub fn slot(&self, key: &str) -> u16 {
        let words = ["CLUSTER", "KEYSLOT", key];
        self.nodes[0].try_run(&words).expect("the slot of a key")
    }

    /// An app whose lock `QUEUE:APP` is in a slot that this master begins with; another one for
    /// each number.
    pub fn app(&self, master: usize, number: usize) -> String {
        let slots = self.slots_of(master);
        (0..10_000)
            .map(|at| format!("job-{number}-{at}"))
            .find(|app| slots.contains(&usize::from(self.slot(&format!("QUEUE:{app}")))))
            .expect("one in three is")
    }

    /// Makes a replica a master, and waits until it says so; when that was seen.
    ///
    /// Not twice for a shard, unless by [`Takes::Power`]: the others vote for it again only after twice
    /// the node timeout, and till then its master holds its clients back.
    #[track_caller]
    pub fn promote(&self, replica: usize, takes: Takes) -> Instant {
        let how = match takes {
            Takes::Over => "CLUSTER FAILOVER",
            Takes::Force => "CLUSTER FAILOVER FORCE",
            Takes::Power => "CLUSTER FAILOVER TAKEOVER",
        };
        let () = self.nodes[replica].run(how);
        self.until_promoted(replica)
    }

    /// Waits until a replica has become a master, and serves; when that was seen.
    #[track_caller]
    pub fn until_promoted(&self, replica: usize) -> Instant {
        let node = &self.nodes[replica];
        wait::until("the replica is promoted", SOON, || {
            node.is_master() && is_well(node)
        });
        Instant::now()
    }

    /// The nodes that have slots, as this node knows them, by their places.
    pub fn masters_by(&self, node: usize) -> Vec<usize> {
        about(&self.nodes[node])
            .iter()
            .filter(|about| about.has("master") && about.has_slots)
            .filter_map(|about| self.ids.iter().position(|id| *id == about.id))
            .collect()
    }

    /// Begins to move a slot. No key moves yet.
    #[track_caller]
    pub fn migrate(&self, slot: u16, from: usize, to: usize) -> Migration<'_> {
        let migration = Migration {
            cluster: self,
            slot,
            from,
            to,
        };
        migration.set(to, &format!("IMPORTING {}", self.ids[from]));
        migration.set(from, &format!("MIGRATING {}", self.ids[to]));
        migration
    }

    /// Moves a slot with all that is in it.
    #[track_caller]
    pub fn move_slot(&self, slot: u16, from: usize, to: usize) {
        let migration = self.migrate(slot, from, to);
        migration.move_all();
        migration.finish();
    }

    /// A node forgets the others, its slots and all data.
    pub fn reset(&self, node: usize) {
        let node = &self.nodes[node];
        if node.is_master() {
            let () = node.run("FLUSHALL");
        }
        let () = node.run("CLUSTER RESET HARD");
    }

    /// All that know this node know it at that port from now on: that of a proxy before it.
    pub fn announce(&self, node: usize, port: u16) {
        let () = self.nodes[node].run(&format!("CONFIG SET cluster-announce-port {port}"));
        self.until_all("all know the address", |about| {
            about
                .iter()
                .all(|other| other.id != self.ids[node] || other.port == port)
        });
    }
}

/// A slot that moves from one master to another, step by step as `redis-cli` does it.
pub struct Migration<'a> {
    cluster: &'a Cluster,
    slot: u16,
    from: usize,
    to: usize,
}

impl Migration<'_> {
    fn set(&self, node: usize, what: &str) {
        let () = self.cluster.nodes[node].run(&format!("CLUSTER SETSLOT {} {what}", self.slot));
    }

    /// Moves these keys.
    pub fn move_keys(&self, keys: &[String]) {
        let port = self.cluster.nodes[self.to].port().to_string();
        let mut words = vec!["MIGRATE", "127.0.0.1", &port, "", "0", "10000", "KEYS"];
        words.extend(keys.iter().map(String::as_str));
        let _: String = self.cluster.nodes[self.from]
            .try_run(&words)
            .expect("keys can be moved");
    }

    /// Moves up to so many of the keys that are left; how many that were.
    pub fn move_some(&self, most: usize) -> usize {
        let ask = format!("CLUSTER GETKEYSINSLOT {} {most}", self.slot);
        let keys: Vec<String> = self.cluster.nodes[self.from].run(&ask);
        if !keys.is_empty() {
            self.move_keys(&keys);
        }
        keys.len()
    }

    /// Moves all keys, also such as are made meanwhile.
    pub fn move_all(&self) {
        while self.move_some(100) > 0 {}
    }

    /// The slot belongs to its new master, as all masters know then.
    pub fn finish(self) {
        let node = format!("NODE {}", self.cluster.ids[self.to]);
        let others = self.cluster.masters_by(self.to).into_iter();
        let others = others.filter(|at| ![self.from, self.to].contains(at));
        for at in [self.to, self.from].into_iter().chain(others) {
            self.set(at, &node);
        }
    }

    /// The slot stays where it is. For a migration of which no key has moved.
    pub fn abandon(self) {
        for at in [self.from, self.to] {
            self.set(at, "STABLE");
        }
    }
}

/// What a node knows of another one, or of itself.
struct About {
    id: String,
    port: u16,
    flags: String,
    has_slots: bool,
}

impl About {
    fn has(&self, flag: &str) -> bool {
        self.flags.split(',').any(|each| each == flag)
    }
}

/// What a node knows of all, out of `CLUSTER NODES`: the id, the address, flags, and at the end
/// the slots.
fn about(node: &RedisServer) -> Vec<About> {
    let text: String = node.run("CLUSTER NODES");
    let read = |line: &str| {
        let words: Vec<&str> = line.split(' ').collect();
        let port = words[1].split_once('@')?.0.rsplit_once(':')?.1;
        Some(About {
            id: words[0].to_owned(),
            port: port.parse().ok()?,
            flags: words[2].to_owned(),
            has_slots: words[8..].iter().any(|slots| !slots.starts_with('[')),
        })
    };
    let lines = text.lines();
    lines
        .map(|line| read(line).unwrap_or_else(|| panic!("{line}")))
        .collect()
}

fn is_well(node: &RedisServer) -> bool {
    let info: String = node.run("CLUSTER INFO");
    info.contains("cluster_state:ok")
}
