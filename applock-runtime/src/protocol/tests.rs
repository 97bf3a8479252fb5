//! The protocol's promises, each a test: no store, no clock, no I/O.

mod ticks;

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

fn end(owner: Owner) -> Releaser {
    keep(owner, 0)
}

fn keep(owner: Owner, keep: u64) -> Releaser {
    Releaser {
        owner,
        outcome: Outcome::Released,
        keep,
        own: None,
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
            due: None,
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
        lock.release(end(owner), *now, &TIMING, wires).ended
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
                    .force_release(None, (), desk.now, &TIMING, &mut desk.wires),
            };
            assert!(ended);
            let phase = match by_force {
                false => Phase::Released(desk.now),
                true => Phase::Forced(desk.now),
            };
            let forced_by = by_force.then_some(());
            let expected = Holding {
                phase,
                forced_by,
                ..before
            };
            assert_eq!(*desk.newest(), expected);
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

/// `at_least` has run out: its holder has given the lock back long ago.
#[test]
fn a_process_whose_kept_lock_runs_out_is_offered_the_next_one() {
    let mut desk = desk();
    desk.attempt(1);
    desk.wait(2, 20);
    desk.wait(3, 20);
    desk.release(1);
    let Desk { lock, now, wires } = &mut desk;
    assert!(lock.release(keep(2, 1_000), *now, &TIMING, wires).ended);
    desk.pass(1_000);
    desk.wait(5, 50);
    assert_eq!(desk.newest().owner, 3);
}

/// After a restart the lock is kept for a waiter whose subscription may be on its way back: once
/// for each process, and not once for each of its waiters.
#[test]
fn a_process_that_does_not_come_back_costs_one_grace() {
    let mut desk = desk();
    desk.attempt(1);
    for owner in [2, 3, 4] {
        desk.wait(owner, 20);
    }
    desk.wait(5, 50);
    let within = TIMING.grace;
    desk.break_wire(20, Reach::MayReturn { within });
    desk.release(1);
    assert_eq!(desk.newest().owner, 2);
    desk.pass(within);
    assert_eq!(desk.wait(5, 50), Decision::Granted);
    assert_eq!(desk.wires.asked, [2]);
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
    let ended = desk.lock.release(
        Releaser {
            own: Some(10),
            ..end(1)
        },
        desk.now,
        &TIMING,
        &mut desk.wires,
    );
    assert_eq!(ended.granted.unwrap().owner, 2);
    assert!(desk.wires.asked.is_empty());
}

#[test]
fn what_at_least_keeps_is_nobodys_and_never_stale() {
    let mut desk = desk();
    desk.attempt(1);
    let kept = desk
        .lock
        .release(keep(1, 30_000), desk.now, &TIMING, &mut desk.wires);
    assert!(kept.ended);
    assert!(!desk.lock.renew(1, TTL, desk.now));
    assert_eq!(desk.attempt(1), Decision::Busy);
    assert!(!desk.release(1));
    desk.pass(29_999);
    let stale = |desk: &mut Desk| {
        desk.lock
            .force_release(Some(0), (), desk.now, &TIMING, &mut desk.wires)
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
    assert!(!lock.force_release(Some(0), (), *now, &TIMING, wires));
    desk.pass(1);
    let Desk { lock, now, wires } = &mut desk;
    assert!(!lock.force_release(Some(TTL / 2 + 1), (), *now, &TIMING, wires));
    assert!(lock.force_release(Some(TTL / 2), (), *now, &TIMING, wires));
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
        due: None,
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

#[test]
fn a_confirmed_claim_is_a_full_lease_and_only_an_unconfirmed_one_is_stale_soon() {
    let claimed = || {
        let mut desk = desk();
        desk.attempt(1);
        desk.wait(2, 20);
        desk.release(1);
        assert_eq!(desk.newest().term(&TIMING), TIMING.claim);
        desk
    };
    let stale = |desk: &mut Desk, silence| {
        desk.pass(silence);
        let Desk { lock, now, wires } = desk;
        lock.force_release(Some(0), (), *now, &TIMING, wires)
    };
    // The process that was to confirm it is dead, perhaps.
    assert!(!stale(&mut claimed(), TIMING.claim / 2 - 1));
    assert!(stale(&mut claimed(), TIMING.claim / 2));
    let confirm: [fn(&mut Desk); 2] = [
        |desk| assert!(desk.lock.renew(2, TTL, desk.now)),
        // The request is repeated, for its answer may have been lost.
        |desk| assert_eq!(desk.wait(2, 20), Decision::Granted),
    ];
    for confirm in confirm {
        let mut desk = claimed();
        confirm(&mut desk);
        assert_eq!(desk.newest().phase, Phase::Held);
        assert_eq!(desk.newest().term(&TIMING), TTL);
        assert!(!stale(&mut desk, TTL / 2 - 1));
        assert!(stale(&mut desk, 1), "its holder has crashed");
    }
    // A ttl below the claim is the lease from the beginning.
    let short = Holding {
        ttl: TIMING.claim / 2,
        ..claimed().newest().clone()
    };
    assert_eq!(short.term(&TIMING), TIMING.claim / 2);
}

#[test]
fn a_holding_is_remembered_for_so_long_after_its_end_and_not_longer() {
    let ends: [fn(&mut Desk); 4] = [
        |desk| assert!(desk.release(1)),
        |desk| {
            let Desk { lock, now, wires } = desk;
            assert!(lock.force_release(None, (), *now, &TIMING, wires));
        },
        |desk| desk.pass(TTL),
        |desk| {
            let Desk { lock, now, wires } = desk;
            lock.release(keep(1, 7), *now, &TIMING, wires);
            desk.pass(7);
        },
    ];
    for end in ends {
        let mut desk = desk();
        desk.attempt(1);
        end(&mut desk);
        desk.pass(REMEMBER - 1);
        let newest = desk.lock.remembered(desk.now).map(|newest| newest.owner);
        assert_eq!(newest, Some(1));
        desk.release(9);
        assert!(desk.lock.newest.is_some());
        desk.pass(1);
        assert_eq!(desk.lock.remembered(desk.now), None);
        // The next step forgets it, whatever it is.
        desk.release(9);
        assert_eq!(desk.lock.newest, None);
    }
}

#[test]
fn a_queue_that_no_waiter_has_polled_is_forgotten() {
    let mut desk = desk();
    desk.attempt(1);
    desk.lock.newest.as_mut().unwrap().expires_at = u64::MAX;
    desk.wait(2, 20);
    desk.pass(TIMING.queue_life - 1);
    desk.wait(3, 30);
    // 3 has polled for all of them.
    desk.pass(TIMING.queue_life - 1);
    assert_eq!(desk.lock.waiters(desk.now), 2);
    desk.pass(1);
    assert_eq!(desk.lock.waiters(desk.now), 0);
    assert!(desk.release(1));
    assert_eq!(desk.queue(), []);
    assert_eq!(desk.wires.asked, []);
    assert_eq!(desk.attempt(4), Decision::Granted);
}

#[test]
fn a_process_that_only_polls_is_out_of_reach_after_its_silence_and_not_before() {
    for (silence, holder) in [(TIMING.silence, 2), (TIMING.silence + 1, 1)] {
        let mut desk = desk();
        desk.attempt(1);
        desk.poll(2);
        desk.pass(silence);
        assert!(desk.release(1));
        assert_eq!(desk.newest().owner, holder, "after {silence}");
        assert!(desk.queue().is_empty(), "it comes back with its ticket");
    }
}

#[test]
fn a_free_lock_is_given_without_a_queue() {
    let mut desk = desk();
    assert_eq!(desk.wait(1, 10), Decision::Granted);
    assert_eq!(desk.lock.queue, WaitQueue::default());
}

#[test]
fn what_a_waiter_leaves_behind_when_it_leaves_is_nothing() {
    // Those that came by themselves, and those that a store has read from its files.
    let joined = |desk: &mut Desk| {
        desk.wait(2, 20);
        desk.wait(3, 20);
    };
    let restored = |desk: &mut Desk| {
        for (ticket, owner) in [(70, 2), (71, 3)] {
            let waiter = Waiter {
                owner,
                process: 20,
                ttl: TTL,
                remember: REMEMBER,
                due: None,
                who: (),
            };
            let polled_at = desk.now.at;
            desk.lock.queue.restore(ticket, waiter, polled_at, true);
        }
    };
    type Come<'a> = &'a dyn Fn(&mut Desk);
    let ways: [(bool, Come<'_>); 2] = [(false, &joined), (true, &restored)];
    for (by_release, come) in ways {
        let mut desk = desk();
        desk.attempt(1);
        come(&mut desk);
        let expires_at = desk.lock.queue.expires_at;
        let leave = |desk: &mut Desk, owner| match by_release {
            true => assert!(!desk.release(owner), "it holds nothing"),
            false => assert_eq!(desk.lock.queue.leave(owner).unwrap().owner, owner),
        };
        assert_eq!(desk.queue(), [2, 3]);
        assert!(desk.lock.queue.stands(2) && desk.lock.queue.stands(3));
        assert_eq!(desk.lock.queue.silence(20, desk.now), 0);
        desk.lock.queue.expires_at = u64::MAX;
        leave(&mut desk, 2);
        assert!(!desk.lock.queue.stands(2) && desk.lock.queue.stands(3));
        assert_eq!(desk.lock.queue.ahead(2), None);
        assert_eq!(desk.lock.queue.ahead(3), Some(0));
        assert!(
            desk.lock.queue.processes.contains_key(&20),
            "3 is left of it"
        );
        leave(&mut desk, 3);
        desk.lock.queue.expires_at = expires_at;
        let mut empty = WaitQueue::default();
        empty.expires_at = expires_at;
        assert_eq!(desk.lock.queue, empty);
    }
}

#[test]
fn the_constants_are_the_same_in_each_unit() {
    let (millis, nanos) = (Timing::MILLIS, Timing::NANOS);
    for (millis, nanos) in [
        (millis.claim, nanos.claim),
        (millis.silence, nanos.silence),
        (millis.queue_life, nanos.queue_life),
        (millis.grace, nanos.grace),
    ] {
        assert_eq!(nanos, millis * 1_000_000);
    }
    // The largest integer that a double keeps apart from the next one.
    assert_eq!(MAX_TOKEN, 9_007_199_254_740_991);
}

#[test]
fn an_outcome_has_one_name_and_a_name_that_is_none_has_no_outcome() {
    for (outcome, name) in Outcome::NAMES {
        assert_eq!(
            (outcome.name(), Outcome::named(name)),
            (name, Some(outcome))
        );
    }
    assert_eq!(Outcome::named("well"), None);
    let fine = Outcome::NAMES.map(|(outcome, _)| outcome.is_fine());
    assert_eq!(fine, [true, true, false, false, false, false, false]);
}
