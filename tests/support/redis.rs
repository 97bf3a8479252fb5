//! A real `redis-server` on a free port of its own, to be frozen, killed and restarted.

use std::collections::BTreeSet;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, OnceLock};
use std::time::Duration;

use redis::{Cmd, Connection, FromRedisValue, RedisResult};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use super::ports::ReservedPort;
use super::wait;

/// The failure on a machine without the server. Never a skip: a promise that was not
/// tested was not kept.
const MISSING: &str = "these tests need redis-server, which can't be started here.\n\
    Install it: apt-get install redis-server | dnf install redis | brew install redis\n\
    (scripts/test does so by itself), or set REDIS_SERVER to its path.";

/// Options that a Redis before 7 calls otherwise, or (`None`) does not have and does not need.
const BEFORE_7: [(&str, Option<&str>); 3] = [
    ("--busy-reply-threshold", Some("--lua-time-limit")),
    ("--enable-protected-configs", None),
    ("--loading-process-events-interval-bytes", None),
];

/// The program that these tests start.
pub fn program() -> String {
    std::env::var("REDIS_SERVER").unwrap_or_else(|_| "redis-server".to_owned())
}

/// Its major version: that of Redis, or of Valkey, which begins with 7. It is asked once.
fn major_version() -> u32 {
    static VERSION: OnceLock<u32> = OnceLock::new();
    *VERSION.get_or_init(|| {
        let asked = Command::new(program()).arg("--version").output();
        let output = asked.unwrap_or_else(|error| panic!("{error}: {MISSING}"));
        let text = String::from_utf8_lossy(&output.stdout);
        text.split_whitespace()
            .find_map(|word| word.strip_prefix("v=")?.split('.').next()?.parse().ok())
            .unwrap_or_else(|| panic!("no version in {text:?}"))
    })
}

/// The same options, by the names that this server knows.
fn as_known_to(version: u32, arguments: &[String]) -> Vec<String> {
    if version >= 7 {
        return arguments.to_vec();
    }
    let mut known = Vec::new();
    let mut is_left_out = false;
    for word in arguments {
        let renamed = BEFORE_7.iter().find(|(name, _)| name == word);
        is_left_out = match renamed {
            Some((_, name)) => name.is_none(),
            None => is_left_out && !word.starts_with("--"),
        };
        if !is_left_out {
            let name = renamed.and_then(|(_, name)| *name);
            known.push(name.unwrap_or(word).to_owned());
        }
    }
    known
}

/// How long a server may take to answer its first PING on a busy machine.
const START: Duration = Duration::from_secs(20);

/// So many lines of its log are shown where a test has failed.
const LOG_SHOWN: usize = 30;

pub struct RedisServer {
    process: Option<Child>,
    port: u16,
    /// Keeps the port for it while it is down.
    reserved: Option<ReservedPort>,
    arguments: Vec<String>,
    /// It is a sentinel, with these lines in its configuration besides.
    sentinel: Option<String>,
    environment: Vec<(String, String)>,
    directory: TempDir,
    login: Option<(String, String)>,
}

impl RedisServer {
    pub fn start() -> Self {
        Self::with(&[])
    }

    /// One that keeps its data when it is killed and restarted.
    pub fn durable() -> Self {
        Self::with(&["--appendonly", "yes", "--appendfsync", "always"])
    }

    /// With further arguments of its command line, such as `["--requirepass", "x"]`.
    pub fn with(arguments: &[&str]) -> Self {
        Self::under(arguments, &[])
    }

    /// With further environment, too.
    pub fn under(arguments: &[&str], environment: &[(&str, &str)]) -> Self {
        let mut server = Self::new(arguments);
        server.environment = environment
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        server.started(|server| server.port = free_port())
    }

    /// With a port that no other test gets while it is down, and a bus port with it: for the
    /// nodes of a cluster, and for what sentinels watch.
    pub fn reserved(arguments: &[&str]) -> Self {
        Self::new(arguments).started(Self::reserve)
    }

    /// A sentinel, with these lines in its configuration. It writes what it learns there, and
    /// knows it again when it is restarted.
    pub fn sentinel(lines: &str) -> Self {
        let mut server = Self::new(&[]);
        server.sentinel = Some(lines.to_owned());
        let password = lines
            .lines()
            .find_map(|line| line.strip_prefix("requirepass "));
        server.login = password.map(|password| ("default".to_owned(), password.to_owned()));
        server.started(Self::reserve)
    }

