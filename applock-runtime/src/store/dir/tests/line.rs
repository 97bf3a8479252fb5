//! The rules of the line, with the time as a parameter.

use std::time::Duration;

use uuid::Uuid;

use super::super::line::*;
use super::super::record::{Damage, MAX_RECORD};
use super::super::time::{Boot, Now, nanos};
use super::key;
use crate::store::{CLAIM, Identity};

const START: Now = Now {
    up_ns: 1_000_000_000_000,
    wall_us: 1_790_000_000_000_000,
    boot: Some(Uuid::from_u128(1)),
};
const SILENT: Duration = Duration::from_secs(4);
const MINUTE: Duration = Duration::from_secs(60);

fn after(length: Duration) -> Now {
    Now {
        up_ns: START.up_ns + nanos(length),
        wall_us: START.wall_us + nanos(length) / 1_000,
        ..START
    }
}

fn id(number: u128) -> Uuid {
    Uuid::from_u128(number)
}

fn engine(number: u128, now: &Now) -> Engine {
    let identity = Identity {
        instance: format!("web-{number}\n%"),
        host: "db7".into(),
        pid: 4711,
    };
    Engine::new(id(number), &identity, now)
}

/// Of each: the owner, its engine; all came in this order.
fn line(waiters: &[(u128, u128)], now: &Now) -> Line {
    let mut line = Line::default();
    for (number, (owner, theirs)) in waiters.iter().enumerate() {
        assert!(line.enter(id(*owner), number as u64, engine(*theirs, now)));
    }
    line
}

/// Who is before this one, by the owner id.
fn before(line: &mut Line, asker: u128, now: &Now) -> Option<u128> {
    let info = line.before(&id(asker), &key("a"), now)?;
    Some(Uuid::parse_str(info.owner_id()).unwrap().as_u128())
}

fn order(line: &Line, owners: &[u128]) -> Vec<Option<u64>> {
    owners.iter().map(|owner| line.ahead(&id(*owner))).collect()
}

/// What stands in the file of this line.
fn written(line: &Line) -> Line {
    let mut line = line.clone();
    line.is_changed = false;
    line
}

fn read_back(line: &Line, now: &Now) -> Line {
    Line::parse(line.render(&START.boot()).as_bytes(), now).unwrap()
}

#[test]
fn the_first_who_is_alive_comes_before_all_others() {
    let mut line = line(&[(3, 1), (1, 2), (2, 1)], &START);
    assert_eq!(order(&line, &[3, 1, 2]), [Some(0), Some(1), Some(2)]);
    for asker in [1, 2, 99] {
        assert_eq!(before(&mut line, asker, &START), Some(3));
    }
    assert_eq!(before(&mut line, 3, &START), None);
    line.leave(&id(3));
    assert_eq!(before(&mut line, 99, &START), Some(1));
    line.leave(&id(1));
    line.leave(&id(2));
    assert_eq!(before(&mut line, 99, &START), None);
    assert!(line.is_empty());
}

#[test]
fn whoever_asks_again_keeps_its_place() {
    let mut line = line(&[(1, 1), (2, 2)], &START);
    assert!(!line.enter(id(1), 9, engine(1, &START)));
    assert_eq!(order(&line, &[1, 2]), [Some(0), Some(1)]);
    assert_eq!(line.len(), 2);
}

#[test]
fn those_of_one_engine_stand_in_the_order_of_their_asking() {
    let mut line = Line::default();
    for (owner, number, theirs) in [(2, 8, 1), (7, 0, 2), (3, 9, 1), (8, 1, 2), (1, 7, 1)] {
        assert!(line.enter(id(owner), number, engine(theirs, &START)));
    }
    let places = order(&line, &[1, 7, 2, 8, 3]);
    assert_eq!(places, [Some(0), Some(1), Some(2), Some(3), Some(4)]);
}

#[test]
fn a_silent_engine_is_passed_over_and_finds_its_places_again() {
    let mut line = line(&[(1, 1), (2, 2), (3, 1)], &START);
    let now = after(SILENT);
    line.enter(id(2), 9, engine(2, &now));
    assert_eq!(before(&mut line, 2, &now), None);
    assert_eq!(before(&mut line, 99, &now), Some(2));
    // One of an engine speaks for all.
    line.enter(id(3), 9, engine(1, &now));
    assert_eq!(before(&mut line, 2, &now), Some(1));
}

#[test]
fn whoever_does_not_take_what_is_free_is_out() {
    let mut line = line(&[(1, 1), (2, 2)], &START);
    assert_eq!(before(&mut line, 99, &START), Some(1));
    let late = after(CLAIM);
    for (owner, theirs) in [(1, 1), (2, 2)] {
        line.enter(id(owner), 9, engine(theirs, &late));
    }
    let just = after(CLAIM - Duration::from_nanos(1));
    assert_eq!(before(&mut line, 99, &just), Some(1));
    assert_eq!(before(&mut line, 99, &late), Some(2));
    assert_eq!(order(&line, &[1, 2]), [None, Some(0)]);
    assert_eq!(before(&mut line, 2, &after(CLAIM * 9)), None);
}

