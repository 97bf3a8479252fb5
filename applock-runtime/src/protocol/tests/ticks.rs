//! Once per tick: which earlier run forbids a request, and when a waiter is judged.

use super::*;

const HOUR: u64 = 3_600_000;

/// Every so many milliseconds.
fn every(length: u64) -> Option<Due> {
    Some(Due {
        tick: Due::gap(length * 1_000),
        retry_failed: false,
    })
}

fn tick(number: u64) -> Option<Due> {
    Some(Due {
        tick: Tick::Number(number),
        retry_failed: false,
    })
}

fn retried(due: Option<Due>) -> Option<Due> {
    due.map(|due| Due {
        retry_failed: true,
        ..due
    })
}

impl Desk {
    fn ask_due(&mut self, owner: Owner, due: Option<Due>, when_busy: WhenBusy) -> Decision {
        let requester = Requester {
            owner,
            process: owner,
            ttl: TTL,
            remember: 2 * 24 * HOUR,
            due,
            who: (),
        };
        let Self { lock, now, wires } = self;
        lock.acquire(requester, when_busy, *now, &TIMING, wires)
            .unwrap()
    }

    fn attempt_due(&mut self, owner: Owner, due: Option<Due>) -> Decision {
        self.ask_due(owner, due, WhenBusy::Refuse)
    }

    fn wait_due(&mut self, owner: Owner, due: Option<Due>) -> Decision {
        let when_busy = WhenBusy::Wait {
            ticket: None,
            listens: true,
        };
        self.ask_due(owner, due, when_busy)
    }

    fn end_as(&mut self, owner: Owner, outcome: Outcome) {
        let request = Releaser {
            outcome,
            ..end(owner)
        };
        let Self { lock, now, wires } = self;
        assert!(lock.release(request, *now, &TIMING, wires).ended);
    }

    /// A run that begins and ends now.
    fn run(&mut self, owner: Owner, due: Option<Due>, outcome: Outcome) {
        assert_eq!(self.attempt_due(owner, due), Decision::Granted, "{owner}");
        self.end_as(owner, outcome);
    }

    fn success(&self) -> Option<Owner> {
        self.lock.last_success(self.now).map(|run| run.owner)
    }
}

const RAN: Decision = Decision::AlreadyRan(Before::Newest);

#[test]
fn a_run_forbids_the_next_for_nine_tenths_of_its_time_and_not_longer() {
    let mut desk = desk();
    desk.run(1, every(HOUR), Outcome::Released);
    desk.pass(HOUR / 10 * 9 - 1);
    assert_eq!(desk.attempt_due(2, every(HOUR)), RAN);
    // It is the request that says how often: a plain one does not mind.
    assert_eq!(desk.attempt(3), Decision::Granted);
    desk.release(3);
    desk.pass(HOUR / 10 * 9);
    assert_eq!(desk.attempt_due(2, every(HOUR)), Decision::Granted);
    // From its beginning, also while it goes on, and whoever waits for it.
    desk.pass(TTL - 1);
    assert_eq!(desk.attempt_due(4, every(HOUR)), RAN);
    assert_eq!(desk.wait_due(4, every(HOUR)), RAN);
    assert_eq!(desk.queue(), []);
    // Its own holder is answered 'yours' all the same (rule R6).
    assert_eq!(desk.attempt_due(2, every(HOUR)), Decision::Granted);
}

#[test]
fn a_wall_clock_that_steps_back_lets_nobody_run_twice() {
    let mut desk = desk();
    desk.run(1, every(HOUR), Outcome::Ok);
    desk.now.micros -= 500_000_000;
    assert_eq!(desk.attempt_due(2, every(HOUR)), RAN);
}

/// The store's clock was ahead of the time when a run began: a person can end that.
#[test]
fn a_run_in_the_future_forbids_until_one_that_does_not_ask_has_run() {
    let mut desk = desk();
    desk.now.micros += 365 * 24 * HOUR * 1_000;
    desk.run(1, every(HOUR), Outcome::Ok);
    desk.now.micros -= 365 * 24 * HOUR * 1_000;
    desk.pass(HOUR);
    assert_eq!(desk.attempt_due(2, every(HOUR)), RAN);
    desk.run(3, None, Outcome::Ok);
    for due in [every(HOUR), retried(every(HOUR))] {
        assert_eq!(desk.attempt_due(4, due), RAN);
    }
    desk.pass(HOUR);
    assert_eq!(desk.attempt_due(4, every(HOUR)), Decision::Granted);
}

