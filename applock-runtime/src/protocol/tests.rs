//! The protocol's promises, each a test: no store, no clock, no I/O.

use super::request::Owner;
use super::*;

const TIMING: Timing = Timing::MILLIS;
const TTL: u64 = 60_000;
const REMEMBER: u64 = 3_600_000;

/// A lock, a time that the test sets, and what is on the way to the processes.
struct Desk {
    lock: LockState<()>,
    now: StoreTime,
    wires: Wires,
}

/// Whom a notification reaches, and what was sent.
#[derive(Default)]
struct Wires {
    /// What a process answers, where it is not `Notified`.
    broken: Vec<(Process, Reach)>,
    asked: Vec<Owner>,
}

impl Notify<()> for Wires {
    fn reach(&mut self, waiter: &Waiter<()>, grant: &Granted) -> Reach {
        assert_eq!(waiter.owner, grant.owner);
        self.asked.push(waiter.owner);
        let broken = self.broken.iter().find(|one| one.0 == waiter.process);
        broken.map_or(Reach::Notified, |one| one.1)
    }
}

fn desk() -> Desk {
    Desk {
        lock: LockState::default(),
        now: StoreTime {
            at: 1_000_000,
            micros: 1_000_000_000,
        },
        wires: Wires::default(),
    }
}

impl Desk {
    fn pass(&mut self, length: u64) {
        self.now.at += length;
        self.now.micros += length * 1_000;
    }

    fn ask(&mut self, owner: Owner, process: Process, when_busy: WhenBusy) -> Decision {
        let requester = Requester {
            owner,
            process,
            ttl: TTL,
            remember: REMEMBER,
            who: (),
        };
        self.lock
            .acquire(requester, when_busy, self.now, &TIMING, &mut self.wires)
            .unwrap()
    }

    fn attempt(&mut self, owner: Owner) -> Decision {
        self.ask(owner, owner, WhenBusy::Refuse)
    }

    /// A waiter of a process that can be notified.
    fn wait(&mut self, owner: Owner, process: Process) -> Decision {
        let when_busy = WhenBusy::Wait {
            ticket: None,
            listens: true,
        };
        self.ask(owner, process, when_busy)
    }

    /// A waiter of a process that only polls.
    fn poll(&mut self, owner: Owner) -> Decision {
        let when_busy = WhenBusy::Wait {
            ticket: None,
            listens: false,
        };
        self.ask(owner, owner, when_busy)
    }

    fn release(&mut self, owner: Owner) -> bool {
        let Self { lock, now, wires } = self;
        lock.release(owner, 0, None, *now, &TIMING, wires).ended
    }

    fn break_wire(&mut self, process: Process, reach: Reach) {
        self.wires.broken.push((process, reach));
    }

    fn newest(&self) -> &Holding<()> {
        self.lock.newest.as_ref().unwrap()
    }

    fn queue(&self) -> Vec<Owner> {
        let waiters = self.lock.queue.waiters.values();
        waiters.map(|waiter| waiter.owner).collect()
    }
}

#[test]
fn a_lock_that_nobody_can_be_notified_of_was_last_held_by_its_holder() {
    for reach in [Reach::Unreachable] {
        for by_force in [false, true] {
            let mut desk = desk();
            desk.attempt(1);
            desk.wait(2, 20);
            desk.break_wire(20, reach);
            let before = desk.newest().clone();
            let ended = match by_force {
                false => desk.release(1),
                true => desk
                    .lock
                    .force_release(None, desk.now, &TIMING, &mut desk.wires),
            };
            assert!(ended);
            let phase = match by_force {
                false => Phase::Released(desk.now),
                true => Phase::Forced(desk.now),
            };
            assert_eq!(*desk.newest(), Holding { phase, ..before });
            assert_eq!(desk.wires.asked, [2]);
        }
    }
}

