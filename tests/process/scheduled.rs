//! Promise: three processes, each with a scheduler of its own whose clock is a little off, run a
//! short job once in each of twenty ticks (F48).

use std::thread;
use std::time::{Duration, SystemTime};

use crate::support::child::{self, ChildProcess};
use crate::support::lease::LIMIT;
use crate::support::redis::RedisServer;
use applock::{AppLocker, Error, Lock};

const TICKS: u32 = 20;

/// A call that is over so long after its time was made in time.
const IN_TIME: Duration = Duration::from_millis(80);

/// Of `every`; a tick has its number, so it may come ten times as often.
const PERIOD: Duration = Duration::from_secs(1);

/// What a process does: `every` or `tick`, so many milliseconds late. Says of each tick whether it ran
/// the job, and whether it fired in time.
fn fires(part: &str) {
    let words: Vec<&str> = part.split(' ').collect();
    let [url, kind, late] = words[..] else {
        panic!("{part}");
    };
    let late = Duration::from_millis(late.parse().unwrap());
    let locker = AppLocker::connect_blocking(url).unwrap();
    let job = |tick: u32| -> (Lock, Duration) {
        match kind {
            "every" => (locker.lock("job").every(PERIOD), PERIOD * tick),
            _ => {
                // The run of the tick before may go on, on a machine that stands still.
                let lock = locker.lock("job").wait(LIMIT);
                (lock.tick(u64::from(tick) + 1), PERIOD / 10 * tick)
            }
        }
    };
    child::say("ready");
    let begin: u64 = child::hear().unwrap().parse().unwrap();
    let begin = SystemTime::UNIX_EPOCH + Duration::from_millis(begin) + late;
    for tick in 0..TICKS {
        let (lock, after) = job(tick);
        let at = begin + after;
        thread::sleep(at.duration_since(SystemTime::now()).unwrap_or_default());
        let ran = match lock.run_blocking(|| ()) {
            Ok(()) => 1,
            Err(Error::AlreadyRan(_) | Error::Busy(_)) => 0,
            Err(error) => panic!("{error}"),
        };
        let in_time = at.elapsed().is_ok_and(|late| late <= IN_TIME);
        child::say(format_args!("{ran} {}", u8::from(in_time)));
    }
    child::until_dismissed();
}

/// How often each tick was run, and whether all three fired in time.
fn fired(test: &str, kind: &str) -> Vec<(u32, bool)> {
    let server = RedisServer::start();
    let mut children = [0, 30, 60].map(|late| {
        let part = format!("{} {kind} {late}", server.url());
        ChildProcess::start(test, &part)
    });
    for child in &children {
        assert_eq!(child.says(), "ready");
    }
    let begin = SystemTime::now() + Duration::from_millis(200);
    let begin = begin.duration_since(SystemTime::UNIX_EPOCH).unwrap();
    for child in &mut children {
        child.tell(&begin.as_millis().to_string());
    }
    let ticks = (0..TICKS).map(|_| {
        let mut tick = (0, true);
        for child in &children {
            let said = child.says();
            let (ran, in_time) = said.split_once(' ').unwrap();
            tick.0 += ran.parse::<u32>().unwrap();
            tick.1 &= in_time == "1";
        }
        tick
    });
    let ticks = ticks.collect();
    for child in children {
        child.dismiss();
    }
    ticks
}

#[test]
fn three_processes_run_a_short_job_once_for_each_number() {
    if let Some(part) = child::part() {
        return fires(&part);
    }
    let test = child::name_of(three_processes_run_a_short_job_once_for_each_number);
    for (tick, (runs, _)) in fired(test, "tick").into_iter().enumerate() {
        assert_eq!(runs, 1, "tick {tick}");
    }
}

/// Where the machine stands still, a tick comes late, and may be refused for that, and the next one
/// too: they are not judged.
#[test]
fn three_processes_run_a_short_job_once_in_each_period() {
    if let Some(part) = child::part() {
        return fires(&part);
    }
    let test = child::name_of(three_processes_run_a_short_job_once_in_each_period);
    let mut before = true;
    for (tick, (runs, in_time)) in fired(test, "every").into_iter().enumerate() {
        assert!(runs == 1 || !(before && in_time), "tick {tick}: {runs}");
        before = in_time;
    }
}
