//! The keeper: the process between applock and the command. It starts the command, ends it, and
//! reaps it; and it ends all of it when applock has died.
//!
//! It is one thread, so it may fork. It holds no lock and speaks to no store. Its loop is a `poll` of
//! the socket and of the command's process, without an event loop: the one that it has a copy of is
//! applock's, and is not to be touched.
//!
//! | what it sees | what it does |
//! |---|---|
//! | `Start` | forks, and runs the command in a process group of its own |
//! | the command has ended | TERM to what it left in its group, KILL after a while; then tells |
//! | `Lost`, or the end of the lease | TERM to the group, KILL after a while, to all that came of it |
//! | the end of the socket: applock is dead | KILL to all that came of it |
//!
//! # The dangers
//!
//! - *A signal that hits a stranger.* The group's number belongs to the command's process until
//!   that is reaped, and to the group as long as it has a member. Single processes are killed only
//!   while they are children of the keeper: those can't be reaped, and their numbers not be given
//!   to others, but by the keeper.
//! - *A process that leaves the group* (`setsid`, a daemon). On Linux the keeper is its subreaper:
//!   when its parent dies, it becomes a child of the keeper's, and is found as that.

use std::io::{self, Read as _, Write as _};
#[cfg(target_os = "linux")]
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::process::Command;
use std::time::{Duration, Instant};

use fork::Fork;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{
    Pid, Signal, WaitOptions, WaitStatus, getpgrp, getpid, kill_process, kill_process_group,
    setpgid, test_kill_process_group, wait,
};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};

use crate::exit::{self, Failure, quoted};

use super::message::{self, FromKeeper, Start, ToKeeper};
use super::program::{self, Program};

/// What the keeper needs to know, from before it is forked.
pub(super) struct Orders {
    pub(super) program: Program,
    /// The group that the command is to be in: that of the terminal's foreground. `None`: one of
    /// its own.
    pub(super) group: Option<Pid>,
    /// From TERM to KILL.
    pub(super) kill_after: Duration,
}

/// How long a process may take to die of KILL before it is given up: one that hangs in the kernel
/// (a network file system) never does.
const DEATH: Duration = Duration::from_secs(10);

/// How often the group is looked at that is about to end: only its own children tell the keeper of
/// their end.
const LOOK: Duration = Duration::from_millis(10);

/// The longest sleep: after a suspend of the machine timers are late, the lease's clock is not.
const LONGEST_SLEEP: Duration = Duration::from_secs(1);

impl Orders {
    pub(super) fn new(program: Program, foreground: bool, kill_after: Duration) -> Self {
        Self {
            program,
            group: foreground.then(getpgrp),
            kill_after,
        }
    }
}

/// applock's end of the socket.
pub(super) struct Keeper(UnixStream);

/// The same, in applock's event loop.
pub(super) struct Connected {
    lines: Lines<BufReader<OwnedReadHalf>>,
    out: OwnedWriteHalf,
}

/// Forks the keeper off. Only while there is one thread.
pub(super) fn fork(orders: Orders) -> Result<Keeper, Failure> {
    let failed =
        |error: io::Error| Failure::new(exit::FAILED, format!("no second process: {error}"));
    let (ours, keepers) = UnixStream::pair().map_err(failed)?;
    match fork::fork().map_err(failed)? {
        Fork::Parent(_) => Ok(Keeper(ours)),
        Fork::Child => {
            drop(ours);
            // Whatever the outcome: the end of the socket tells it. No destructors run: what this
            // process has in memory is a copy of applock's, and its event loop is shared with it.
            let _ = keep(keepers, &orders);
            std::process::exit(0);
        }
    }
}

impl Keeper {
    pub(super) fn connect(self) -> Result<Connected, Failure> {
        connect(self.0).map_err(|error| Failure::new(exit::FAILED, format!("no socket: {error}")))
    }
}

fn connect(socket: UnixStream) -> io::Result<Connected> {
    socket.set_nonblocking(true)?;
    let (read, out) = tokio::net::UnixStream::from_std(socket)?.into_split();
    let lines = BufReader::new(read).lines();
    Ok(Connected { lines, out })
}

impl Connected {
    /// Tells the other side. If that is gone, `next` says so.
    pub(super) async fn send<M: serde::Serialize>(&mut self, message: &M) {
        if let Ok(mut line) = serde_json::to_string(message) {
            line.push('\n');
            let _ = self.out.write_all(line.as_bytes()).await;
        }
    }

    /// What the other side says next; `None`: it is gone. Cancellation safe.
    pub(super) async fn next<M: serde::de::DeserializeOwned>(&mut self) -> Option<M> {
        let line = self.lines.next_line().await.ok()??;
        serde_json::from_str(&line).ok()
    }
}

