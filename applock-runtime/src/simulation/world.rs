//! What the hosts, the server and the network of one run share.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::fmt;
use std::future::pending;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use redis::aio::{MultiplexedConnection, PubSub};
use redis::{AsyncConnectionConfig, ProtocolVersion, RedisConnectionInfo, RedisResult};
use tokio::io::{copy, duplex, split};
use tokio::sync::Notify;
use tokio::sync::broadcast::{self, Sender};
use tokio::time::Instant;
use turmoil::net::TcpStream;

use crate::clock::{Clock, Moment, Sleep};
use crate::key::Key;
use crate::store::StoreFuture;
use crate::store::redis::acknowledge::Replicas;
use crate::store::redis::{Address, Connector, Dialled, RedisStore, slot};

use super::history::{History, OwnerNumber, What};
use super::server::data::Data;
use super::server::fleet::{Fleet, Layout, SENTINELS};

pub(super) const SERVER: &str = "server";
pub(super) const PORT: u16 = 6379;

/// Where the sentinels are: one machine, each with a port of its own from this one on.
pub(super) const SENTINEL: &str = "sentinels";
pub(super) const SENTINEL_PORT: u16 = 26379;

/// What the sentinels call the master.
pub(super) const MASTER: &str = "mymaster";

/// How many hosts run an engine.
pub(super) const HOSTS: usize = 3;

/// How many replicas there are of each master, and how long they may take.
const REPLICAS: Replicas = Replicas {
    count: 1,
    timeout: Replicas::TIMEOUT,
};

/// The ttls of each key's leases, in milliseconds, from and to: short ones that a slow
/// network loses, and long ones that never run out in a run.
pub(super) const TTLS: [(u64, u64); 3] = [(300, 1_200), (1_000, 5_000), (9_000, 15_000)];

/// The same where a release may be lost, and its lock stays for the ttl; and where a server is
/// found, dialled and asked in a few slow round trips, which have to fit into a short one.
const FLEET_TTLS: [(u64, u64); 3] = [(800, 1_500), (1_000, 5_000), (6_000, 9_000)];

pub(super) struct World {
    pub(super) seed: u64,
    pub(super) history: RefCell<History>,
    pub(super) fleet: RefCell<Fleet>,
    /// Whether writes have to be acknowledged by all replicas.
    pub(super) acknowledged: bool,
    pub(super) keys: Vec<Key>,
    /// When the faults are over.
    pub(super) heal: Duration,
    /// Whether many wait for few locks.
    pub(super) crowd: bool,
    /// The ttls of each key's leases: see [`TTLS`].
    pub(super) ttls: [(u64, u64); 3],
    /// For each host: closes its connections, at the server.
    pub(super) resets: Vec<Rc<Notify>>,
    /// For each host: its own end of a connection is gone; what it sent is on its way.
    pub(super) given_up: Vec<Arc<Notify>>,
    /// The same of its subscription.
    pub(super) subscription_given_up: Vec<Arc<Notify>>,
    /// For each host: its next answer is lost with the connection.
    pub(super) lose_answer: Vec<Cell<bool>>,
    /// For each host: closes its subscription, at the server.
    pub(super) subscription_ends: Vec<Rc<Notify>>,
    /// For each host: what its subscription is sent gets lost, from then on.
    pub(super) mute: Vec<Cell<bool>>,
    /// For each host: nothing gets through to the server.
    pub(super) cut: Vec<Arc<AtomicBool>>,
    /// For each host: what happens when it is notified of a grant.
    pub(super) ambush: RefCell<[Ambush; HOSTS]>,
    /// For each server, the hosts subscribed for each lock, as it knows.
    pub(super) subscribed: Vec<RefCell<BTreeSet<(usize, usize)>>>,
    /// For each server: closes all its connections.
    pub(super) kicked: Vec<Rc<Notify>>,
    /// For each server: passes a message on to those that are subscribed there.
    pub(super) bus: Vec<RefCell<Option<Bus>>>,
    /// For each server: it goes on, after it was frozen.
    pub(super) thawed: Vec<Rc<Notify>>,
    /// For each host: the servers that it has dialled.
    pub(super) dialled: Vec<Dials>,
    /// For each sentinel: what it publishes.
    pub(super) switches: Vec<Sender<String>>,
    /// The owners that were in a wait queue at any time: a waiter whose position the server lost
    /// gets it back.
    pub(super) has_queued: RefCell<BTreeSet<OwnerNumber>>,
    owners: Cell<OwnerNumber>,
    connections: Cell<u64>,
}