    fn new(arguments: &[&str]) -> Self {
        let mut server = Self {
            process: None,
            port: 0,
            reserved: None,
            arguments: arguments.iter().map(|text| (*text).to_owned()).collect(),
            sentinel: None,
            environment: Vec::new(),
            directory: tempfile::tempdir().expect("a temporary directory"),
            login: None,
        };
        if let Some(at) = arguments.iter().position(|text| *text == "--requirepass") {
            server.login = Some(("default".to_owned(), arguments[at + 1].to_owned()));
        }
        server
    }

    fn reserve(&mut self) {
        let reserved = ReservedPort::new();
        self.port = reserved.number();
        self.reserved = Some(reserved);
    }

    /// Another program may take the port between our check and the server's.
    fn started(mut self, choose_port: fn(&mut Self)) -> Self {
        for _ in 0..5 {
            choose_port(&mut self);
            if self.sentinel.is_some() {
                self.configure_sentinel();
            }
            if self.launch() {
                return self;
            }
        }
        panic!(
            "redis-server did not start on five ports, one after the other; see its log in {:?}",
            self.log()
        );
    }

    fn configuration(&self) -> PathBuf {
        self.directory.path().join("sentinel.conf")
    }

    fn configure_sentinel(&self) {
        let lines = self.sentinel.as_deref().unwrap_or_default();
        let text = format!(
            "port {}\nbind 127.0.0.1\ndir {}\nlogfile {}\n{lines}\n",
            self.port,
            self.directory.path().display(),
            self.log().display(),
        );
        std::fs::write(self.configuration(), text).expect("a file for the sentinel");
    }

    fn launch(&mut self) -> bool {
        self.launch_until(|server| server.answers() && server.is_itself())
    }

    /// `false`: it ended before `met` was true.
    fn launch_until(&mut self, met: impl Fn(&Self) -> bool) -> bool {
        let mut command = Command::new(program());
        if self.sentinel.is_some() {
            // The same program: a package without redis-sentinel will do.
            command.arg(self.configuration()).arg("--sentinel");
        } else {
            command
                .args(["--port", &self.port.to_string()])
                .args(["--bind", "127.0.0.1"])
                .args(["--save", "", "--appendonly", "no"])
                .arg("--dir")
                .arg(self.directory.path())
                .arg("--logfile")
                .arg(self.log())
                .args(as_known_to(major_version(), &self.arguments));
        }
        let process = command
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("{error}: {MISSING}"));
        // It ends with the test also where it never answers.
        self.process = Some(process);
        let mut ended = false;
        wait::until("redis-server answers", START, || {
            let process = self.process.as_mut().expect("it was started");
            ended = process.try_wait().expect("its state").is_some();
            ended || met(self)
        });
        if ended {
            self.process = None;
        }
        !ended
    }

    /// Whether it answers a PING as it should.
    pub fn answers(&self) -> bool {
        self.try_run::<String>(&["PING"]).is_ok()
    }

    /// Whether what answers is the process that was started: another program's tests may have taken the
    /// port before it, and then it is about to end.
    fn is_itself(&self) -> bool {
        let id = self.process.as_ref().map(|process| process.id());
        let info = self.try_run::<String>(&["INFO", "server"]);
        info.is_ok_and(|info| {
            let line = info
                .lines()
                .find_map(|line| line.strip_prefix("process_id:"));
            line.and_then(|number| number.trim().parse().ok()) == id
        })
    }

    /// Whether it answers a PING with an error of this code.
    pub fn answers_with(&self, code: &str) -> bool {
        self.try_run::<String>(&["PING"])
            .is_err_and(|error| error.code() == Some(code))
    }

    fn log(&self) -> PathBuf {
        self.directory.path().join("redis.log")
    }

    /// Where it keeps its data.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn url(&self) -> String {
        match &self.login {
            Some((_, password)) => format!("redis://:{password}@127.0.0.1:{}", self.port),
            None => format!("redis://127.0.0.1:{}", self.port),
        }
    }

    pub fn connect(&self) -> RedisResult<Connection> {
        redis::Client::open(self.url())?.get_connection_with_timeout(Duration::from_secs(2))
    }

    /// Runs a command over a fresh connection: `server.run::<i64>("EXISTS k")`. Words are
    /// parted by spaces.
    #[track_caller]
    pub fn run<T: FromRedisValue>(&self, command: &str) -> T {
        let words: Vec<&str> = command.split(' ').collect();
        self.try_run(&words)
            .unwrap_or_else(|error| panic!("{command}: {error}"))
    }

    /// The same, word by word, and with its error.
    pub fn try_run<T: FromRedisValue>(&self, words: &[&str]) -> RedisResult<T> {
        let mut connection = self.connect()?;
        let mut command = Cmd::new();
        for word in words {
            command.arg(*word);
        }
        command.query(&mut connection)
    }

    /// What the text of a lock or a fence says; `None` if there is no such key.
    #[track_caller]
    pub fn text(&self, key: &str) -> Option<serde_json::Value> {
        let text: Option<String> = self.run(&format!("GET {key}"));
        text.map(|text| {
            serde_json::from_str(&text).unwrap_or_else(|error| panic!("{text}: {error}"))
        })
    }

    /// The token of the holding at a lock or a fence.
    #[track_caller]
    pub fn token(&self, key: &str) -> u64 {
        let text = self
            .text(key)
            .unwrap_or_else(|| panic!("there is no {key}"));
        text["token"].as_u64().unwrap_or_else(|| panic!("{text}"))
    }

    /// Its process.
    pub fn id(&self) -> u32 {
        self.process.as_ref().expect("the server runs").id()
    }

    fn pid(&self) -> Pid {
        let process = self.process.as_ref().expect("the server runs");
        Pid::from_child(process)
    }

    /// Stops it in its tracks (SIGSTOP): connections stay open, nothing answers.
    pub fn freeze(&self) {
        kill_process(self.pid(), Signal::STOP).expect("SIGSTOP");
    }

    /// Lets it go on (SIGCONT).
    pub fn thaw(&self) {
        kill_process(self.pid(), Signal::CONT).expect("SIGCONT");
    }

    /// Ends it as a power cut would (SIGKILL).
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            // It may be frozen, or gone already.
            let _ = process.kill();
            let _ = process.wait();
        }
    }

    /// Starts it again on the same port, after [`kill`](Self::kill).
    pub fn restart(&mut self) {
        self.kill();
        assert!(
            self.launch(),
            "redis-server did not start again: {:?}",
            self.log()
        );
    }
}

