//! A real `redis-server` on a free port of its own, to be frozen, killed and restarted.

use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use redis::{Cmd, Connection, FromRedisValue, RedisResult};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use super::wait;

/// What a machine without the server is told. Never a skip: a promise that was not
/// tested was not kept.
const MISSING: &str = "these tests need redis-server, which can't be started here.\n\
    Install it: apt-get install redis-server | dnf install redis | brew install redis\n\
    (scripts/test does so by itself), or set REDIS_SERVER to its path.";

/// How long a server may take to answer its first PING on a busy machine.
const START: Duration = Duration::from_secs(20);

pub struct RedisServer {
    process: Option<Child>,
    port: u16,
    arguments: Vec<String>,
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
        let mut server = Self {
            process: None,
            port: free_port(),
            arguments: arguments.iter().map(|text| (*text).to_owned()).collect(),
            directory: tempfile::tempdir().expect("a temporary directory"),
            login: None,
        };
        if let Some(at) = arguments.iter().position(|text| *text == "--requirepass") {
            server.login = Some(("default".to_owned(), arguments[at + 1].to_owned()));
        }
        // Somebody else may take the port between our look and the server's.
        for _ in 0..5 {
            if server.launch() {
                return server;
            }
            server.port = free_port();
        }
        panic!(
            "redis-server did not start on five ports in turn; see its log in {:?}",
            server.log()
        );
    }

    fn launch(&mut self) -> bool {
        let program = std::env::var("REDIS_SERVER").unwrap_or_else(|_| "redis-server".to_owned());
        let mut process = Command::new(program)
            .args(["--port", &self.port.to_string()])
            .args(["--bind", "127.0.0.1"])
            .args(["--save", "", "--appendonly", "no"])
            .arg("--dir")
            .arg(self.directory.path())
            .arg("--logfile")
            .arg(self.log())
            .args(&self.arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("{error}: {MISSING}"));
        let mut ended = false;
        wait::until("redis-server answers", START, || {
            ended = process.try_wait().expect("its state").is_some();
            ended || self.answers()
        });
        self.process = Some(process);
        !ended
    }

    fn answers(&self) -> bool {
        self.connect()
            .and_then(|mut connection| redis::cmd("PING").query::<String>(&mut connection))
            .is_ok()
    }

    fn log(&self) -> PathBuf {
        self.directory.path().join("redis.log")
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

impl Drop for RedisServer {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A port where nothing listens now.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("its address").port()
}
