//! The same on a real server: fewer steps, and only as much time as really passes.
//!
//! The scripts are given the time of the step in place of `TIME`, so that tokens and tickets
//! can be compared exactly; leases run by the server's own clock.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, TcpListener};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use redis::{Cmd, Connection, ConnectionLike as _, Value};

use super::{Pair, ScriptServer};
use crate::simulation::asked_seed;
use crate::store::redis::script::ScriptCall;

/// How much a busy machine may hold a step up.
const SLACK: u64 = 700;

/// How long the server may take to start, or a connection to end.
const SOON: Duration = Duration::from_secs(20);

/// A server of our own, which ends with this.
struct Real {
    _process: ServerProcess,
    client: redis::Client,
    connection: Connection,
    run: String,
    /// By channel.
    subscribers: BTreeMap<String, Connection>,
    now: u64,
}

struct ServerProcess(Child);

impl Drop for ServerProcess {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn start(port: u16) -> ServerProcess {
    let asked = std::env::var("REDIS_SERVER").ok();
    let programs = asked.map_or_else(
        || vec!["redis-server".to_owned(), "valkey-server".to_owned()],
        |program| vec![program],
    );
    let port = port.to_string();
    let options = ["--save", "", "--appendonly", "no", "--bind", "127.0.0.1"];
    for program in programs {
        let mut command = Command::new(program);
        command.args(["--port", &port]).args(options);
        command.stdin(Stdio::null()).stdout(Stdio::null());
        if let Ok(child) = command.spawn() {
            return ServerProcess(child);
        }
    }
    panic!(
        "this test needs redis-server (or valkey-server): `apt-get install redis-server`, or set \
         REDIS_SERVER to its path"
    );
}

/// Of the machine's clock.
fn millis() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    u64::try_from(now.as_millis()).unwrap()
}

fn until<T>(what: &str, mut attempt: impl FnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(done) = attempt() {
            return done;
        }
        assert!(started.elapsed() < SOON, "not in time: {what}");
        sleep(Duration::from_millis(5));
    }
}

impl Real {
    fn new() -> Self {
        let port = {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
            listener.local_addr().unwrap().port()
        };
        let process = start(port);
        let client = redis::Client::open(format!("redis://127.0.0.1:{port}")).unwrap();
        let mut connection = until("the server answers", || client.get_connection().ok());
        let info: String = redis::cmd("INFO")
            .arg("server")
            .query(&mut connection)
            .unwrap();
        let run = info.lines().find_map(|line| line.strip_prefix("run_id:"));
        Self {
            _process: process,
            client,
            run: run.unwrap().trim().to_owned(),
            connection,
            subscribers: BTreeMap::new(),
            now: 0,
        }
    }

    /// The connections that are subscribed to a channel.
    fn subscribed(&mut self, channel: &str) -> i64 {
        let mut count = redis::cmd("PUBSUB");
        count.arg("NUMSUB").arg(channel);
        let (_, count): (String, i64) = count.query(&mut self.connection).unwrap();
        count
    }
}

impl ScriptServer for Real {
    fn begin(&mut self) -> u64 {
        // Never backward, whatever is done to the machine's clock.
        self.now = self.now.max(millis());
        self.now
    }

    fn ask(&mut self, call: &ScriptCall) -> Value {
        let clock = format!("{{'{}','{}'}}", self.now / 1_000, self.now % 1_000 * 1_000);
        let told = call.by_text();
        let mut command = Cmd::new();
        for (index, word) in told.args_iter().enumerate() {
            let redis::Arg::Simple(bytes) = word else {
                unreachable!("a script is no cursor");
            };
            if index == 1 {
                let text = std::str::from_utf8(bytes).unwrap();
                command.arg(text.replace("redis.call('TIME')", &clock));
            } else {
                command.arg(bytes);
            }
        }
        command.query(&mut self.connection).unwrap()
    }

    fn command(&mut self, words: &[&str]) -> Value {
        let mut command = Cmd::new();
        for word in words {
            command.arg(word);
        }
        command.query(&mut self.connection).unwrap()
    }

    fn pass(&mut self, millis: u64) {
        sleep(Duration::from_millis(millis));
    }

    fn lengths(&self) -> &'static [u64] {
        &[1, 1, 1, 2, 5, 20]
    }

    fn ttls(&self) -> &'static [u64] {
        &[60_000, 300_000]
    }

    fn remembers(&self) -> &'static [u64] {
        &[60_000, 604_800_000]
    }

    fn keep(&self, rng: &mut fastrand::Rng) -> u64 {
        rng.u64(30_000..60_000)
    }

    fn subscribe(&mut self, channel: &str, listens: bool) {
        if listens == self.subscribers.contains_key(channel) {
            return;
        }
        if listens {
            let mut connection = self.client.get_connection().unwrap();
            connection.set_read_timeout(Some(SOON)).unwrap();
            let subscribe = redis::cmd("SUBSCRIBE").arg(channel).get_packed_command();
            connection.req_packed_command(&subscribe).unwrap();
            self.subscribers.insert(channel.to_owned(), connection);
        } else {
            drop(self.subscribers.remove(channel));
            until("a subscription ends", || {
                (self.subscribed(channel) == 0).then_some(())
            });
        }
    }

    /// What is published is on its way before the script's answer is: a `PING` comes after it.
    fn published(&mut self) -> Vec<(String, String)> {
        let ping = redis::cmd("PING").get_packed_command();
        let mut heard = Vec::new();
        for connection in self.subscribers.values_mut() {
            connection.send_packed_command(&ping).unwrap();
            loop {
                let words: Vec<String> =
                    redis::from_redis_value(connection.recv_response().unwrap()).unwrap();
                match &words[..] {
                    [kind, channel, message] if kind == "message" => {
                        heard.push((channel.clone(), message.clone()));
                    }
                    _ => break,
                }
            }
        }
        heard
    }

    fn restart(&mut self) -> Option<String> {
        None
    }

    fn run_id(&self) -> String {
        self.run.clone()
    }

    fn forget(&mut self) {
        self.command(&["FLUSHALL"]);
    }

    fn slack(&self) -> u64 {
        SLACK
    }

    fn is_held_up(&self) -> bool {
        millis().saturating_sub(self.now) > SLACK
    }
}

#[test]
fn the_scripts_decide_as_the_protocol_does_on_a_real_server() {
    let seed = asked_seed().unwrap_or(1);
    Pair::new(Real::new(), seed).run(1_000);
}
