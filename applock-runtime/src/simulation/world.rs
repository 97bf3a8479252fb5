//! What the hosts, the server and the network of one run share.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::fmt;
use std::future::pending;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use redis::aio::{MultiplexedConnection, PubSub};
use redis::{AsyncConnectionConfig, ProtocolVersion, RedisConnectionInfo, RedisResult};
use tokio::io::{copy, duplex, split};
use tokio::sync::Notify;
use tokio::time::Instant;
use turmoil::net::TcpStream;

use crate::clock::{Clock, Moment, Sleep};
use crate::key::Key;
use crate::store::StoreFuture;
use crate::store::redis::{Address, Connector, Dialled};

use super::history::{History, OwnerNumber, What};
use super::server::data::Data;

pub(super) const SERVER: &str = "server";
pub(super) const PORT: u16 = 6379;

/// How many hosts run an engine.
pub(super) const HOSTS: usize = 3;

/// The ttls of each key's leases, in milliseconds, from and to: short ones that a slow
/// network loses, and long ones that never run out in a run.
pub(super) const TTLS: [(u64, u64); 3] = [(300, 1_200), (1_000, 5_000), (9_000, 15_000)];

pub(super) struct World {
    pub(super) seed: u64,
    pub(super) history: RefCell<History>,
    pub(super) data: Rc<RefCell<Data>>,
    pub(super) keys: Vec<Key>,
    /// When the faults are over.
    pub(super) heal: Duration,
    /// Whether many wait for few locks.
    pub(super) crowd: bool,
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
    /// The hosts subscribed for each lock, as the server knows.
    pub(super) subscribed: RefCell<BTreeSet<(usize, usize)>>,
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

impl World {
    pub(super) fn new(seed: u64, heal: Duration, crowd: bool) -> Self {
        let keys = (0..TTLS.len()).map(|key| Key::whole(&format!("k{key}")).unwrap());
        Self {
            seed,
            history: RefCell::default(),
            data: Rc::default(),
            keys: keys.collect(),
            heal,
            crowd,
            resets: (0..HOSTS).map(|_| Rc::default()).collect(),
            given_up: (0..HOSTS).map(|_| Arc::default()).collect(),
            subscription_given_up: (0..HOSTS).map(|_| Arc::default()).collect(),
            lose_answer: (0..HOSTS).map(|_| Cell::default()).collect(),
            subscription_ends: (0..HOSTS).map(|_| Rc::default()).collect(),
            mute: (0..HOSTS).map(|_| Cell::default()).collect(),
            cut: (0..HOSTS).map(|_| Arc::default()).collect(),
            ambush: RefCell::default(),
            subscribed: RefCell::default(),
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

    /// The waiters in the server's wait queues, by key, in order.
    pub(super) fn queued(&self) -> Vec<(usize, OwnerNumber)> {
        let mut data = self.data.borrow_mut();
        let queues = self.keys.iter().enumerate();
        queues
            .flat_map(|(number, key)| {
                let queue = data.queue(&key.lock).into_iter();
                queue.map(move |owner| (number, owner))
            })
            .collect()
    }

    pub(super) fn host_at(&self, address: IpAddr) -> usize {
        let name = turmoil::reverse_lookup(address).unwrap();
        (0..HOSTS).find(|host| host_name(*host) == name).unwrap()
    }
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
}

impl fmt::Debug for Dialler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Dialler")
    }
}

impl Dialler {
    async fn dial(cut: Arc<AtomicBool>) -> RedisResult<TcpStream> {
        let dialled = TcpStream::connect((SERVER, PORT)).await;
        if dialled.is_err() && cut.load(Ordering::Relaxed) {
            // The simulated network refuses what a real one would swallow.
            pending::<()>().await;
        }
        Ok(dialled?)
    }

    /// A connection that subscribes.
    pub(super) fn listen(&self, protocol: ProtocolVersion) -> StoreFuture<RedisResult<PubSub>> {
        let info = RedisConnectionInfo::default().set_protocol(protocol);
        let cut = Arc::clone(&self.cut);
        let given_up = Arc::clone(&self.subscription_given_up);
        Box::pin(async move {
            let stream = Self::dial(cut).await?;
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
    fn connect(&self, _to: &Address) -> StoreFuture<RedisResult<Dialled>> {
        let info = RedisConnectionInfo::default().set_protocol(self.protocol);
        let cut = Arc::clone(&self.cut);
        let given_up = Arc::clone(&self.given_up);
        Box::pin(async move {
            let stream = Self::dial(cut).await?;
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

    fn subscribe(&self, _to: &Address, _: Option<String>) -> StoreFuture<RedisResult<PubSub>> {
        // As the real one does.
        self.listen(ProtocolVersion::RESP2)
    }
}
