mod support;
use applock_model::{Queue, Setup};
use support::holds;

#[test]
fn two() { holds("two", Setup { ..Setup::queue(2) }); }
#[test]
fn three_bare() { holds("three bare", Setup { renewals: 0, queue: Queue { knocks: 0, ..Setup::queue(3).queue }, ..Setup::queue(3) }); }