impl RedisServer {
    /// Asks it to end (SIGTERM), and waits until it has: a master first waits for its
    /// replicas, up to 10 seconds (`shutdown-timeout`).
    pub fn terminate(&mut self) {
        kill_process(self.pid(), Signal::TERM).expect("SIGTERM");
        let process = self.process.as_mut().expect("the server runs");
        wait::until("the server ends", START, || {
            process.try_wait().expect("its state").is_some()
        });
        self.process = None;
    }

    /// From now on it keeps its data when it is killed and restarted. (What it writes to its
    /// file survives its process, without a sync.)
    pub fn keep_data(&mut self) {
        let () = self.run("CONFIG SET appendfsync no");
        let () = self.run("CONFIG SET appendonly yes");
        wait::until("its data is in its file", START, || {
            self.info("aof_rewrite_in_progress") + self.info("aof_rewrite_scheduled") == 0
        });
        let keep = ["--appendonly", "yes", "--appendfsync", "no"];
        self.arguments.extend(keep.map(str::to_owned));
    }

    /// Starts it again at another port, after [`kill`](Self::kill): it has moved.
    pub fn restart_elsewhere(&mut self) {
        self.kill();
        self.reserve();
        self.restart();
    }

    /// A master loses its replicas for good, and a replica that it asks to come back is
    /// refused; clients notice nothing. What is written from now on reaches no replica, for
    /// certain: a frozen one would read it from its socket when it wakes.
    pub fn part_from_replicas(&self) {
        let () = self.run("ACL SETUSER default -psync -sync");
        let _: i64 = self.run("CLIENT KILL TYPE replica");
        wait::until("it has no replica", START, || {
            self.info("connected_slaves") == 0
        });
    }

    /// It asks new connections for a password from now on; whatever is connected already goes on.
    pub fn demand_password(&mut self) {
        let () = self.run("CONFIG SET requirepass sesame");
        self.login = Some(("default".to_owned(), "sesame".to_owned()));
    }

    /// Replicas and sentinels lose a master: only clients that are connected already still
    /// reach it.
    pub fn cut_off(&mut self) {
        self.part_from_replicas();
        self.demand_password();
        let list: String = self.run("CLIENT LIST");
        for client in list.lines() {
            let field = |name: &str| {
                client
                    .split(' ')
                    .find_map(|field| field.strip_prefix(name)?.strip_prefix('='))
                    .unwrap_or_default()
            };
            if field("name").starts_with("sentinel") {
                let _: i64 = self.run(&format!("CLIENT KILL ID {}", field("id")));
            }
        }
        let _: i64 = self.run("CLIENT KILL TYPE pubsub");
    }

