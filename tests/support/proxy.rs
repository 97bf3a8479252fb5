//! A network that fails as the test says: a TCP proxy in front of a Redis server.
//!
//! It knows our scripts, so a fault can meet one chosen step: its request is held back,
//! its answer is lost. TCP loses nothing in the middle of a connection, so where an
//! answer is lost, that connection is silent towards the client from there on.
//!
//! A test steers it while it runs, from any thread, and waits for what passed
//! ([`FaultProxy::until`]) rather than for time to pass.

mod pump;
mod wire;

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::sync::{oneshot, watch};

use super::redis::RedisServer;
use super::wait;

pub use wire::Call;

/// How long a test waits for something to pass on a busy machine.
const DEADLINE: Duration = Duration::from_secs(30);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Requests get lost.
    ToServer,
    /// Answers get lost: the server carries out what it is asked.
    ToClient,
    Both,
}

/// What passed. Each of a request's steps is an event of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A client connected.
    Dialled,
    /// The client has sent it.
    Sent(Call),
    /// It went on to the server.
    Forwarded(Call),
    /// The server has carried it out, and answered.
    Executed(Call),
    /// The answer went on to the client.
    Answered(Call),
    /// A connection is over, on both sides.
    Closed,
}

/// What happens to a chosen step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trick {
    LoseReply,
    ResetForReply,
    Hold,
}

/// The rules of the moment. Connections are counted from 1; a rule is in force for those
/// up to a number.
#[derive(Clone, Debug, Default)]
struct Rules {
    upstream: u16,
    hole_to_server: u64,
    hole_to_client: u64,
    delay: Duration,
    reset: u64,
    refuse: bool,
    /// Subscribed connections get no notifications.
    muted: bool,
    /// So many requests that were held back have been let go.
    let_go: u64,
}

#[derive(Debug)]
struct Shared {
    rules: watch::Sender<Rules>,
    tricks: Mutex<Vec<(Call, Trick)>>,
    events: Mutex<Vec<(u64, Event)>>,
}

impl Shared {
    fn note(&self, connection: u64, event: Event) {
        self.events
            .lock()
            .expect("the events")
            .push((connection, event));
    }

    /// Takes the first trick of these that is meant for the call.
    fn trick(&self, call: Call, of: &[Trick]) -> Option<Trick> {
        let mut tricks = self.tricks.lock().expect("the tricks");
        let at = tricks
            .iter()
            .position(|(meant, trick)| *meant == call && of.contains(trick))?;
        Some(tricks.remove(at).1)
    }
}