/// A trap for a host that is notified of a grant: nothing gets through to the server then.
#[derive(Clone, Copy, Default, PartialEq)]
pub(super) enum Ambush {
    #[default]
    None,
    Laid,
    Sprung,
}

/// Passes a message on, by its channel.
pub(super) type Bus = Box<dyn Fn(&str, &str)>;

impl World {
    /// With one server.
    pub(super) fn new(seed: u64, heal: Duration, crowd: bool) -> Self {
        Self::of(Layout::Single, false, seed, heal, crowd)
    }

    pub(super) fn of(
        layout: Layout,
        acknowledged: bool,
        seed: u64,
        heal: Duration,
        crowd: bool,
    ) -> Self {
        let fleet = Fleet::new(layout);
        let servers = fleet.servers.len();
        let keys = (0..TTLS.len()).map(|key| Key::whole(&format!("k{key}")).unwrap());
        Self {
            seed,
            history: RefCell::default(),
            fleet: RefCell::new(fleet),
            acknowledged,
            keys: keys.collect(),
            heal,
            crowd,
            ttls: match layout {
                Layout::Single => TTLS,
                _ => FLEET_TTLS,
            },
            resets: (0..HOSTS).map(|_| Rc::default()).collect(),
            given_up: (0..HOSTS).map(|_| Arc::default()).collect(),
            subscription_given_up: (0..HOSTS).map(|_| Arc::default()).collect(),
            lose_answer: (0..HOSTS).map(|_| Cell::default()).collect(),
            subscription_ends: (0..HOSTS).map(|_| Rc::default()).collect(),
            mute: (0..HOSTS).map(|_| Cell::default()).collect(),
            cut: (0..HOSTS).map(|_| Arc::default()).collect(),
            ambush: RefCell::default(),
            subscribed: (0..servers).map(|_| RefCell::default()).collect(),
            kicked: (0..servers).map(|_| Rc::default()).collect(),
            bus: (0..servers).map(|_| RefCell::default()).collect(),
            thawed: (0..servers).map(|_| Rc::default()).collect(),
            dialled: (0..HOSTS).map(|_| Arc::default()).collect(),
            switches: (0..SENTINELS).map(|_| broadcast::channel(16).0).collect(),
            has_queued: RefCell::default(),
            owners: Cell::new(0),
            connections: Cell::new(0),
        }
    }

    /// Notes what a simulated host, or the server, has just done.
    pub(super) fn note(&self, what: What) {
        self.history.borrow_mut().note(elapsed(), what);
    }

    pub(super) fn next_owner(&self) -> OwnerNumber {
        self.owners.set(self.owners.get() + 1);
        self.owners.get()
    }

    pub(super) fn next_connection(&self) -> u64 {
        self.connections.set(self.connections.get() + 1);
        self.connections.get()
    }

    pub(super) fn key_number(&self, key: &str) -> usize {
        let number = self.keys.iter().position(|known| &*known.lock == key);
        number.unwrap()
    }

    /// What a server keeps.
    pub(super) fn data(&self, server: usize) -> Rc<RefCell<Data>> {
        Rc::clone(&self.fleet.borrow().servers[server].data)
    }

    /// The server whose word about a lock counts.
    pub(super) fn serving(&self, lock: &str) -> usize {
        self.fleet.borrow().serving(lock)
    }

    /// Every lock that a server keeps whose word counts.
    pub(super) fn locks(&self, now: Duration) -> Vec<String> {
        let servers = self.fleet.borrow().servers.len();
        let locks = (0..servers).flat_map(|server| {
            let locks = self.data(server).borrow_mut().locks(now);
            locks
                .into_iter()
                .filter(move |lock| self.serving(lock) == server)
        });
        locks.collect()
    }

    /// The waiters in the servers' wait queues, by key, in order.
    pub(super) fn queued(&self) -> Vec<(usize, OwnerNumber)> {
        let queues = self.keys.iter().enumerate();
        queues
            .flat_map(|(number, key)| {
                let data = self.data(self.serving(&key.lock));
                let queue = data.borrow_mut().queue(&key.lock).into_iter();
                queue.map(move |owner| (number, owner))
            })
            .collect()
    }