/// Kills what the keeper has left, should it be gone.
pub(super) fn kill(command: i32, foreground: bool) {
    if let Some(command) = Pid::from_raw(command).filter(|_| !foreground) {
        // It may be empty.
        let _ = kill_process_group(command, Signal::KILL);
    }
}

fn keep(socket: UnixStream, orders: &Orders) -> io::Result<()> {
    // The terminal's signals are for applock, which passes them on.
    setpgid(None, None)?;
    #[cfg(target_os = "linux")]
    {
        rustix::process::set_child_subreaper(Some(getpid()))?;
        // Who kills every process called applock shall not kill the one that cleans up after it.
        rustix::thread::set_name(c"lock-keeper")?;
    }
    keep_watch(&mut Socket::new(socket), orders)
}

/// The keeper's end of the socket.
struct Socket {
    stream: UnixStream,
    /// What has come and is no whole line yet.
    read: Vec<u8>,
}

/// What has come over the socket.
enum Told {
    Message(ToKeeper),
    /// No whole one yet.
    Nothing,
    /// applock is dead, or speaks no sense.
    Gone,
}

impl Socket {
    fn new(stream: UnixStream) -> Self {
        Self {
            stream,
            read: Vec::new(),
        }
    }

    /// Tells applock. If that is gone, `next` says so.
    fn send(&mut self, message: &FromKeeper) {
        if let Ok(mut line) = serde_json::to_string(message) {
            line.push('\n');
            let _ = self.stream.write_all(line.as_bytes());
        }
    }

    /// A whole line that is here already.
    fn line(&mut self) -> Option<Told> {
        let end = self.read.iter().position(|byte| *byte == b'\n')?;
        let line: Vec<u8> = self.read.drain(..=end).collect();
        Some(serde_json::from_slice(&line).map_or(Told::Gone, Told::Message))
    }

    /// The next message. Waits where none has come at all.
    fn next(&mut self) -> Told {
        if let Some(told) = self.line() {
            return told;
        }
        let mut some = [0; 1024];
        match self.stream.read(&mut some) {
            Ok(0) => Told::Gone,
            Ok(count) => {
                self.read
                    .extend_from_slice(some.get(..count).unwrap_or_default());
                self.line().unwrap_or(Told::Nothing)
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Told::Nothing,
            Err(_) => Told::Gone,
        }
    }

    /// Waits for a message, for the end of the command, or for so long. Whether a message can be
    /// read.
    fn wait(&self, command: &Watched, longest: Duration) -> bool {
        if self.read.contains(&b'\n') {
            return true;
        }
        let longest = longest.min(command.longest_sleep());
        let until = longest.try_into().ok();
        let mut all = vec![PollFd::new(&self.stream, PollFlags::IN)];
        all.extend(command.poll_fd());
        // A signal ends it sooner: then the loop looks once more.
        match poll(&mut all, until.as_ref()) {
            Ok(count) => count > 0 && all.first().is_some_and(|fd| !fd.revents().is_empty()),
            Err(_) => false,
        }
    }
}

/// The command's process, as `poll` sees its end.
struct Watched {
    /// `None`: this system has nothing of the kind, so the process is looked at now and then.
    #[cfg(target_os = "linux")]
    process: Option<OwnedFd>,
}

/// How often the command is looked at where its end can't be waited for.
const WITHOUT_PIDFD: Duration = Duration::from_millis(20);

impl Watched {
    fn new(command: Pid) -> Self {
        #[cfg(target_os = "linux")]
        {
            use rustix::process::{PidfdFlags, pidfd_open};
            Self {
                process: pidfd_open(command, PidfdFlags::empty()).ok(),
            }
        }
        #[cfg(not(target_os = "linux"))]
        {
            let _ = command;
            Self {}
        }
    }

    fn poll_fd(&self) -> Option<PollFd<'_>> {
        #[cfg(target_os = "linux")]
        return self
            .process
            .as_ref()
            .map(|process| PollFd::new(process, PollFlags::IN));
        #[cfg(not(target_os = "linux"))]
        None
    }

    fn longest_sleep(&self) -> Duration {
        match self.poll_fd() {
            Some(_) => LONGEST_SLEEP,
            None => WITHOUT_PIDFD,
        }
    }

    /// It has ended: there is nothing to wait for any more, and `poll` would not wait.
    fn forget(&mut self) {
        #[cfg(target_os = "linux")]
        {
            self.process = None;
        }
    }
}