pub struct FaultProxy {
    port: u16,
    shared: Arc<Shared>,
    end: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl FaultProxy {
    pub fn before(server: &RedisServer) -> Self {
        Self::to(server.port())
    }

    /// The same before a server that another process has started.
    pub fn to(upstream: u16) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        listener.set_nonblocking(true).expect("a socket");
        let port = listener.local_addr().expect("its address").port();
        let shared = Arc::new(Shared {
            rules: watch::Sender::new(Rules {
                upstream,
                ..Rules::default()
            }),
            tricks: Mutex::default(),
            events: Mutex::default(),
        });
        let (end, ended) = oneshot::channel();
        let pumps = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("fault proxy".to_owned())
            .spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build()
                    .expect("a runtime");
                runtime.block_on(async {
                    tokio::select! {
                        _ = ended => (),
                        () = accept(listener, pumps) => (),
                    }
                });
            })
            .expect("a thread");
        Self {
            port,
            shared,
            end: Some(end),
            thread: Some(thread),
        }
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    fn rule(&self, change: impl FnOnce(&mut Rules)) {
        self.shared.rules.send_modify(change);
    }

    /// Nothing passes any more in that direction: neither over the connections that there
    /// are, nor over new ones. All of them stay open.
    pub fn black_hole(&self, direction: Direction) {
        self.hole(direction, u64::MAX);
    }

    /// The same, but only for the connections that there are now: a firewall that forgot
    /// them. A client that dials anew gets through.
    pub fn black_hole_old(&self, direction: Direction) {
        self.hole(direction, self.dials());
    }

    fn hole(&self, direction: Direction, connections: u64) {
        self.rule(|rules| {
            if direction != Direction::ToClient {
                rules.hole_to_server = connections;
            }
            if direction != Direction::ToServer {
                rules.hole_to_client = connections;
            }
        });
    }

    /// Connections that have subscribed get no notifications any more, and stay open; nor do
    /// new ones. All others work.
    pub fn mute_notifications(&self) {
        self.rule(|rules| rules.muted = true);
    }

    /// Ends the black holes. What was on its way arrives now, as TCP would send it again.
    pub fn heal(&self) {
        self.rule(|rules| {
            rules.hole_to_server = 0;
            rules.hole_to_client = 0;
            rules.muted = false;
        });
    }

    /// Each message arrives so much later, in both directions.
    pub fn delay(&self, by: Duration) {
        self.rule(|rules| rules.delay = by);
    }

    /// Ends the connections that there are now with an RST.
    pub fn reset(&self) {
        let dials = self.dials();
        self.rule(|rules| rules.reset = dials);
    }

    /// New connections end with an RST at once; or no longer so.
    pub fn refuse(&self, refuse: bool) {
        self.rule(|rules| rules.refuse = refuse);
    }

    /// New connections lead to another server.
    pub fn lead_to(&self, server: &RedisServer) {
        self.rule(|rules| rules.upstream = server.port());
    }

    /// The answer to the next such call is lost, and every later one on that connection.
    pub fn lose_reply(&self, call: Call) {
        self.plan(call, Trick::LoseReply);
    }

    /// The connection is reset in place of the answer to the next such call.
    pub fn reset_for_reply(&self, call: Call) {
        self.plan(call, Trick::ResetForReply);
    }

    /// The next such call is held back, and whatever comes behind it on that connection,
    /// until [`let_go`](Self::let_go); also where its client has hung up by then.
    pub fn hold(&self, call: Call) {
        self.plan(call, Trick::Hold);
    }

    /// A request that was held back goes on to the server. What came behind it is lost
    /// with the connection.
    pub fn let_go(&self) {
        self.rule(|rules| rules.let_go += 1);
    }

    fn plan(&self, call: Call, trick: Trick) {
        self.shared
            .tricks
            .lock()
            .expect("the tricks")
            .push((call, trick));
    }

    pub fn events(&self) -> Vec<(u64, Event)> {
        self.shared.events.lock().expect("the events").clone()
    }

    pub fn count(&self, event: Event) -> u64 {
        let events = self.shared.events.lock().expect("the events");
        let count = events.iter().filter(|(_, it)| *it == event).count();
        u64::try_from(count).expect("a number")
    }

    /// How many connections there have been.
    pub fn dials(&self) -> u64 {
        self.count(Event::Dialled)
    }

    /// Waits until `event` has passed for the `count`th time since the proxy began.
    #[track_caller]
    pub fn until(&self, event: Event, count: u64) {
        let what = format!("{count} times {event:?} at the proxy");
        wait::until(&what, DEADLINE, || self.count(event) >= count);
    }

    /// Does something, and waits until `event` has passed because of it.
    #[track_caller]
    pub fn until_next<T>(&self, event: Event, act: impl FnOnce() -> T) -> T {
        let before = self.count(event);
        let done = act();
        self.until(event, before + 1);
        done
    }
}

impl Drop for FaultProxy {
    fn drop(&mut self) {
        drop(self.end.take());
        if let Some(thread) = self.thread.take() {
            // What it panicked with stands in the test's output.
            let _ = thread.join();
        }
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let listener = tokio::net::TcpListener::from_std(listener).expect("a listener");
    let mut connections = 0;
    loop {
        let (client, _) = listener.accept().await.expect("a connection");
        connections += 1;
        shared.note(connections, Event::Dialled);
        let shared = Arc::clone(&shared);
        tokio::spawn(async move {
            connect(client, connections, &shared).await;
            shared.note(connections, Event::Closed);
        });
    }
}

async fn connect(client: TcpStream, number: u64, shared: &Arc<Shared>) {
    let rules = shared.rules.borrow().clone();
    let upstream = SocketAddr::from((Ipv4Addr::LOCALHOST, rules.upstream));
    if rules.refuse {
        return pump::reset(&client);
    }
    match TcpStream::connect(upstream).await {
        Ok(server) => pump::both_ways(client, server, number, shared).await,
        Err(_) => pump::reset(&client),
    }
}