    /// How a host dials servers.
    pub(super) fn dialler(&self, host: usize, protocol: ProtocolVersion) -> Dialler {
        Dialler {
            protocol,
            cut: Arc::clone(&self.cut[host]),
            given_up: Arc::clone(&self.given_up[host]),
            subscription_given_up: Arc::clone(&self.subscription_given_up[host]),
            replicas: self.acknowledged.then_some(REPLICAS),
            dialled: Arc::clone(&self.dialled[host]),
        }
    }

    /// How a host dials sentinels.
    fn sentinel_dialler(&self, host: usize, protocol: ProtocolVersion) -> Dialler {
        Dialler {
            replicas: None,
            dialled: Arc::default(),
            ..self.dialler(host, protocol)
        }
    }

    /// The store of a host.
    pub(super) fn store(&self, host: usize, protocol: ProtocolVersion) -> RedisStore {
        let servers = Arc::new(self.dialler(host, protocol));
        let layout = self.fleet.borrow().layout;
        match layout {
            Layout::Single => RedisStore::over(servers, "redis://server".into()),
            Layout::Sentinels => RedisStore::behind_sentinels(
                servers,
                Arc::new(self.sentinel_dialler(host, protocol)),
                // Of the last one the others tell.
                (0..SENTINELS - 1).map(sentinel_address).collect(),
                MASTER.into(),
                "redis+sentinel://sentinels/mymaster".into(),
            ),
            Layout::Cluster => RedisStore::of_cluster(
                servers,
                vec![server_address(0), server_address(3)],
                "redis+cluster://server".into(),
            ),
        }
    }

    /// The servers that hosts dialled.
    pub(super) fn dials(&self) -> Vec<(Duration, usize, usize)> {
        let number = |name: &str| {
            let servers = self.fleet.borrow().servers.len();
            (0..servers).find(|server| server_name(*server) == name)
        };
        let hosts = self.dialled.iter().enumerate();
        let dials = hosts.flat_map(|(host, dials)| {
            let dials = dials.lock().unwrap().clone().into_iter();
            dials.filter_map(move |(name, at)| Some((at, host, number(&name)?)))
        });
        dials.collect()
    }

    /// The names of all that a host talks to.
    pub(super) fn remotes(&self) -> Vec<String> {
        let fleet = self.fleet.borrow();
        let servers = (0..fleet.servers.len()).map(server_name);
        let sentinels = (!fleet.sentinels.is_empty()).then(|| SENTINEL.to_owned());
        servers.chain(sentinels).collect()
    }

    /// The shard that each lock is in at first.
    pub(super) fn shards(&self) -> Vec<usize> {
        let fleet = self.fleet.borrow();
        let keys = self.keys.iter();
        keys.map(|key| fleet.map.shard(slot(&key.lock))).collect()
    }

    pub(super) fn host_at(&self, address: IpAddr) -> usize {
        let name = turmoil::reverse_lookup(address).unwrap();
        (0..HOSTS).find(|host| host_name(*host) == name).unwrap()
    }
}

/// The first one has the name of the only one.
pub(super) fn server_name(server: usize) -> String {
    match server {
        0 => SERVER.to_owned(),
        other => format!("{SERVER}-{other}"),
    }
}

pub(super) fn server_address(server: usize) -> Address {
    Address::Named(server_name(server).into(), PORT)
}

pub(super) fn sentinel_address(sentinel: usize) -> Address {
    let port = SENTINEL_PORT + u16::try_from(sentinel).unwrap();
    Address::Named(SENTINEL.into(), port)
}

pub(super) fn millis(length: Duration) -> u64 {
    u64::try_from(length.as_millis()).unwrap()
}

/// A length of time, in milliseconds from `least` to `most`.
pub(super) fn between(rng: &mut fastrand::Rng, least: u64, most: u64) -> Duration {
    Duration::from_millis(rng.u64(least..=most.max(least)))
}

pub(super) fn host_name(host: usize) -> String {
    format!("host-{host}")
}

/// The run's time, by which no host goes.
pub(super) fn elapsed() -> Duration {
    turmoil::sim_elapsed().unwrap()
}

/// A host's clock: it starts anywhere, and runs a little too fast or too slow.
#[derive(Debug)]
pub(super) struct HostClock {
    start: Instant,
    origin: Moment,
    rate: f64,
}

