//! `applock run`: a command under a lock.
//!
//! Two processes share the work, so that neither can die and leave the command running without
//! the lock:
//!
//! ```text
//!   applock run ──────socket────── keeper ────────── the command, in a group of its own
//!   the lock, its heartbeat,       starts it, ends    └─ what it starts
//!   signals, messages, exit code   it, reaps it
//! ```
//!
//! - applock dies (`kill -9` too): the keeper sees the end of the socket, and kills all.
//! - The keeper dies: applock sees it, and kills the group; on Linux the command has died already,
//!   for it asked the kernel for that (`PR_SET_PDEATHSIG`).
//! - applock stands still (`kill -STOP`, a debugger): the keeper was told until when the lease
//!   counts, and ends the command by then.
//!
//! The keeper is forked off at the start, while there is one thread: it needs no second loading of
//! the program, and is ready by the time the lock is taken. It has no event loop of its own: what a
//! run costs beyond its lock is mostly that of starting processes.

mod keeper;
mod message;
mod program;
mod signals;

use std::pin::pin;
use std::time::Duration;

use applock_runtime::{AppLocker, Error, Lock, LockGuard};
use tokio::time::{Instant, MissedTickBehavior, interval_at};

use crate::args::{RunArgs, StoreArgs};
use crate::exit::{self, Failure};
use crate::{input, output};

use keeper::{Keeper, Orders};
use message::{FromKeeper, Start, ToKeeper};
use signals::{Received, Signals};

/// What the command line asks for, all of it judged.
struct Plan {
    lock: Lock,
    waits: bool,
    /// The lease's length.
    ttl: Duration,
    /// What busy is: an exit code, or no error at all.
    if_busy: IfBusy,
    foreground: bool,
    quiet: bool,
}

#[derive(Clone, Copy)]
enum IfBusy {
    Fail(u8),
    Ok,
}

/// The exit code of the command, or what stood in its way.
pub(crate) fn run(args: &RunArgs, store: &StoreArgs) -> Result<u8, Failure> {
    let program = program::find(&args.command)?;
    let builder = input::builder(store, program.name())?;
    let locker = builder.build()?;
    let plan = Plan::of(args, &locker)?;
    let kill_after = input::length("--kill-after", &args.kill_after)?;
    drop(locker);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new(exit::FAILED, format!("no event loop: {error}")))?;
    let signals = {
        let _inside = runtime.enter();
        Signals::listen()
            .map_err(|error| Failure::new(exit::FAILED, format!("no signals: {error}")))?
    };
    // Behind the handlers, which it inherits, and before there is a second thread.
    let keeper = keeper::fork(Orders::new(program, args.foreground, kill_after))?;
    let outcome = runtime.block_on(plan.carry_out(keeper, signals));
    match outcome {
        Err(failure) if plan.quiet && failure.code != exit::INVALID => Ok(failure.code),
        outcome => outcome,
    }
}

impl Plan {
    fn of(args: &RunArgs, locker: &AppLocker) -> Result<Self, Failure> {
        let mut lock = input::lock(locker, &args.lock);
        let mut ttl = input::length("--ttl", &args.ttl)?;
        lock = lock.ttl(ttl);
        let mut waits = false;
        match args.wait.as_deref() {
            Some("forever") => {
                lock = lock.wait_forever();
                waits = true;
            }
            Some(text) => {
                lock = lock.wait(input::length("--wait", text)?);
                waits = true;
            }
            None => {}
        }
        if let Some(every) = input::optional("--every", args.every.as_ref())? {
            lock = lock.every(every);
        }
        if args.retry_failed {
            lock = lock.retry_failed();
        }
        if let Some(least) = input::optional("--at-least", args.at_least.as_ref())? {
            lock = lock.at_least(least);
        }
        if let Some(most) = input::optional("--at-most", args.at_most.as_ref())? {
            lock = lock.at_most(most);
            ttl = ttl.min(most);
        }
        let if_busy = match &args.busy_code {
            _ if args.ok_if_busy => IfBusy::Ok,
            Some(code) => IfBusy::Fail(input::exit_code("-E", code)?),
            None => IfBusy::Fail(exit::BUSY),
        };
        Ok(Self {
            lock,
            waits,
            ttl,
            if_busy,
            foreground: args.foreground,
            quiet: args.quiet,
        })
    }

    fn say(&self, text: impl std::fmt::Display) {
        if !self.quiet {
            output::say(text);
        }
    }