/// A daily job, by a clock that people live by: its days of 23 and of 25 hours.
#[test]
fn a_daily_job_runs_once_on_each_day_of_23_24_and_25_hours() {
    for lateness in [0, 30, 60, 3_000] {
        let mut desk = desk();
        let mut runs = 0;
        let days = [24, 23, 24, 25, 24, 23, 25, 24];
        for day in days {
            // Three servers, each a bit later than the one before.
            for server in 1..=3 {
                let owner = desk.now.at.into();
                if desk.attempt_due(owner, every(24 * HOUR)) == Decision::Granted {
                    runs += 1;
                    desk.end_as(owner, Outcome::Ok);
                } else {
                    assert!(server > 1, "the first server of a day of {day} hours");
                }
                desk.pass(lateness + 1);
            }
            desk.pass(day * HOUR - 3 * (lateness + 1));
        }
        assert_eq!(runs, days.len());
    }
}

#[test]
fn a_tick_is_begun_once_and_an_old_one_never() {
    let mut desk = desk();
    desk.run(1, tick(7), Outcome::Error);
    for number in [0, 6, 7] {
        assert_eq!(desk.attempt_due(2, tick(number)), RAN);
    }
    // A run without a tick does not change that.
    desk.run(3, None, Outcome::Ok);
    assert_eq!(desk.attempt_due(2, tick(7)), RAN);
    desk.run(4, tick(8), Outcome::Ok);
    assert_eq!(desk.attempt_due(5, tick(8)), RAN);
    desk.run(6, None, Outcome::Error);
    assert_eq!(
        desk.attempt_due(5, tick(8)),
        Decision::AlreadyRan(Before::Success)
    );
    assert_eq!(desk.attempt_due(5, tick(u64::MAX)), Decision::Granted);
    assert_eq!(desk.newest().tick.unwrap().number, u64::MAX);
}

