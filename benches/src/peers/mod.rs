//! The contestants: libraries of Rust, each a driver in this program, and scripts
//! in `benches/peers`, for interpreters that may be there.

mod applock;
mod attribute;
mod by_hand;
mod distributed_lock;
mod far_limit;
mod limit;
mod nadis;
mod other_thread;
mod redlock;
mod rlock;
mod rslock;
mod script;

use std::path::PathBuf;
use std::process::{Command, ExitCode};

use anyhow::{Context as _, Result};

use crate::driver::{self, Peer};
use crate::options::DriverOptions;

/// One that can be measured.
#[derive(Debug)]
pub(crate) struct Contestant {
    /// By which it is known in the tables.
    pub(crate) name: &'static str,
    /// Of the library; empty for a lock that is written here.
    pub(crate) version: String,
    /// What it is written in.
    pub(crate) language: &'static str,
    /// What it sends beside what all send, and which no script of its own calls.
    pub(crate) sends: &'static [&'static str],
    /// Whether its waiters poll.
    pub(crate) polls: bool,
    /// Which part of the comparison it is.
    pub(crate) role: Role,
    program: Program,
}

/// Which part of the comparison one is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// `applock`.
    Ours,
    /// What its cycles are measured against.
    Baseline,
    /// The least that a hand-over costs on this server.
    Limit,
    /// Another library.
    Peer,
    /// `applock` through its attribute, measured where nobody waits.
    Again,
}

#[derive(Debug)]
enum Program {
    /// This one, with the command `drive`.
    Crate(fn(&DriverOptions) -> ExitCode),
    /// An interpreter and the script, or why it can't run.
    Script(Result<(String, PathBuf), String>),
}

impl Contestant {
    fn of<P: Peer>(role: Role, polls: bool, sends: &'static [&'static str]) -> Self {
        Self {
            name: P::NAME,
            version: P::CRATE.map(locked_version).unwrap_or_default(),
            language: "Rust",
            sends,
            polls,
            role,
            program: Program::Crate(driver::main::<P>),
        }
    }

    /// Whether it is in Rust, and so in this program.
    pub(crate) fn is_crate(&self) -> bool {
        matches!(self.program, Program::Crate(_))
    }

    /// Whether it is measured where callers wait, and where locks are held for long.
    pub(crate) fn is_whole(&self) -> bool {
        matches!(self.role, Role::Ours | Role::Peer)
    }

    /// Whether it is measured where nobody waits.
    pub(crate) fn can_cycle(&self) -> bool {
        self.role != Role::Limit
    }

    /// Whether it is measured where callers wait: also the limit, which does nothing else.
    pub(crate) fn can_wait(&self) -> bool {
        self.is_whole() || self.role == Role::Limit
    }

    /// What starts its driver; or why there is none.
    pub(crate) fn command(&self) -> Result<Command> {
        match &self.program {
            Program::Crate(_) => {
                let mut command = Command::new(std::env::current_exe()?);
                command.args(["drive", self.name]);
                Ok(command)
            }
            Program::Script(Ok((interpreter, file))) => {
                let mut command = Command::new(interpreter);
                command.arg(file);
                Ok(command)
            }
            Program::Script(Err(why)) => anyhow::bail!("{why}"),
        }
    }
}

/// All of them: ours first, then the baseline, then the peers.
pub(crate) fn all() -> Vec<Contestant> {
    use Role::{Again, Baseline, Limit, Ours, Peer};
    let mut all = vec![
        Contestant::of::<applock::AppLock>(Ours, false, &[]),
        Contestant::of::<attribute::Attribute>(Again, false, &[]),
        Contestant::of::<by_hand::ByHand>(Baseline, true, &["set"]),
        Contestant::of::<other_thread::OtherThread>(Baseline, true, &["set"]),
        Contestant::of::<limit::Limit>(Limit, false, &[]),
        Contestant::of::<far_limit::FarLimit>(Limit, false, &[]),
        Contestant::of::<rslock::RsLock>(Peer, true, &["set"]),
        Contestant::of::<rlock::RLock>(Peer, true, &["set"]),
        // Its PTTL is sent by it and called by its script, so it is not counted.
        Contestant::of::<nadis::Nadis>(Peer, false, &["publish"]),
        Contestant::of::<distributed_lock::DistributedLock>(Peer, true, &["set"]),
        Contestant::of::<redlock::RedLock>(Peer, true, &["set"]),
    ];
    all.extend(script::all());
    all
}

/// Is the driver of this name.
pub(crate) fn drive(name: &str, options: &DriverOptions) -> Result<ExitCode> {
    let contestant = all().into_iter().find(|one| one.name == name);
    match contestant.context("there is no such peer")?.program {
        Program::Crate(main) => Ok(main(options)),
        Program::Script(_) => anyhow::bail!("{name} is a script"),
    }
}

/// The version of a crate that this was built with.
fn locked_version(name: &str) -> String {
    let lock = include_str!("../../../Cargo.lock");
    let package = format!("name = \"{name}\"\nversion = \"");
    let rest = lock.split_once(&package).map(|(_, rest)| rest);
    let version = rest.and_then(|rest| rest.split('"').next());
    version.unwrap_or("unknown").to_owned()
}