impl HostClock {
    /// Starts it, at the host's present.
    pub(super) fn start(rng: &mut fastrand::Rng) -> Self {
        Self {
            start: Instant::now(),
            origin: Moment::from_origin(Duration::from_secs(rng.u64(1_000..1_000_000))),
            // Of two clocks that differ by less than 1 % (GUARANTEES), the server's is right.
            rate: 1.0 + (rng.f64() - 0.5) * 0.019,
        }
    }

    /// How long the run takes for what this clock shows as `length`.
    pub(super) fn true_length(&self, length: Duration) -> Duration {
        length.div_f64(self.rate)
    }
}

impl Clock for HostClock {
    fn now(&self) -> Moment {
        self.origin + self.start.elapsed().mul_f64(self.rate)
    }

    fn sleep_until(&self, at: Moment) -> Sleep {
        let length = self.true_length(at.saturating_since(self.origin));
        // Rounded up, so that the clock has reached it then.
        let until = self.start + length + Duration::from_nanos(10);
        Box::pin(tokio::time::sleep_until(until))
    }

    fn wall(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + self.now().since_origin()
    }
}

/// Dials the server over the simulated network.
pub(super) struct Dialler {
    pub(super) protocol: ProtocolVersion,
    pub(super) cut: Arc<AtomicBool>,
    pub(super) given_up: Arc<Notify>,
    pub(super) subscription_given_up: Arc<Notify>,
    /// How many replicas have to have each write.
    pub(super) replicas: Option<Replicas>,
    /// Dials of a server are noted here.
    pub(super) dialled: Dials,
}

/// The servers that a host has dialled for commands: the name of each, and when.
pub(super) type Dials = Arc<Mutex<Vec<(Arc<str>, Duration)>>>;

impl fmt::Debug for Dialler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Dialler")
    }
}

impl Dialler {
    async fn dial(cut: Arc<AtomicBool>, to: Address) -> RedisResult<TcpStream> {
        let (host, port) = match to {
            Address::Given => (SERVER.into(), PORT),
            Address::Named(host, port) => (host, port),
        };
        let dialled = TcpStream::connect((&*host, port)).await;
        if dialled.is_err() && cut.load(Ordering::Relaxed) {
            // The simulated network refuses what a real one would swallow.
            pending::<()>().await;
        }
        Ok(dialled?)
    }

    /// A connection that subscribes.
    pub(super) fn listen(
        &self,
        protocol: ProtocolVersion,
        to: Address,
    ) -> StoreFuture<RedisResult<PubSub>> {
        let info = RedisConnectionInfo::default().set_protocol(protocol);
        let cut = Arc::clone(&self.cut);
        let given_up = Arc::clone(&self.subscription_given_up);
        Box::pin(async move {
            let stream = Self::dial(cut, to).await?;
            // Its driver is the crate's own, so what is given up lies before it.
            let (near, far) = duplex(1_024);
            tokio::spawn(async move {
                let (mut from_server, mut to_server) = split(stream);
                let (mut from_crate, mut to_crate) = split(far);
                tokio::select! {
                    biased;
                    () = given_up.notified() => (),
                    _ = copy(&mut from_server, &mut to_crate) => (),
                    _ = copy(&mut from_crate, &mut to_server) => (),
                }
            });
            PubSub::new(&info, near).await
        })
    }
}

impl Connector for Dialler {
    fn connect(&self, to: &Address) -> StoreFuture<RedisResult<Dialled>> {
        let info = RedisConnectionInfo::default().set_protocol(self.protocol);
        let cut = Arc::clone(&self.cut);
        let given_up = Arc::clone(&self.given_up);
        if let Address::Named(name, _) = to {
            let dial = (Arc::clone(name), elapsed());
            self.dialled.lock().unwrap().push(dial);
        }
        let to = to.clone();
        Box::pin(async move {
            let stream = Self::dial(cut, to).await?;
            // Our own time-outs, as in the real dialler.
            let config = AsyncConnectionConfig::new()
                .set_connection_timeout(None)
                .set_response_timeout(None);
            let (connection, driver) =
                MultiplexedConnection::new_with_config(&info, stream, config).await?;
            tokio::spawn(async move {
                tokio::select! {
                    biased;
                    () = given_up.notified() => (),
                    () = driver => (),
                }
            });
            Ok(connection.into())
        })
    }

    fn subscribe(&self, to: &Address, _: Option<String>) -> StoreFuture<RedisResult<PubSub>> {
        // As the real one does.
        self.listen(ProtocolVersion::RESP2, to.clone())
    }

    fn replicas(&self) -> Option<Replicas> {
        self.replicas
    }
}