#[test]
fn a_run_that_failed_is_taken_up_by_who_asks_for_that_and_by_no_other() {
    let crash = |desk: &mut Desk| desk.pass(TTL);
    let force = |desk: &mut Desk| {
        let Desk { lock, now, wires } = desk;
        assert!(lock.force_release(None, (), *now, &TIMING, wires));
    };
    let ended = |outcome| move |desk: &mut Desk| desk.end_as(1, outcome);
    type End<'a> = &'a dyn Fn(&mut Desk);
    let ends: [(End<'_>, bool); 8] = [
        (&ended(Outcome::Error), true),
        (&ended(Outcome::Panicked), true),
        (&ended(Outcome::Cancelled), true),
        (&ended(Outcome::Lost), true),
        (&crash, true),
        (&force, true),
        (&ended(Outcome::Ok), false),
        (&ended(Outcome::Released), false),
    ];
    for due in [every(HOUR), tick(7)] {
        for (at, (end, is_open)) in ends.iter().enumerate() {
            let mut desk = desk();
            assert_eq!(desk.attempt_due(1, retried(due)), Decision::Granted);
            // While it runs nobody knows.
            assert_eq!(desk.attempt_due(2, retried(due)), Decision::Busy);
            end(&mut desk);
            assert_eq!(desk.attempt_due(2, due), RAN, "{at}");
            let expected = match is_open {
                true => Decision::Granted,
                false => RAN,
            };
            assert_eq!(desk.attempt_due(2, retried(due)), expected, "{at}");
            // An older tick stays older.
            if due == tick(7) {
                assert_eq!(desk.attempt_due(3, retried(tick(6))), RAN);
            }
        }
    }
}

#[test]
fn a_failed_run_after_one_that_ended_well_opens_no_tick_that_has_had_its_run() {
    let mut desk = desk();
    desk.run(1, every(HOUR), Outcome::Ok);
    desk.run(2, None, Outcome::Error);
    let success = Decision::AlreadyRan(Before::Success);
    assert_eq!(desk.attempt_due(3, retried(every(HOUR))), success);
    desk.pass(HOUR / 10 * 9);
    assert_eq!(desk.attempt_due(3, retried(every(HOUR))), Decision::Granted);
}

/// A grant that nobody has received is no run: its tick is open for everyone.
#[test]
fn a_lock_that_nobody_has_used_counts_for_no_tick() {
    for due in [every(HOUR), tick(7)] {
        let mut desk = desk();
        desk.run(1, due, Outcome::Unused);
        assert_eq!(desk.attempt_due(2, due), Decision::Granted);
    }
}

#[test]
fn a_waiter_whose_tick_has_run_meanwhile_is_not_handed_the_lock() {
    for due in [every(HOUR), tick(7)] {
        for by_force in [false, true] {
            let mut desk = desk();
            // A long run of before, which forbids nothing.
            desk.attempt(1);
            desk.pass(HOUR);
            desk.lock.newest.as_mut().unwrap().expires_at = desk.now.at + TTL;
            assert!(matches!(desk.wait_due(2, due), Decision::Queued { .. }));
            assert!(matches!(desk.wait_due(3, due), Decision::Queued { .. }));
            assert!(matches!(desk.wait(4, 4), Decision::Queued { .. }));
            // The lock goes to the first of the two, and after it to the plain one.
            desk.release(1);
            assert_eq!(desk.newest().owner, 2);
            if by_force {
                let Desk { lock, now, wires } = &mut desk;
                assert!(lock.force_release(None, (), *now, &TIMING, wires));
            } else {
                desk.end_as(2, Outcome::Ok);
            }
            assert_eq!(desk.newest().owner, 4);
            assert_eq!(desk.wires.asked, [2, 4], "the second is never notified");
            assert_eq!(desk.queue(), []);
            let before = match (due.unwrap().tick, by_force) {
                // Of the newest, which is the plain one.
                (Tick::Number(_), true) | (Tick::Gap(_), _) => Before::Newest,
                (Tick::Number(_), false) => Before::Success,
            };
            assert_eq!(desk.wait_due(3, due), Decision::AlreadyRan(before));
        }
    }
}

#[test]
fn a_waiter_that_would_retry_is_handed_the_lock_of_a_run_that_failed() {
    for (outcome, next) in [(Outcome::Error, 2), (Outcome::Ok, 1)] {
        let mut desk = desk();
        desk.attempt_due(1, tick(7));
        let due = retried(tick(7));
        assert!(matches!(desk.wait_due(2, due), Decision::Queued { .. }));
        desk.end_as(1, outcome);
        assert_eq!(desk.newest().owner, next);
        assert_eq!(desk.queue(), []);
        let told = match next {
            2 => Decision::Granted,
            _ => RAN,
        };
        assert_eq!(desk.wait_due(2, due), told);
    }
}

#[test]
fn the_newest_run_that_ended_well_is_known_whatever_comes_after_it() {
    let mut desk = desk();
    assert_eq!(desk.success(), None);
    desk.run(1, None, Outcome::Ok);
    assert_eq!(desk.success(), Some(1));
    for (owner, outcome) in [
        (2, Outcome::Error),
        (3, Outcome::Released),
        (4, Outcome::Unused),
    ] {
        desk.attempt(owner);
        assert_eq!(desk.success(), Some(1), "while {owner} runs");
        desk.end_as(owner, outcome);
        assert_eq!(desk.success(), Some(1), "after {owner}");
        desk.pass(1);
    }
    desk.run(5, None, Outcome::Ok);
    assert_eq!(desk.success(), Some(5));
    // It is forgotten with the newest.
    desk.attempt(6);
    desk.pass(TTL + REMEMBER);
    assert_eq!(desk.success(), None);
    desk.attempt(7);
    assert_eq!(desk.lock.success, None);
}

#[test]
fn a_lock_that_is_kept_after_its_run_is_freed_by_force_and_its_run_has_ended_well() {
    let mut desk = desk();
    desk.attempt(1);
    let request = Releaser {
        outcome: Outcome::Ok,
        ..keep(1, 10_000)
    };
    let Desk { lock, now, wires } = &mut desk;
    assert!(lock.release(request, *now, &TIMING, wires).ended);
    assert!(lock.force_release(None, (), *now, &TIMING, wires));
    assert_eq!(desk.newest().phase, Phase::Released(desk.now));
    assert_eq!(desk.newest().forced_by, None);
    assert_eq!(desk.success(), Some(1));
}

#[test]
fn a_tick_is_not_forgotten_through_a_holding_that_has_none() {
    // That of `ask_due`.
    let remember = 2 * 24 * HOUR;
    for due in [tick(7), every(50 * HOUR)] {
        let mut desk = desk();
        desk.run(1, due, Outcome::Released);
        // By the first, by one after it, and whether it is given back or expires.
        desk.run(2, None, Outcome::Released);
        desk.attempt(3);
        desk.pass(TTL + 44 * HOUR);
        assert_eq!(desk.attempt_due(4, due), RAN, "{due:?}");
        desk.pass(remember - 44 * HOUR - 1);
        assert!(desk.lock.remembered(desk.now).is_some());
        desk.pass(1);
        assert_eq!(desk.lock.remembered(desk.now), None, "{due:?}");
        assert_eq!(desk.attempt_due(4, due), Decision::Granted);
    }
}

#[test]
fn for_how_long_a_tick_is_remembered_its_last_run_says() {
    let mut desk = desk();
    desk.run(1, tick(7), Outcome::Ok);
    let requester = Requester {
        owner: 2,
        process: 2,
        ttl: TTL,
        remember: HOUR,
        due: tick(8),
        who: (),
    };
    let Desk { lock, now, wires } = &mut desk;
    let asked = lock.acquire(requester, WhenBusy::Refuse, *now, &TIMING, wires);
    assert_eq!(asked, Ok(Decision::Granted));
    desk.end_as(2, Outcome::Released);
    desk.attempt(3);
    desk.release(3);
    desk.pass(HOUR - 1);
    assert_eq!(desk.attempt_due(4, tick(8)), RAN);
    desk.pass(1);
    assert_eq!(desk.attempt_due(4, tick(7)), Decision::Granted);
}
