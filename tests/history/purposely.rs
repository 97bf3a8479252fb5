//! The checker itself: histories that are sound pass, and those that are broken on
//! purpose do not.

use crate::checker::{Operation, Spec as _, Verdict, check};
use crate::record::{Attempt, Outcome, Release};
use crate::resource::Counter;
use crate::spec::{Action, Lease, Terms};
use crate::tally::Tally;
use crate::verdict::{STEPS, Writes, count, judge};

/// A command's time-out, in the units of these histories.
const TIME_OUT: u64 = 500;

fn terms() -> Terms {
    Terms {
        time_out: TIME_OUT,
        switches: Vec::new(),
    }
}

fn attempt(op: u64, start: u64) -> Attempt {
    Attempt::begun(op, 0, start)
}

impl Attempt {
    fn got(mut self, end: u64, token: u64) -> Self {
        self.outcome = Some((end, Outcome::Acquired(token)));
        self
    }

    fn busy(mut self, end: u64) -> Self {
        self.outcome = Some((end, Outcome::Busy));
        self
    }

    fn unknown(mut self, end: u64) -> Self {
        self.outcome = Some((end, Outcome::Unknown));
        self
    }

    fn waiting(mut self) -> Self {
        self.waits = true;
        self
    }

    fn yes(mut self, last: u64) -> Self {
        self.yes = Some((self.yes.map_or(last, |(first, _)| first), last));
        self
    }

    fn release(mut self, start: u64, end: u64, how: Release) -> Self {
        self.release = Some((start, Some((end, how))));
        self
    }

    fn released(self, start: u64, end: u64) -> Self {
        self.release(start, end, Release::Released)
    }
}

#[track_caller]
fn sound(attempts: &[Attempt]) {
    assert_eq!(judge(attempts, &terms(), STEPS), Ok(()));
}

/// The word says which of the questions it was that found it.
#[track_caller]
fn broken(word: &str, attempts: &[Attempt]) {
    let why = judge(attempts, &terms(), STEPS).expect_err("it is broken");
    assert!(why.contains(word), "{why}");
}

const NO_ORDER: &str = "no lock behaves like that";

#[test]
fn one_after_the_other_is_sound() {
    sound(&[]);
    sound(&[
        attempt(1, 0).got(10, 1).yes(12).yes(20).released(21, 30),
        attempt(2, 35).got(40, 2).yes(41).released(50, 60),
    ]);
}

#[test]
fn what_overlaps_may_have_happened_in_any_order() {
    sound(&[
        // Its acquire was answered late, after the other's release had been answered.
        attempt(1, 0).got(100, 2).yes(101).released(110, 120),
        attempt(2, 5).got(10, 1).yes(11).released(20, 30),
        attempt(3, 1).busy(40),
        attempt(4, 102).busy(130),
    ]);
    // Each of the three must come before the next, and only one order does.
    sound(&[
        attempt(1, 0).got(100, 1).released(200, 300),
        attempt(2, 0).got(250, 2).released(260, 400),
        attempt(3, 0).got(390, 3).released(395, 410),
        attempt(4, 402).busy(409),
    ]);
}

#[test]
fn what_got_no_answer_may_have_happened_or_not() {
    let unanswered = attempt(1, 0).unknown(500);
    sound(&[unanswered.clone(), attempt(2, 510).got(520, 1)]);
    sound(&[unanswered.clone(), attempt(2, 510).busy(520)]);
    // It came to life in between, and went again.
    sound(&[
        unanswered,
        attempt(2, 510).got(520, 1).released(530, 540),
        attempt(3, 550).busy(560),
        attempt(4, 550).busy(570),
        attempt(5, 580).got(590, 2),
    ]);
}

#[test]
fn a_lease_may_end_once_its_holder_no_longer_says_yes() {
    let lost = attempt(1, 0).got(10, 1).yes(50);
    let next = attempt(2, 51).got(60, 2).yes(61).released(70, 80);
    sound(&[lost.clone(), next.clone()]);
    for how in [Release::Lost, Release::NotHeld, Release::Unknown] {
        sound(&[lost.clone().release(90, 100, how), next.clone()]);
    }
    // It is not free before it has ended.
    sound(&[lost, attempt(2, 20).busy(30), next]);
}