fn keep_watch(applock: &mut Socket, orders: &Orders) -> io::Result<()> {
    // Without a lock there is nothing to start.
    let start = loop {
        match applock.next() {
            Told::Message(ToKeeper::Start(start)) => break start,
            Told::Nothing => {}
            Told::Message(_) | Told::Gone => return Ok(()),
        }
    };
    let command = match start_command(orders, &start) {
        Ok(command) => command,
        Err(failure) => {
            let Failure { code, text } = failure;
            applock.send(&FromKeeper::NotStarted { code, text });
            return Ok(());
        }
    };
    let pid = command.as_raw_nonzero().get();
    applock.send(&FromKeeper::Started { pid });

    let mut watched = Watched::new(command);
    let mut kept = Kept {
        command,
        in_group: orders.group.is_none(),
        kill_after: orders.kill_after,
        lease_end: start.lease_end,
        status: None,
        is_lost: false,
        ending: Ending::NotYet,
    };
    loop {
        kept.reap();
        if kept.status.is_some() {
            watched.forget();
        }
        if !kept.is_lost && message::now() >= kept.lease_end {
            kept.lose();
        }
        if let Some(ended) = kept.ended() {
            applock.send(&ended);
            return Ok(());
        }
        if applock.wait(&watched, kept.longest_sleep()) {
            match applock.next() {
                Told::Message(told) => kept.told(&told),
                Told::Nothing => {}
                Told::Gone => {
                    kept.kill_all();
                    return Ok(());
                }
            }
        }
    }
}

/// Forks, and becomes the command.
fn start_command(orders: &Orders, start: &Start) -> Result<Pid, Failure> {
    let name = &orders.program.name;
    let failed = |code: u8, what: &str| {
        Failure::new(code, format!("{}: {what}", quoted(&name.to_string_lossy())))
    };
    let broken = |error: io::Error| failed(exit::FAILED, &error.to_string());
    // Closed by the kernel when the command takes the process over: what comes through is why it
    // did not.
    let (mut news, mut tell) = UnixStream::pair().map_err(broken)?;
    let keeper = getpid();
    match fork::fork().map_err(broken)? {
        Fork::Parent(raw) => {
            drop(tell);
            let mut trouble = String::new();
            news.read_to_string(&mut trouble).map_err(broken)?;
            let Some(command) = Pid::from_raw(raw) else {
                return Err(failed(exit::FAILED, "it has no process id"));
            };
            match trouble.split_once(' ') {
                None => Ok(command),
                Some((code, what)) => {
                    let _ = rustix::process::waitpid(Some(command), WaitOptions::empty());
                    Err(failed(code.parse().unwrap_or(exit::FAILED), what))
                }
            }
        }
        Fork::Child => {
            let trouble = become_command(orders, start, keeper);
            let code = program::of(&trouble);
            // The keeper reads it, or is dead.
            let _ = write!(tell, "{code} {trouble}");
            std::process::exit(i32::from(code));
        }
    }
}

fn become_command(orders: &Orders, start: &Start, keeper: Pid) -> io::Error {
    let Program {
        name,
        path,
        arguments,
    } = &orders.program;
    if let Err(error) = setpgid(None, orders.group) {
        return error.into();
    }
    #[cfg(target_os = "linux")]
    {
        // The kernel forgets it where the program is another user's (setuid): then the keeper's
        // own kill is left.
        if let Err(error) = rustix::process::set_parent_process_death_signal(Some(Signal::KILL)) {
            return error.into();
        }
    }
    if rustix::process::getppid() != Some(keeper) {
        // It died before we asked to be told.
        return io::Error::other("its keeper has died");
    }
    Command::new(path)
        .arg0(name)
        .args(arguments)
        .env("APPLOCK_TOKEN", start.token.to_string())
        .env("APPLOCK_KEY", &start.key)
        .env("APPLOCK_OWNER", &start.owner)
        .exec()
}

/// The command that is kept, and how far its end has come.
struct Kept {
    command: Pid,
    /// It has a process group of its own.
    in_group: bool,
    kill_after: Duration,
    /// By [`message::now`].
    lease_end: u64,
    /// How the command ended.
    status: Option<WaitStatus>,
    /// Nothing of it may go on.
    is_lost: bool,
    ending: Ending,
}

/// How far the end has come of what is to end.
#[derive(Clone, Copy)]
enum Ending {
    NotYet,
    /// It has got TERM.
    Asked {
        kill_at: Instant,
    },
    /// It has got KILL.
    Killed {
        give_up_at: Instant,
    },
}

