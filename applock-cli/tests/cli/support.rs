//! Runs the command, and looks at the processes that come of it.

use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

#[path = "../../../tests/support/cluster.rs"]
#[allow(dead_code, reason = "this program uses a part of it")]
pub mod cluster;
#[path = "../../../tests/support/ports.rs"]
#[allow(dead_code, reason = "this program uses a part of it")]
pub mod ports;
#[path = "../../../tests/support/redis.rs"]
#[allow(dead_code, reason = "this program uses a part of it")]
pub mod redis;
#[path = "../../../tests/support/sentinel.rs"]
#[allow(dead_code, reason = "this program uses a part of it")]
pub mod sentinel;
#[path = "../../../tests/support/sets.rs"]
pub mod sets;
#[path = "../../../tests/support/wait.rs"]
#[allow(dead_code, reason = "this program uses a part of it")]
pub mod wait;

pub use redis::RedisServer;

/// How long anything may take on a busy machine.
pub const LONGEST: Duration = Duration::from_secs(60);

/// `applock` with these arguments, parted by blanks, and no environment but what it needs.
pub fn applock(url: &str, arguments: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_applock"));
    command
        .args(arguments.split_whitespace())
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("APPLOCK_URL", url)
        .stdin(Stdio::null());
    command
}

/// A script under the lock `jobs`, with these arguments of `run`.
pub fn run(url: &str, arguments: &str, script: &str) -> Command {
    let mut command = applock(url, &format!("run --app jobs {arguments} --"));
    command.args(["sh", "-c", script]);
    command
}

pub fn output(command: &mut Command) -> Output {
    command.output().expect("applock runs")
}

pub fn code(command: &mut Command) -> Option<i32> {
    output(command).status.code()
}

pub fn out(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).expect("UTF-8")
}

pub fn err(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).expect("UTF-8")
}

/// A running `applock`, whose command tells us things on its standard output.
pub struct Running {
    process: Child,
    says: Receiver<String>,
}

impl Running {
    pub fn start(command: &mut Command) -> Self {
        let mut process = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("applock runs");
        let out = process.stdout.take().expect("its output");
        let (tell, says) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(out).lines().map_while(Result::ok) {
                if tell.send(line).is_err() {
                    break;
                }
            }
        });
        Self { process, says }
    }

    /// The next line of the command.
    #[track_caller]
    pub fn says(&mut self) -> String {
        match self.says.recv_timeout(LONGEST) {
            Ok(line) => line,
            Err(error) => panic!("the command says nothing: {error}"),
        }
    }

    /// All that is still said, by whatever has the output open.
    pub fn rest(&mut self) -> String {
        let mut rest = String::new();
        loop {
            match self.says.recv_timeout(LONGEST) {
                Ok(line) => rest.push_str(&line),
                Err(RecvTimeoutError::Disconnected) => return rest,
                Err(error) => panic!("the output is open still: {error}"),
            }
        }
    }

    pub fn pid(&self) -> Pid {
        Pid::from_child(&self.process)
    }

    /// The process between applock and the command.
    #[track_caller]
    pub fn keeper(&self) -> Pid {
        let keeper = children(self.pid());
        assert_eq!(keeper.len(), 1, "applock has one child");
        keeper[0]
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).expect("it runs");
    }

    pub fn has_ended(&mut self) -> bool {
        self.process.try_wait().expect("its state").is_some()
    }

    /// Its exit code, when it has ended.
    #[track_caller]
    pub fn ends(&mut self) -> Option<i32> {
        let mut status = None;
        wait::until("applock ends", LONGEST, || {
            status = self.process.try_wait().expect("its state");
            status.is_some()
        });
        status.and_then(|status| status.code())
    }

    /// The end of its standard input.
    pub fn hang_up(&mut self) {
        drop(self.process.stdin.take());
    }

    /// What applock itself has said, once it has ended.
    pub fn complaints(&mut self) -> String {
        let mut text = String::new();
        let mut stderr = self.process.stderr.take().expect("its errors");
        stderr.read_to_string(&mut text).expect("UTF-8");
        text
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

pub fn pid(text: &str) -> Pid {
    let number = text.trim().parse().unwrap_or_else(|_| panic!("{text:?}"));
    Pid::from_raw(number).expect("a process id")
}

pub fn children(of: Pid) -> Vec<Pid> {
    let of = of.as_raw_nonzero();
    std::fs::read_to_string(format!("/proc/{of}/task/{of}/children"))
        .unwrap_or_default()
        .split_whitespace()
        .map(pid)
        .collect()
}

/// The fields of /proc/PID/stat from the state on. `None`: there is no such process.
fn stat(of: Pid) -> Option<Vec<String>> {
    let of = of.as_raw_nonzero();
    let stat = std::fs::read_to_string(format!("/proc/{of}/stat")).ok()?;
    let (_, rest) = stat.rsplit_once(')')?;
    Some(rest.split_whitespace().map(str::to_owned).collect())
}

/// `R`, `S`, `T` (stopped)…
pub fn state(of: Pid) -> Option<String> {
    stat(of).map(|fields| fields[0].clone())
}

pub fn group(of: Pid) -> String {
    stat(of).expect("it runs")[2].clone()
}

/// Whether it runs: a zombie does not.
pub fn lives(of: Pid) -> bool {
    !matches!(state(of).as_deref(), None | Some("Z" | "X"))
}

#[track_caller]
pub fn dies(of: Pid) {
    wait::until("the process is dead", LONGEST, || !lives(of));
}