#[test]
fn over_a_switch_an_answer_without_a_replica_may_be_old_and_two_holders_are_none_the_less_two() {
    const SECOND: u64 = 1_000_000_000;
    let [before, from, until] = [10, 20, 22].map(|seconds| seconds * SECOND);
    let terms = Terms {
        time_out: TIME_OUT,
        switches: vec![(from, until)],
    };
    let judged = |attempts: &[Attempt]| judge(attempts, &terms, STEPS);
    let released = |at: u64| {
        let begun = attempt(1, at - 9).got(at - 8, 1).yes(at - 7);
        begun.released(at - 6, at)
    };
    let busy = |at: u64| attempt(2, at).busy(at + 10);
    // What was released just before is held again, for a while.
    assert_eq!(judged(&[released(from - 1), busy(until + 5)]), Ok(()));
    assert!(judged(&[released(before), busy(until + 5)]).is_err());
    let next = attempt(3, until + 30).got(until + 40, 2).yes(until + 50);
    let next = next.released(until + 60, until + 70);
    let later = attempt(4, until + 80).busy(until + 90);
    let all = [released(from - 1), busy(until + 5), next.clone(), later];
    assert!(judged(&all).is_err(), "held, free, and held again");
    // The old master says what it knows.
    assert_eq!(judged(&[busy(from + 1)]), Ok(()));
    assert!(judged(&[busy(before)]).is_err());
    assert!(judged(&[busy(until + 1)]).is_err());
    // One that waited may have left a try behind.
    let waited = attempt(5, from).waiting().got(from + 9, 1);
    let waited = waited.released(from + 10, from + 11);
    assert_eq!(judged(&[waited.clone(), busy(until + 1)]), Ok(()));
    // Two that hold at once are broken whenever that is.
    let one = attempt(6, from).got(from + 1, 1).yes(from + 50);
    let other = attempt(7, from).got(from + 2, 2).yes(from + 3);
    assert!(judged(&[one, other]).unwrap_err().contains("two held"));
    // So is a token that is not larger.
    let again = attempt(8, until + 80).got(until + 90, 2);
    assert!(judged(&[next, again]).unwrap_err().contains("token"));
}

#[test]
fn an_acquire_that_waited_for_long_may_have_left_a_try_behind() {
    let long = attempt(1, 0).waiting().got(TIME_OUT, 1);
    let then = attempt(2, 700).busy(710);
    sound(&[long.clone().released(600, 610), then.clone()]);
    let short = attempt(1, 1).waiting().got(TIME_OUT, 1);
    broken(NO_ORDER, &[short.released(600, 610), then.clone()]);
    let refused = attempt(3, 0).waiting().busy(TIME_OUT + 5);
    let held = attempt(1, 0).got(10, 1).released(600, 610);
    sound(&[held.clone(), refused, then.clone()]);
    let one_try = attempt(3, 0).busy(TIME_OUT + 5);
    broken(NO_ORDER, &[held, one_try, then]);
}

#[test]
fn a_waiter_that_was_refused_may_have_been_handed_the_lock_before_it_knew() {
    let held = attempt(1, 0).got(10, 1).released(20, 30);
    let refused = attempt(2, 5).waiting().busy(60);
    let meanwhile = attempt(3, 40).busy(50);
    sound(&[held.clone(), refused, meanwhile.clone()]);
    let did_not_wait = attempt(2, 5).busy(60);
    broken(NO_ORDER, &[held.clone(), did_not_wait, meanwhile.clone()]);
    let came_later = attempt(2, 51).waiting().busy(60);
    broken(NO_ORDER, &[held, meanwhile, came_later]);
}