impl Kept {
    fn told(&mut self, told: &ToKeeper) {
        match told {
            ToKeeper::Lease(end) => self.lease_end = self.lease_end.max(*end),
            ToKeeper::Signal(number) => {
                let signal = Signal::from_named_raw(*number);
                // In the foreground the terminal has sent it to the command as well.
                if let Some(signal) = signal
                    && (self.in_group || !matches!(signal, Signal::INT | Signal::QUIT))
                {
                    self.send(signal);
                }
            }
            ToKeeper::Pause => self.send(Signal::STOP),
            ToKeeper::Continue => self.send(Signal::CONT),
            ToKeeper::Lost => self.lose(),
            ToKeeper::Start(_) => {}
        }
    }

    /// To the command's group; where it has none, to the command.
    fn send(&self, signal: Signal) {
        // It may be over.
        let _ = if self.in_group {
            kill_process_group(self.command, signal)
        } else if self.status.is_none() {
            kill_process(self.command, signal)
        } else {
            Ok(())
        };
    }

    fn lose(&mut self) {
        if !self.is_lost {
            self.is_lost = true;
            self.ask_to_end();
        }
    }

    fn ask_to_end(&mut self) {
        self.send(Signal::TERM);
        // What stands still could not end.
        self.send(Signal::CONT);
        self.ending = Ending::Asked {
            kill_at: Instant::now() + self.kill_after,
        };
    }

    fn reap(&mut self) {
        while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
            if pid == self.command {
                self.status = Some(status);
            }
        }
    }

    /// Whether anything is left that has to end before the command counts as ended.
    fn has_members(&self) -> bool {
        if self.in_group && test_kill_process_group(self.command).is_ok() {
            return true;
        }
        // What has left the group goes on after a normal end: it is a daemon.
        self.is_lost && !children().is_empty()
    }

    /// What to tell applock, if all has ended.
    fn ended(&mut self) -> Option<FromKeeper> {
        let now = Instant::now();
        match self.ending {
            Ending::Asked { kill_at } if now >= kill_at => {
                self.kill();
                self.ending = Ending::Killed {
                    give_up_at: now + DEATH,
                };
            }
            Ending::Killed { give_up_at } => {
                if now >= give_up_at {
                    return Some(self.report(true));
                }
                self.kill();
            }
            _ => {}
        }
        self.status?;
        if !self.has_members() {
            return Some(self.report(false));
        }
        if matches!(self.ending, Ending::NotYet) {
            self.ask_to_end();
        } else if self.is_lost {
            // The group is empty, and some have left it.
            self.kill_children_outside();
        }
        None
    }

    fn kill(&self) {
        self.send(Signal::KILL);
        if self.is_lost {
            for child in children() {
                let _ = kill_process(child, Signal::KILL);
            }
        }
    }

    /// Once nothing of the group is left, there is nobody to ask those that have left it to end.
    fn kill_children_outside(&self) {
        if !self.in_group || test_kill_process_group(self.command).is_err() {
            self.kill();
        }
    }

    fn report(&self, survivors: bool) -> FromKeeper {
        FromKeeper::Ended {
            code: self.status.map_or(exit::FAILED, exit_code),
            is_lost: self.is_lost,
            survivors,
        }
    }

    /// Until what goes by the clock is to be looked at again.
    fn longest_sleep(&self) -> Duration {
        let until_lease_end = self.lease_end.saturating_sub(message::now());
        match self.ending {
            Ending::NotYet => Duration::from_nanos(until_lease_end).min(LONGEST_SLEEP),
            Ending::Asked { .. } | Ending::Killed { .. } => LOOK,
        }
    }

    /// applock has died.
    fn kill_all(&mut self) {
        self.is_lost = true;
        let give_up_at = Instant::now() + DEATH;
        loop {
            self.kill();
            self.reap();
            if self.status.is_some() && !self.has_members() || Instant::now() >= give_up_at {
                return;
            }
            std::thread::sleep(LOOK);
        }
    }
}

fn exit_code(status: WaitStatus) -> u8 {
    let exited = status
        .exit_status()
        .and_then(|code| u8::try_from(code).ok());
    let signalled = status.terminating_signal().map(exit::of_signal);
    exited.or(signalled).unwrap_or(exit::FAILED)
}

/// The keeper's children: the command, and what has lost its parent. Elsewhere than on Linux the
/// latter become children of another process, and are out of reach.
fn children() -> Vec<Pid> {
    let Ok(processes) = std::fs::read_dir("/proc") else {
        return Vec::new();
    };
    let own = getpid().as_raw_nonzero().get();
    processes
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok())
        .filter(|pid| parent_of(*pid) == Some(own))
        .filter_map(Pid::from_raw)
        .collect()
}

/// The field after the state, which follows the name in brackets (proc_pid_stat(5)).
fn parent_of(pid: i32) -> Option<i32> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_whitespace().nth(1)?.parse().ok()
}