#[test]
fn an_expired_lock_that_only_the_dead_wait_for_goes_to_who_asks() {
    let mut desk = desk();
    desk.attempt(1);
    desk.wait(2, 20);
    desk.break_wire(20, Reach::Unreachable);
    desk.pass(TTL);
    // The queue was forgotten meanwhile, so 2 polls once more.
    desk.wires.broken.clear();
    desk.wait(2, 20);
    assert_eq!(desk.newest().owner, 2);
    desk.release(2);

    desk.attempt(3);
    desk.wait(4, 40);
    desk.wait(5, 50);
    desk.break_wire(40, Reach::Unreachable);
    desk.break_wire(50, Reach::Unreachable);
    desk.lock.newest.as_mut().unwrap().expires_at = desk.now.at;
    assert_eq!(desk.attempt(6), Decision::Granted);
    // They may come back, with their tickets.
    assert!(desk.queue().is_empty());
}

#[test]
fn waiters_are_served_in_their_order_and_a_try_takes_nothing_from_them() {
    let mut desk = desk();
    assert_eq!(desk.attempt(1), Decision::Granted);
    for (owner, ahead) in [(2, 0), (3, 1), (4, 2)] {
        let Decision::Queued { ahead: found, .. } = desk.wait(owner, 10 * owner) else {
            panic!("{owner} waits");
        };
        assert_eq!(found, ahead);
    }
    let mut tokens = vec![desk.newest().token];
    for owner in [1, 2, 3] {
        assert!(desk.release(owner));
        assert_eq!(desk.newest().owner, owner + 1);
        assert_eq!(desk.newest().phase, Phase::Claimed);
        assert_eq!(desk.attempt(9), Decision::Busy);
        tokens.push(desk.newest().token);
    }
    assert!(tokens.is_sorted_by(|first, second| first < second));
    assert_eq!(desk.wires.asked, [2, 3, 4]);
}

#[test]
fn a_claim_ends_soon_unless_a_heartbeat_confirms_it() {
    let mut desk = desk();
    desk.attempt(1);
    desk.wait(2, 20);
    desk.release(1);
    assert_eq!(desk.newest().expires_at, desk.now.at + TIMING.claim);
    desk.pass(TIMING.claim - 1);
    assert!(desk.lock.renew(2, TTL, desk.now));
    assert_eq!(desk.newest().phase, Phase::Held);
    assert_eq!(desk.newest().expires_at, desk.now.at + TTL);
    desk.pass(TTL);
    assert!(!desk.lock.renew(2, TTL, desk.now));
}

#[test]
fn a_process_that_only_polls_leaves_the_queue_when_it_is_silent_and_has_come_to_its_turn() {
    let mut desk = desk();
    desk.attempt(1);
    desk.poll(2);
    desk.pass(TIMING.silence + 1);
    desk.poll(3);
    assert!(desk.release(1));
    assert_eq!(desk.newest().owner, 3);
    assert!(desk.queue().is_empty());
    assert!(desk.wires.asked.is_empty());
}

#[test]
fn a_waiter_that_was_forgotten_gets_its_old_place_back_by_its_ticket() {
    let mut desk = desk();
    desk.attempt(1);
    let Decision::Queued { ticket, .. } = desk.wait(2, 20) else {
        panic!("2 waits");
    };
    desk.wait(3, 30);
    desk.lock.queue.leave(2);
    let when_busy = WhenBusy::Wait {
        ticket: Some(ticket),
        listens: true,
    };
    let back = desk.ask(2, 20, when_busy);
    let expected = Decision::Queued {
        ahead: 0,
        ticket,
        is_new: true,
    };
    assert_eq!(back, expected);
    assert_eq!(desk.queue(), [2, 3]);
}

/// B waits three times in one process, which stands still; then C of another process.
#[test]
fn a_process_that_lets_a_claim_run_out_is_offered_no_other_before_it_polls() {
    let mut desk = desk();
    desk.attempt(1);
    for owner in [2, 3, 4] {
        desk.wait(owner, 20);
    }
    desk.wait(5, 50);
    desk.release(1);
    assert_eq!(desk.newest().owner, 2);
    desk.pass(TIMING.claim);
    // The knock of any waiter, here of C.
    assert_eq!(desk.wait(5, 50), Decision::Granted);
    assert_eq!(desk.wires.asked, [2]);
    // It goes on: its waiters come back to their places.
    desk.wait(3, 20);
    desk.release(5);
    assert_eq!(desk.newest().owner, 3);
}