    async fn carry_out(&self, keeper: Keeper, mut signals: Signals) -> Result<u8, Failure> {
        let mut keeper = keeper.connect()?;
        if self.waits {
            // A store that fails meanwhile is worth a word.
            crate::log::to_stderr(self.quiet);
        }
        let mut acquiring = pin!(self.lock.acquire());
        let guard = loop {
            tokio::select! {
                acquired = &mut acquiring => break match acquired {
                    Ok(guard) => guard,
                    Err(error) => return self.refused(error),
                },
                signal = signals.next() => match signal {
                    // The future is dropped on the way out: the waiter leaves the queue, and a
                    // lock that it was granted meanwhile is released.
                    Received::Pass(signal) => return Ok(exit::of_signal(signal.as_raw())),
                    Received::Stop => signals::stop_here().await,
                },
                // It can't be over already unless it was killed.
                _ = keeper.next::<FromKeeper>() => return Err(keeper_died()),
            }
        };
        crate::log::to_stderr(self.quiet);
        let outcome = self.watch(&guard, &mut keeper, &mut signals).await;
        match outcome {
            Ok(exit::OK) => guard.mark_ok(),
            _ => guard.mark_failed(),
        }
        self.release(guard).await;
        outcome
    }

    fn refused(&self, error: Error) -> Result<u8, Failure> {
        let is_busy = match error {
            Error::Busy(_) => true,
            Error::AlreadyRan(_) => false,
            error => return Err(error.into()),
        };
        match self.if_busy {
            IfBusy::Ok => Ok(exit::OK),
            IfBusy::Fail(code) => {
                let hint = if self.waits || !is_busy {
                    ""
                } else {
                    " (--wait 10s waits for it, --ok-if-busy makes it no error)"
                };
                Err(Failure::new(code, format!("{error}{hint}")))
            }
        }
    }

    /// The command's life, from its start until all of it has ended.
    async fn watch(
        &self,
        guard: &LockGuard,
        keeper: &mut keeper::Connected,
        signals: &mut Signals,
    ) -> Result<u8, Failure> {
        let info = guard.info();
        keeper
            .send(&ToKeeper::Start(Start {
                token: guard.fencing_token(),
                key: info.key().to_owned(),
                owner: info.owner_id().to_owned(),
                lease_end: message::lease_end(guard),
            }))
            .await;
        let group = match keeper.next().await {
            Some(FromKeeper::Started { pid }) => pid,
            Some(FromKeeper::NotStarted { code, text }) => return Err(Failure::new(code, text)),
            Some(FromKeeper::Ended { .. }) | None => return Err(keeper_died()),
        };

        let pause = (self.ttl / 8).clamp(SHORTEST_BEAT, LONGEST_BEAT);
        // It has just been told.
        let mut beat = interval_at(Instant::now() + pause, pause);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut lost = pin!(guard.lost());
        let mut is_lost = false;
        loop {
            tokio::select! {
                () = &mut lost, if !is_lost => {
                    is_lost = true;
                    keeper.send(&ToKeeper::Lost).await;
                    if let Err(error) = guard.ensure_held() {
                        self.say(error);
                    }
                }
                told = keeper.next() => return match told {
                    Some(FromKeeper::Ended { is_lost: by_keeper, survivors, .. })
                        if is_lost || by_keeper =>
                    {
                        if !is_lost {
                            self.say("lost: the lease ran out while applock itself stood still, so the command was ended");
                        }
                        if survivors {
                            self.say("some process of the command could not be killed");
                        }
                        Ok(exit::LOST)
                    }
                    Some(FromKeeper::Ended { code, survivors, .. }) => {
                        if survivors {
                            self.say("some process that the command left behind could not be killed");
                        }
                        Ok(code)
                    }
                    Some(_) | None => {
                        // On Linux the command is dead already.
                        keeper::kill(group, self.foreground);
                        Err(keeper_died())
                    }
                },
                signal = signals.next() => match signal {
                    Received::Pass(signal) => {
                        keeper.send(&ToKeeper::Signal(signal.as_raw())).await;
                    }
                    Received::Stop => {
                        // Danger: while we stand still there is no heartbeat. The command stands
                        // still, too, and if that takes longer than the lease the keeper ends it.
                        keeper.send(&ToKeeper::Pause).await;
                        signals::stop_here().await;
                        if guard.is_held() {
                            keeper.send(&ToKeeper::Continue).await;
                        }
                    }
                },
                // A lease that is suspect is not told of: its old end stands.
                _ = beat.tick(), if !is_lost => if guard.is_held() {
                    keeper.send(&ToKeeper::Lease(message::lease_end(guard))).await;
                },
            }
        }
    }

    async fn release(&self, guard: LockGuard) {
        if !guard.is_held() {
            return;
        }
        match guard.release().await {
            Ok(()) => {}
            // It was taken from us since the last heartbeat.
            Err(error @ (Error::NotHeld { .. } | Error::Lost { .. })) => self.say(error),
            Err(error) => self.say(format!("{error} (its ttl frees the lock)")),
        }
    }
}

/// How often the keeper is told until when the lease counts. The heartbeat moves that end every
/// third of a ttl.
const SHORTEST_BEAT: Duration = Duration::from_millis(10);
const LONGEST_BEAT: Duration = Duration::from_secs(5);

fn keeper_died() -> Failure {
    Failure::new(
        exit::FAILED,
        "the process that looks after the command has died, so the command was killed",
    )
}