#[test]
fn two_holders_at_once_are_found() {
    let two = [
        attempt(1, 0).got(10, 1).released(100, 110),
        attempt(2, 20).got(30, 2).released(120, 130),
    ];
    broken(NO_ORDER, &two);
    let seen = [
        attempt(1, 0).got(10, 1).yes(90),
        attempt(2, 20).got(30, 2).yes(31),
    ];
    broken("two held at once", &seen);
}

#[test]
fn an_acquire_answered_before_the_others_release_began_is_found() {
    broken(
        NO_ORDER,
        &[
            attempt(1, 0).got(10, 1).released(50, 60),
            attempt(2, 20).got(49, 2).released(70, 80),
        ],
    );
}

#[test]
fn a_refusal_while_the_lock_was_free_is_found() {
    broken(NO_ORDER, &[attempt(1, 0).busy(10)]);
    broken(
        NO_ORDER,
        &[
            attempt(1, 0).got(10, 1).released(20, 30),
            attempt(2, 31).busy(40),
            attempt(3, 41).got(50, 2),
        ],
    );
}

#[test]
fn a_refusal_by_what_began_only_later_is_found() {
    broken(
        NO_ORDER,
        &[attempt(1, 0).busy(10), attempt(2, 11).unknown(500)],
    );
}

#[test]
fn what_got_no_answer_can_have_happened_only_once() {
    let history = |unknown| {
        let mut all = vec![
            attempt(3, 10).busy(20),
            attempt(4, 30).got(40, 1).released(50, 60),
            attempt(5, 70).busy(80),
        ];
        all.extend((1..=unknown).map(|op| attempt(op, op).unknown(500)));
        all
    };
    broken(NO_ORDER, &history(1));
    sound(&history(2));
}

#[test]
fn a_release_of_what_was_anothers_is_found() {
    // The first one's lease had ended; its release took away the second one's lock, and
    // the third got it.
    broken(
        NO_ORDER,
        &[
            attempt(1, 0)
                .got(10, 1)
                .yes(11)
                .release(50, 60, Release::NotHeld),
            attempt(2, 20).got(30, 2).released(90, 100),
            attempt(3, 65).got(70, 3).yes(75),
        ],
    );
    // And here its release was even answered.
    broken(
        NO_ORDER,
        &[
            attempt(1, 0).got(10, 1).yes(11).released(50, 60),
            attempt(2, 20).got(30, 2).yes(40),
        ],
    );
}

#[test]
fn a_release_of_what_is_held_that_was_answered_not_held_is_found() {
    // Refused afterwards by a lock that no other can hold.
    broken(
        NO_ORDER,
        &[
            attempt(1, 0)
                .got(10, 1)
                .yes(11)
                .release(20, 30, Release::NotHeld),
            attempt(2, 40).busy(50),
        ],
    );
}

#[test]
fn a_lease_that_ended_before_its_holders_last_yes_is_found() {
    broken(
        NO_ORDER,
        &[
            attempt(1, 0).got(10, 1).yes(50),
            attempt(2, 20).got(49, 2).released(60, 70),
        ],
    );
}

#[test]
fn a_lease_that_ended_though_it_was_released_is_found() {
    broken(
        NO_ORDER,
        &[
            attempt(1, 0).got(10, 1).yes(11).released(90, 100),
            attempt(2, 40).got(50, 2).release(60, 70, Release::Lost),
        ],
    );
}

#[test]
fn tokens_in_the_wrong_order_are_found() {
    for second in [7, 6] {
        broken(
            "token",
            &[
                attempt(1, 0).got(10, 7).released(20, 30),
                attempt(2, 40).got(50, second).released(60, 70),
            ],
        );
    }
    // Also where one stands between them.
    broken(
        "token",
        &[
            attempt(1, 0).got(10, 7).released(20, 30),
            attempt(2, 15).got(50, 9).released(60, 70),
            attempt(3, 40).got(80, 5).released(90, 100),
        ],
    );
}