#[test]
fn a_process_that_confirms_its_claims_is_offered_the_next_one() {
    let mut desk = desk();
    desk.attempt(1);
    desk.wait(2, 20);
    desk.wait(5, 50);
    desk.wait(3, 20);
    for owner in [1, 2, 5] {
        assert!(desk.release(owner));
    }
    assert_eq!(desk.newest().owner, 3);
    assert_eq!(desk.wires.asked, [2, 5, 3]);
}

#[test]
fn after_a_restart_the_lock_is_kept_for_the_first_a_moment_only() {
    let mut desk = desk();
    desk.attempt(1);
    desk.wait(2, 20);
    desk.break_wire(20, Reach::MayReturn { within: 500 });
    desk.release(1);
    assert_eq!(desk.newest().owner, 2);
    assert_eq!(desk.newest().expires_at, desk.now.at + 500);
    desk.pass(499);
    assert_eq!(desk.wait(2, 20), Decision::Granted);
    assert_eq!(desk.newest().expires_at, desk.now.at + TTL);
}

#[test]
fn a_waiter_of_the_releasing_process_is_told_by_the_answer() {
    let mut desk = desk();
    desk.ask(1, 10, WhenBusy::Refuse);
    desk.wait(2, 10);
    let ended = desk
        .lock
        .release(1, 0, Some(10), desk.now, &TIMING, &mut desk.wires);
    assert_eq!(ended.granted.unwrap().owner, 2);
    assert!(desk.wires.asked.is_empty());
}

#[test]
fn what_at_least_keeps_is_nobodys_and_never_stale() {
    let mut desk = desk();
    desk.attempt(1);
    let kept = desk
        .lock
        .release(1, 30_000, None, desk.now, &TIMING, &mut desk.wires);
    assert!(kept.ended);
    assert!(!desk.lock.renew(1, TTL, desk.now));
    assert_eq!(desk.attempt(1), Decision::Busy);
    assert!(!desk.release(1));
    desk.pass(29_999);
    let stale = |desk: &mut Desk| {
        desk.lock
            .force_release(Some(0), desk.now, &TIMING, &mut desk.wires)
    };
    assert!(!stale(&mut desk));
    desk.pass(1);
    assert_eq!(desk.attempt(2), Decision::Granted);
}

#[test]
fn only_a_holder_without_a_heartbeat_is_stale() {
    let mut desk = desk();
    desk.attempt(1);
    desk.pass(TTL / 2 - 1);
    let Desk { lock, now, wires } = &mut desk;
    assert!(!lock.force_release(Some(0), *now, &TIMING, wires));
    desk.pass(1);
    let Desk { lock, now, wires } = &mut desk;
    assert!(!lock.force_release(Some(TTL / 2 + 1), *now, &TIMING, wires));
    assert!(lock.force_release(Some(TTL / 2), *now, &TIMING, wires));
}

#[test]
fn tokens_grow_though_the_clock_steps_back_and_end_at_the_largest() {
    let mut desk = desk();
    desk.attempt(1);
    let first = desk.newest().token;
    desk.release(1);
    desk.now.micros = 5;
    desk.attempt(2);
    assert_eq!(desk.newest().token, first + 1);
    desk.release(2);
    desk.lock.newest.as_mut().unwrap().token = MAX_TOKEN;
    let before = desk.lock.clone();
    let requester = Requester {
        owner: 3,
        process: 3,
        ttl: TTL,
        remember: REMEMBER,
        who: (),
    };
    let when_busy = WhenBusy::Wait {
        ticket: None,
        listens: true,
    };
    let refused = desk
        .lock
        .acquire(requester, when_busy, desk.now, &TIMING, &mut desk.wires);
    assert_eq!(refused, Err(request::TokensUsedUp));
    assert_eq!(desk.lock, before);
}