#[test]
fn a_turn_that_came_to_nothing_does_not_count_later() {
    let mut line = line(&[(1, 1), (2, 2)], &START);
    assert_eq!(before(&mut line, 2, &START), Some(1));
    let silent = after(SILENT);
    line.enter(id(2), 9, engine(2, &silent));
    assert_eq!(before(&mut line, 2, &silent), None, "it takes the lock");
    line.leave(&id(2));
    line.enter(id(1), 9, engine(1, &silent));
    assert_eq!(before(&mut line, 99, &silent), Some(1));
    assert_eq!(line.len(), 1);
}

#[test]
fn a_clock_that_goes_back_begins_a_turn_anew() {
    let mut line = line(&[(1, 1)], &after(MINUTE));
    assert_eq!(before(&mut line, 9, &after(MINUTE)), Some(1));
    assert_eq!(before(&mut line, 9, &START), Some(1));
    line.enter(id(1), 9, engine(1, &after(CLAIM)));
    assert_eq!(before(&mut line, 9, &after(CLAIM)), None);
}

#[test]
fn every_line_is_read_back_as_it_was_written() {
    let mut line = line(&[(3, 1), (1, 2), (2, 1)], &START);
    assert_eq!(read_back(&line, &START), written(&line));
    before(&mut line, 9, &START);
    assert_eq!(read_back(&line, &START), written(&line));
    assert_eq!(read_back(&Line::default(), &START), Line::default());
}

#[test]
fn the_text_of_version_1_stays_as_it_is() {
    let mut line = line(&[(3, 1), (2, 2)], &START);
    before(&mut line, 9, &START);
    let golden = "applock line 1\nbegan 1789999000000\n\
        boot 00000000-0000-0000-0000-000000000001\n\
        turn 00000000-0000-0000-0000-000000000003 1000000000000\n\
        engine 00000000-0000-0000-0000-000000000001 1000000000000 4711\n\
        host db7\ninstance web-1%0A%25\n\
        engine 00000000-0000-0000-0000-000000000002 1000000000000 4711\n\
        host db7\ninstance web-2%0A%25\n\
        waiter 00000000-0000-0000-0000-000000000003 0 0\n\
        waiter 00000000-0000-0000-0000-000000000002 1 1\n";
    let text = line.render(&START.boot());
    let (told, sum) = text.split_at(text.rfind("sum ").unwrap());
    assert_eq!(told, golden);
    assert_eq!(sum, "sum 9ca2d02b-5f94-5bb2-b555-b1ed3112af0c\n");
}

#[test]
fn engines_that_are_silent_for_long_and_other_boots_are_forgotten() {
    let mut line = line(&[(1, 1), (2, 2), (3, 1)], &START);
    line.enter(id(2), 9, engine(2, &after(MINUTE)));
    let now = after(MINUTE + Duration::from_nanos(1));
    let found = read_back(&line, &now);
    assert_eq!(order(&found, &[1, 2, 3]), [None, Some(0), None]);
    assert!(found.is_changed);
    let restarted = Now {
        boot: Some(id(7)),
        ..after(MINUTE * 60)
    };
    assert_eq!(read_back(&line, &restarted), Line::anew());
}

#[test]
fn a_line_that_is_cut_short_or_changed_is_damaged() {
    let text = line(&[(1, 1), (2, 2)], &START).render(&START.boot());
    let text = text.into_bytes();
    for length in 0..text.len() {
        assert!(Line::parse(&text[..length], &START).is_err(), "{length}");
    }
    for place in 0..text.len() {
        for bit in 0..8 {
            let mut changed = text.clone();
            changed[place] ^= 1 << bit;
            assert!(
                Line::parse(&changed, &START).is_err(),
                "byte {place}, bit {bit}"
            );
        }
    }
    let newer = b"applock line 2\nwho knows\n";
    assert_eq!(Line::parse(newer, &START), Err(Damage::Newer));
    assert_eq!(Line::parse(b"4711\n", &START), Err(Damage::Foreign));
}

#[test]
fn a_line_never_grows_beyond_what_is_read() {
    let mut line = Line::default();
    let mut owner = 0;
    let names = Identity {
        instance: "\n".repeat(16_384),
        host: "\n".repeat(16_384),
        pid: u32::MAX,
    };
    let is_in = |line: &mut Line, owner| {
        line.enter(id(owner), u64::MAX, Engine::new(id(owner), &names, &START))
    };
    while is_in(&mut line, owner) {
        owner += 1;
    }
    assert!(owner > 1 && line.len() == owner as u64);
    before(&mut line, 999, &START);
    let boot = Boot {
        id: Some(Uuid::max()),
        began_ms: u64::MAX,
    };
    assert!(line.render(&boot).len() as u64 <= MAX_RECORD);
    line.leave(&id(0));
    assert!(is_in(&mut line, owner));
}