#[test]
fn one_wrong_answer_among_thousands_is_found() {
    let mut long = Vec::new();
    for op in 0..3_000 {
        let start = op * 100;
        long.push(
            attempt(3 * op, start)
                .got(start + 20, op + 1)
                .released(start + 60, start + 80),
        );
        long.push(attempt(3 * op + 1, start + 5).busy(start + 70));
        // As many as a server that is down makes.
        if op % 10 == 0 {
            long.push(attempt(3 * op + 2, start).unknown(start + 90));
        }
    }
    sound(&long);
    long.push(attempt(1_000_000, 150_010).got(150_050, 1_501).yes(150_070));
    let why = judge(&long, &terms(), STEPS).unwrap_err();
    assert!(!why.contains("undecided"), "{why}");
}

#[test]
fn a_search_that_is_too_long_is_reported_and_is_no_proof() {
    let held = attempt(1, 0).got(10, 1).released(20, 30);
    let why = judge(&[held], &terms(), 1).unwrap_err();
    assert!(why.contains("undecided after 1 steps"), "{why}");
}

#[test]
fn increments_that_were_lost_or_made_up_are_found() {
    let writes = Writes {
        acknowledged: 3,
        unanswered: 1,
        refused: 2,
    };
    let mut counter = Counter::default();
    for _ in 0..3 {
        let value = counter.read(1).unwrap();
        assert!(counter.write(1, value + 1));
    }
    assert_eq!(count(&counter, &writes), Ok(()));
    let mut lost = counter;
    assert!(lost.write(1, 3), "it had read 2, as another did");
    assert!(count(&lost, &writes).is_err());
    let fewer = Writes {
        acknowledged: 5,
        ..writes
    };
    assert!(count(&counter, &fewer).is_err());
    let more = Writes {
        acknowledged: 1,
        ..writes
    };
    assert!(count(&counter, &more).is_err());
}

#[test]
#[should_panic(expected = "acquired: only 0")]
fn a_history_in_which_nothing_happened_is_no_proof() {
    Tally::new(1, 0).assert_that_much_happened(&[("acquired", 1)]);
}

/// Every order of every choice of the open operations, one by one.
fn by_brute_force(operations: &[Operation<Action>]) -> bool {
    fn go_on(operations: &[Operation<Action>], done: u32, state: Option<u64>) -> bool {
        let left = || {
            operations
                .iter()
                .enumerate()
                .filter(move |(index, _)| done & 1 << index == 0)
        };
        let until = left().filter_map(|(_, operation)| operation.end).min();
        let Some(until) = until else {
            return true;
        };
        left()
            .filter(|(_, operation)| operation.start <= until)
            .any(|(index, operation)| {
                Lease::step(&state, &operation.action)
                    .is_some_and(|state| go_on(operations, done | 1 << index, state))
            })
    }
    go_on(operations, 0, None)
}

#[test]
fn the_search_agrees_with_brute_force_on_small_histories() {
    let mut random = fastrand::Rng::with_seed(1);
    let (mut sound, mut broken) = (0, 0);
    for _ in 0..4_000 {
        let mut attempts = Vec::new();
        for op in 1..=random.u64(1..=5) {
            let mut later = |than: u64| than + random.u64(1..12);
            let start = later(0);
            let end = later(start);
            let (release, released) = (later(end), later(end + 12));
            let attempt = attempt(op, start);
            attempts.push(match random.u8(0..9) {
                0 | 8 => attempt.unknown(end),
                1 | 2 => attempt.busy(end),
                3 => attempt.got(end, op),
                4 => attempt
                    .got(end, op)
                    .release(release, released, Release::NotHeld),
                _ => attempt.got(end, op).released(release, released),
            });
        }
        let operations = crate::spec::operations(&attempts, &terms());
        let expected = by_brute_force(&operations);
        let found = match check::<Lease>(operations, STEPS) {
            Verdict::Sound => true,
            Verdict::Broken(_) => false,
            Verdict::Undecided { .. } => panic!("undecided: {attempts:?}"),
        };
        assert_eq!(found, expected, "{attempts:?}");
        *(if found { &mut sound } else { &mut broken }) += 1;
    }
    assert!(
        sound > 500 && broken > 500,
        "{sound} sound, {broken} broken"
    );
}
