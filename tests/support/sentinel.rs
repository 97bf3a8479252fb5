//! A real set of sentinels with a master and its replicas, on free ports, to be frozen, killed
//! and failed over.

use std::time::{Duration, Instant};

use redis::Connection;

use super::ports::ReservedPort;
use super::redis::RedisServer;
use super::sets::Permit;
use super::wait;

/// What the sentinels call the master.
pub const NAME: &str = "mm";

/// However long they may take to agree on something on a busy machine.
pub const SOON: Duration = Duration::from_secs(40);

/// After so long without an answer the master counts as down: longer than a test, so that no
/// busy machine makes them fail over.
const PATIENT: Duration = Duration::from_secs(60);

/// For a test in which the master is to be found dead: about 2.5 seconds until another is named.
const QUICK: Duration = Duration::from_secs(1);

/// What a set is made of.
pub struct Layout<'a> {
    pub replicas: usize,
    pub sentinels: usize,
    pub down_after: Duration,
    /// Further arguments of each server.
    pub arguments: &'a [&'a str],
    /// Further lines of each sentinel's configuration.
    pub lines: &'a str,
    /// Options by which all of them speak TLS, also to one another.
    pub tls: &'a [(&'a str, String)],
}

impl Default for Layout<'_> {
    fn default() -> Self {
        Self {
            replicas: 2,
            sentinels: 3,
            down_after: PATIENT,
            arguments: &[],
            lines: "",
            tls: &[],
        }
    }
}

/// The master is the first of the servers, until a failover.
pub struct SentinelSet {
    pub servers: Vec<RedisServer>,
    pub sentinels: Vec<RedisServer>,
    /// Where each server is found by the others and by clients: another port where it speaks TLS.
    ports: Vec<u16>,
    sentinel_ports: Vec<u16>,
    down_after: Duration,
    lines: String,
    tls: Vec<(String, String)>,
    /// The ports for TLS.
    reserved: Vec<ReservedPort>,
    _permit: Permit,
}

impl SentinelSet {
    /// A master, 2 replicas and 3 sentinels that take a busy machine for no failure.
    pub fn start() -> Self {
        Self::with(&Layout::default())
    }

    /// The same, of which a dead or frozen master is replaced within seconds.
    pub fn quick() -> Self {
        Self::with(&Layout {
            down_after: QUICK,
            ..Layout::default()
        })
    }

    pub fn with(layout: &Layout<'_>) -> Self {
        let permit = Permit::get();
        let mut arguments = vec!["--repl-diskless-sync-delay", "0"];
        arguments.extend(layout.arguments);
        let (mut servers, mut ports, mut reserved) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..=layout.replicas {
            let (tls, port) = tls_options(layout.tls.iter().map(|(name, file)| (*name, file)));
            let tls: Vec<_> = tls
                .iter()
                .flat_map(|(name, value)| [format!("--{name}"), value.clone()])
                .collect();
            let all: Vec<&str> = arguments
                .iter()
                .copied()
                .chain(tls.iter().map(String::as_str))
                .collect();
            let server = RedisServer::reserved(&all);
            ports.push(port.as_ref().map_or(server.port(), ReservedPort::number));
            reserved.extend(port);
            servers.push(server);
        }
        for replica in &servers[1..] {
            let () = replica.run(&format!("REPLICAOF 127.0.0.1 {}", ports[0]));
        }
        // Before the sentinels look, so that they find the replicas at once.
        for replica in &servers[1..] {
            wait::until("the replicas have the data", SOON, || replica.is_in_sync());
        }
        let mut set = Self {
            servers,
            sentinels: Vec::new(),
            ports,
            sentinel_ports: Vec::new(),
            down_after: layout.down_after,
            lines: layout.lines.to_owned(),
            tls: layout
                .tls
                .iter()
                .map(|(name, file)| ((*name).to_owned(), file.clone()))
                .collect(),
            reserved,
            _permit: permit,
        };
        for _ in 0..layout.sentinels {
            set.add_sentinel();
        }
        set.until_known();
        set
    }

    /// One more sentinel of the same master.
    pub fn add_sentinel(&mut self) {
        let quorum = 2;
        let port = self.ports[0];
        let (tls, tls_port) = tls_options(self.tls.iter().map(|(name, file)| (&**name, file)));
        let tls: String = tls
            .iter()
            .map(|(name, value)| format!("{name} {value}\n"))
            .collect();
        let lines = format!(
            "{tls}sentinel monitor {NAME} 127.0.0.1 {port} {quorum}\n\
             sentinel down-after-milliseconds {NAME} {}\n\
             sentinel failover-timeout {NAME} 5000\n{}",
            self.down_after.as_millis(),
            self.lines
        );
        let sentinel = RedisServer::sentinel(&lines);
        // One that stood still for 2 seconds only watches for the next 30 (its TILT mode): a failover that
        // it had begun is given up, and what was promoted becomes a replica again. Here that is a busy
        // machine, and no fault of a clock.
        tune(&sentinel, "tilt-trigger", "600000");
        let port = tls_port
            .as_ref()
            .map_or(sentinel.port(), ReservedPort::number);
        self.sentinel_ports.push(port);
        self.reserved.extend(tls_port);
        self.sentinels.push(sentinel);
    }

