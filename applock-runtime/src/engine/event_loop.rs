//! The engine's loop: what came in, what was answered, what is due, what goes out.
//!
//! One round takes all commands, then all answers, then all notifications, then the timers,
//! and sends what they have put into the outbox. The order matters: an answer that is here
//! already is acted upon before a timer says that it did not come. Rounds go on until
//! nothing moves; then the loop sleeps until the earliest timer. The loop never waits for
//! an answer, so a silent store delays nothing but its own answers: a lease still ends on
//! time.
//!
//! Only *when* is decided here; *what* happens is in `acquire`, `hold`, `release` and the
//! others.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_util::stream::StreamExt as _;
use tokio::sync::mpsc;

use crate::error::Error;
use crate::store::Notification;

use super::core::{Actor, Completion, Parts, keep_list};
use super::mailbox::Command;
use super::state::EntryState;
use super::unfinished::Unfinished;

/// Runs until every handle and every holding is gone.
pub(super) async fn run(
    parts: Arc<Parts>,
    commands: mpsc::UnboundedReceiver<Command>,
    unfinished: Arc<Unfinished>,
) {
    let mut actor = Actor::new(parts, commands, unfinished);
    poll_fn(|context| actor.poll(context)).await;
}

impl Actor {
    /// Rounds, until nothing moves any more. Ready: no handle is left, and nothing to do.
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        loop {
            let mut moved = false;
            while !self.abandoned {
                match self.commands.poll_recv(context) {
                    Poll::Ready(Some(command)) => {
                        self.tick();
                        self.command(command);
                        moved = true;
                    }
                    Poll::Ready(None) => self.abandoned = true,
                    Poll::Pending => break,
                }
            }
            while let Poll::Ready(Some(done)) = self.inflight.poll_next_unpin(context) {
                self.tick();
                self.completed(done);
                moved = true;
            }
            while let Poll::Ready(Some(notice)) = self.notified.poll_recv(context) {
                self.tick();
                match notice {
                    Notification::Granted(key, grant) => self.notified(&key, grant),
                    Notification::Poll => self.poll_all(),
                    Notification::Moved(has_moved) => {
                        self.heartbeat_where(&*has_moved);
                        self.poll_where(&*has_moved);
                        self.release_where(&*has_moved);
                    }
                }
                moved = true;
            }
            if !moved {
                self.tick();
            }
            moved |= self.due();
            self.check_wall_clock();
            self.close();
            moved |= self.flush();
            if moved {
                continue;
            }
            self.measure();
            self.say_whether_watch_is_needed();
            if self.abandoned && self.entries.is_empty() && self.inflight.is_empty() {
                return Poll::Ready(());
            }
            if self.sleep(context).is_pending() {
                for reply in self.settling.drain(..) {
                    // The clock may have stopped waiting.
                    let _ = reply.try_send(());
                }
                return Poll::Pending;
            }
        }
    }

    /// Waits for the earliest timer: of an entry, of a shutdown, of the wall clock's check, or of
    /// what is remembered. Ready: it has fired, and another round is due.
    fn sleep(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let now = self.now();
        let closing = self.closing.as_ref().and_then(|closing| closing.next(now));
        let first = self.timers.first().map(|(at, _)| *at);
        let timers = first
            .into_iter()
            .chain(closing)
            .chain(self.next_wall_check)
            .chain(self.remembered.end());
        let Some(at) = timers.min() else {
            return Poll::Pending;
        };
        let alarm = match &mut self.alarm {
            // A sleep that ends too early does no harm.
            Some((armed, sleep)) if *armed <= at => sleep,
            other => &mut other.insert((at, self.parts.clock.sleep_until(at))).1,
        };
        let rung = alarm.as_mut().poll(context);
        if rung.is_ready() {
            self.alarm = None;
        }
        rung
    }

    /// Each entry whose timer has fired takes its step. `true`: something moved.
    fn due(&mut self) -> bool {
        let now = self.now();
        let mut moved = false;
        while let Some((at, owner)) = self.timers.first().copied() {
            if at > now {
                break;
            }
            self.timers.pop_first();
            if let Some(entry) = self.entries.get_mut(&owner) {
                entry.wake = None;
                match entry.state {
                    EntryState::Acquiring(_) => self.acquiring_due(owner, now),
                    EntryState::Holding(_) => self.holding_due(owner, now),
                    EntryState::Releasing(_) => self.releasing_due(owner, now),
                }
            }
            moved = true;
        }
        self.coalesce(now);
        moved
    }

    /// A caller's command. Once a shutdown has begun, no acquire is accepted.
    fn command(&mut self, command: Command) {
        match command {
            Command::Open(reply) => self.open(reply),
            Command::Acquire {
                request,
                deadline,
                reply,
                mailbox,
            } => {
                if self.closing.is_some() {
                    let key = Arc::clone(&request.key.lock);
                    let _ = reply.send(Err(Error::Closed { key }));
                    self.unfinished.done();
                } else {
                    self.start_acquire(request, deadline, reply, mailbox);
                }
            }
            Command::Forget(owner, leaving) => {
                self.left_behind(owner, Some(leaving));
                self.forget(owner);
            }
            Command::Verify(lease, reply) => self.verify(&lease, reply),
            Command::Suspect(owner) => self.suspect(owner),
            Command::Release(lease, reply, leaving) => {
                self.left_behind(lease.owner, leaving);
                self.release(&lease, reply);
            }
            Command::Sleep(length, reply) => self.sleep_for(length, reply),
            Command::Inspect(key, reply) => self.inspect(key, reply),
            Command::List(pattern, reply) => self.list(pattern, reply),
            Command::AskEach(question, reply) => self.ask_each(question, reply),
            Command::Hear(pattern, heard) => self.hear(pattern, heard),
            Command::Health(reply) => self.health(&reply),
            Command::Settle(reply) => self.settling.push(reply),
            Command::Force(key, stale, reason, reply) => self.force(key, stale, reason, reply),
            Command::Close {
                bodies,
                within,
                reply,
            } => self.begin_closing(bodies, within, reply),
        }
    }

    /// The store's answers, in the order of the batch.
    fn completed(&mut self, done: Completion) {
        self.note(&done);
        if self.probe.is_some() && done.is_answered() {
            self.unpark();
        }
        match done {
            Completion::Acquired(owners, sent, outcomes) => {
                for (owner, outcome) in owners.iter().zip(outcomes) {
                    self.acquired(*owner, sent, outcome);
                }
                keep_list(&mut self.outbox.acquires, owners);
            }
            Completion::Renewed(owners, sent, outcomes) => {
                for (owner, outcome) in owners.iter().zip(outcomes) {
                    self.renewed(*owner, sent, outcome);
                }
                keep_list(&mut self.outbox.renewals, owners);
            }
            Completion::Released(owners, sent, outcomes) => {
                for (owner, outcome) in owners.iter().zip(outcomes) {
                    self.released(*owner, sent, outcome);
                }
                keep_list(&mut self.outbox.releases, owners);
            }
            // If the holder is of this very process, its heartbeat finds the loss at once.
            Completion::Forced(key, _) => self.heartbeat_for(&key),
            Completion::Asked(_) | Completion::Nothing => (),
        }
    }
}