    /// Whether it says that it is a master. Where it does not answer, that is not known: a
    /// server hangs up on its clients when sentinels make it another's replica.
    pub fn is_master(&self) -> bool {
        self.role().as_deref() == Some("master")
    }

    /// Whether it is a replica that has its master's data.
    pub fn is_in_sync(&self) -> bool {
        let info = self.try_run::<String>(&["INFO", "replication"]);
        info.is_ok_and(|info| info.contains("master_link_status:up"))
    }

    /// Whether it is a replica, as it says itself.
    pub fn is_replica(&self) -> bool {
        self.role().as_deref() == Some("slave")
    }

    /// A question that may be asked again: sentinels have a server hang up on its clients when
    /// they make it another's replica.
    fn ask(&self, question: &str) -> String {
        let words: Vec<&str> = question.split(' ').collect();
        let mut answer = None;
        wait::until("the server answers", START, || {
            answer = self.try_run(&words).ok();
            answer.is_some()
        });
        answer.expect("it answered")
    }

    fn role(&self) -> Option<String> {
        let role = self.try_run::<Vec<redis::Value>>(&["ROLE"]).ok()?;
        redis::from_redis_value(role.into_iter().next()?).ok()
    }

    /// How many scripts of ours it was asked to run, by hash or by text.
    pub fn scripts(&self) -> u64 {
        self.calls("evalsha") + self.calls("eval")
    }

    /// How often it has answered with an error of that code.
    pub fn errors(&self, code: &str) -> u64 {
        let info = self.ask("INFO errorstats");
        info.lines()
            .find_map(|line| line.strip_prefix(&format!("errorstat_{code}:count=")))
            .map_or(0, |count| count.trim().parse().expect("a count"))
    }

    /// How many connections of lockers it has now, but for subscriptions: all that are not of a
    /// sentinel, of another server that moves keys, or of the one that asks.
    pub fn connections(&self) -> usize {
        let list = self.ask("CLIENT LIST TYPE normal");
        let is_ours = |line: &&str| {
            let others = [" name=sentinel-", " cmd=client", " cmd=restore"];
            !line.is_empty() && !others.iter().any(|other| line.contains(other))
        };
        list.lines().filter(is_ours).count()
    }
}

/// The text of a fence whose last token is this.
pub fn fence_text(token: &str) -> String {
    format!(
        r#"{{"applock":1,"state":"released","owner":"00","ttl":1000,"remember":600000,"token":{token},"acquired_at":1}}"#
    )
}

impl RedisServer {
    /// Starts it again as [`restart`](Self::restart) does, only until it is seen to load
    /// its data.
    pub fn restart_loading(&mut self) {
        self.kill();
        assert!(
            self.launch_until(|server| server.answers_with("LOADING")),
            "redis-server did not start again: {:?}",
            self.log()
        );
    }

    /// The microseconds of its clock.
    pub fn time(&self) -> Duration {
        let (seconds, micros): (u64, u64) = self.run("TIME");
        Duration::from_secs(seconds) + Duration::from_micros(micros)
    }

    /// How often the command was called, by clients and by scripts.
    pub fn calls(&self, command: &str) -> u64 {
        let info = self.ask("INFO commandstats");
        info.lines()
            .find_map(|line| line.strip_prefix(&format!("cmdstat_{command}:calls=")))
            .and_then(|rest| rest.split(',').next())
            .map_or(0, |count| count.parse().expect("a count"))
    }

    /// A number out of `INFO`.
    pub fn info(&self, field: &str) -> u64 {
        let info = self.ask("INFO everything");
        info.lines()
            .find_map(|line| line.strip_prefix(&format!("{field}:")))
            .and_then(|value| value.trim().parse().ok())
            .unwrap_or_else(|| panic!("INFO has no {field}"))
    }
}

impl Drop for RedisServer {
    /// Where the test has failed, the end of the log is shown: the file is gone afterwards.
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            let log = std::fs::read(self.log()).unwrap_or_default();
            let log = String::from_utf8_lossy(&log);
            let lines: Vec<&str> = log.lines().collect();
            let end = &lines[lines.len().saturating_sub(LOG_SHOWN)..];
            println!(
                "the log of the server at {}:\n{}",
                self.port,
                end.join("\n")
            );
        }
    }
}

/// A port where nothing listens now. No port is given out twice in a process: an address
/// in the log belongs to one test.
fn free_port() -> u16 {
    static GIVEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());
    loop {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("its address").port();
        if GIVEN.lock().expect("the ports").insert(port) {
            return port;
        }
    }
}