    /// Waits until each sentinel knows all others and all replicas.
    pub fn until_known(&self) {
        let (replicas, others) = (self.servers.len() - 1, self.sentinels.len() - 1);
        for sentinel in &self.sentinels {
            wait::until("a sentinel knows all", SOON, || {
                let about: Vec<String> = sentinel.run(&format!("SENTINEL MASTER {NAME}"));
                let is = |name: &str, value: usize| {
                    about
                        .chunks(2)
                        .any(|pair| pair[0] == name && pair[1] == value.to_string())
                };
                is("num-slaves", replicas) && is("num-other-sentinels", others)
            });
        }
    }

    /// Has the sentinels ask each server for its role twice a second, instead of each 10 seconds.
    pub fn ask_often(&self) {
        for sentinel in &self.sentinels {
            tune(sentinel, "info-period", "500");
        }
    }

    /// Waits until each sentinel has seen that all servers but the master are replicas. One that knows
    /// a server as a master still undoes its next promotion.
    pub fn until_seen_as_replicas(&self) {
        for sentinel in &self.sentinels {
            wait::until("a sentinel sees that all are replicas", SOON, || {
                let about: Vec<Vec<String>> = sentinel.run(&format!("SENTINEL REPLICAS {NAME}"));
                let seen = about.iter().filter(|replica| {
                    let mut fields = replica.chunks(2);
                    fields.any(|pair| pair[0] == "role-reported" && pair[1] == "slave")
                });
                seen.count() == self.servers.len() - 1
            });
        }
    }

    /// A URL that names all sentinels.
    pub fn url(&self) -> String {
        self.url_of(0..self.sentinels.len())
    }

    /// A URL that names these sentinels.
    pub fn url_of(&self, sentinels: impl IntoIterator<Item = usize>) -> String {
        let hosts: Vec<String> = sentinels
            .into_iter()
            .map(|at| format!("127.0.0.1:{}", self.sentinel_ports[at]))
            .collect();
        format!("redis+sentinel://{}/{NAME}", hosts.join(","))
    }

    /// A question about the master to each sentinel, over a connection that is there already.
    pub fn names(&self) -> Names {
        let connections = self
            .sentinels
            .iter()
            .map(|sentinel| sentinel.connect().expect("a connection to a sentinel"))
            .collect();
        Names {
            connections,
            ports: self.ports.clone(),
        }
    }

    /// Has a replica promoted though the master is well, and waits until a sentinel names it:
    /// the new master, and when that was seen.
    #[track_caller]
    pub fn fail_over(&self) -> (usize, Instant) {
        let mut names = self.names();
        let before = names.all()[0].expect("there is a master");
        wait::until("a failover begins", SOON, || {
            let words = ["SENTINEL", "FAILOVER", NAME];
            self.sentinels[0].try_run::<()>(&words).is_ok()
        });
        names.until_another(before)
    }
}

/// Sets one of a sentinel's own times, in milliseconds. One before Redis 7 can't be told.
fn tune(sentinel: &RedisServer, option: &str, value: &str) {
    let _ = sentinel.try_run::<()>(&["SENTINEL", "DEBUG", option, value]);
}

/// The options of one server that speaks TLS, and at which port; none, where there are no files.
fn tls_options<'a>(
    files: impl ExactSizeIterator<Item = (&'a str, &'a String)>,
) -> (Vec<(String, String)>, Option<ReservedPort>) {
    if files.len() == 0 {
        return (Vec::new(), None);
    }
    let port = ReservedPort::new();
    let options = [
        ("tls-port", port.number().to_string()),
        ("tls-auth-clients", "no".to_owned()),
        ("tls-replication", "yes".to_owned()),
    ]
    .map(|(name, value)| (name.to_owned(), value));
    let files = files.map(|(name, file)| (name.to_owned(), file.clone()));
    (options.into_iter().chain(files).collect(), Some(port))
}

/// Whom the sentinels name.
pub struct Names {
    connections: Vec<Connection>,
    ports: Vec<u16>,
}

impl Names {
    /// The place of the server that each sentinel names; `None`: another one, or no answer.
    pub fn all(&mut self) -> Vec<Option<usize>> {
        let mut ask = redis::cmd("SENTINEL");
        ask.arg("get-master-addr-by-name").arg(NAME);
        self.connections
            .iter_mut()
            .map(|connection| {
                let (_, port): (String, u16) = ask.query(connection).ok()?;
                self.ports.iter().position(|known| *known == port)
            })
            .collect()
    }

    /// Waits until the first of them names another server: that, and when it was seen.
    #[track_caller]
    pub fn until_another(&mut self, than: usize) -> (usize, Instant) {
        let mut named = None;
        wait::until("another master is named", SOON, || {
            named = self.all().into_iter().flatten().find(|it| *it != than);
            named.is_some()
        });
        (named.expect("it was seen"), Instant::now())
    }

    /// Waits until all of them name that server.
    #[track_caller]
    pub fn until_all(&mut self, server: usize) -> Instant {
        wait::until("all sentinels name the new master", SOON, || {
            self.all().into_iter().all(|named| named == Some(server))
        });
        Instant::now()
    }
}
