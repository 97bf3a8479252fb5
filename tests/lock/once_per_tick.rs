//! Promise: a job that is once per tick runs once in each, on whichever server comes first,
//! however far the servers' clocks are apart (F48); and the store knows how it went.

use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use crate::support::lease::LIMIT;
use crate::support::panics::caught;
use crate::support::redis::RedisServer;
use crate::support::wait;
use applock::clock::ManualClock;
use applock::{AppLocker, Ending, Error, LastHolding, Lock, MemoryStore, Result, singleton};

const HOUR: Duration = Duration::from_secs(3_600);

/// Three servers, whose schedulers fire so much later than the first one's.
type Lateness = [Duration; 3];

const CLOSE: Lateness = [
    Duration::ZERO,
    Duration::from_millis(30),
    Duration::from_millis(60),
];

const TICKS: u32 = 20;

/// A call that is over so long after its time was made in time.
const IN_TIME: Duration = Duration::from_millis(80);

/// Of one tick.
#[derive(Default)]
struct Fired {
    runs: AtomicU32,
    /// Of the three, how many were called in time.
    in_time: AtomicU32,
}

impl Fired {
    fn runs(&self) -> u32 {
        self.runs.load(Ordering::SeqCst)
    }
}

/// Fires twenty times, a period apart, on three servers with a connection each. Answers how it went,
/// tick by tick.
fn fire(
    server: &RedisServer,
    period: Duration,
    late: Lateness,
    job: impl Fn(&AppLocker, u32, &AtomicU32) + Sync,
) -> Vec<Fired> {
    let ticks: Vec<Fired> = (0..TICKS).map(|_| Fired::default()).collect();
    let lockers = late.map(|late| (late, AppLocker::connect_blocking(server.url()).unwrap()));
    let begin = Instant::now() + Duration::from_millis(20);
    thread::scope(|scope| {
        for (late, locker) in &lockers {
            let (ticks, job) = (&ticks, &job);
            scope.spawn(move || {
                for (tick, fired) in (0..).zip(ticks) {
                    let fires = begin + period * tick + *late;
                    thread::sleep(fires.saturating_duration_since(Instant::now()));
                    job(locker, tick, &fired.runs);
                    if fires.elapsed() <= IN_TIME {
                        fired.in_time.fetch_add(1, Ordering::SeqCst);
                    }
                }
            });
        }
    });
    ticks
}

fn run_it(lock: &Lock, runs: &AtomicU32) {
    match lock.run_blocking(|| runs.fetch_add(1, Ordering::SeqCst)) {
        Ok(_) | Err(Error::AlreadyRan(_) | Error::Busy(_)) => {}
        Err(error) => panic!("{error}"),
    }
}

/// Where the machine stands still, a tick comes late, and may be refused for that, and the next one
/// too: they are not judged, and all are fired once more.
#[test]
fn three_servers_run_a_short_job_once_in_each_period() {
    let server = RedisServer::start();
    let period = Duration::from_secs(1);
    for attempt in 0..4 {
        let name = format!("attempt-{attempt}");
        let ticks = fire(&server, period, CLOSE, |locker, _, runs| {
            run_it(&locker.lock("job").name(&name).every(period), runs);
        });
        let (mut before, mut judged) = (true, 0);
        for (tick, fired) in ticks.iter().enumerate() {
            let in_time = fired.in_time.load(Ordering::SeqCst) == 3;
            if before && in_time {
                assert_eq!(fired.runs(), 1, "tick {tick}");
                judged += 1;
            }
            before = in_time;
        }
        if judged == TICKS {
            break;
        }
    }
}

/// The run of the tick before may go on, on a machine that stands still: they wait for it.
#[test]
fn three_servers_run_a_short_job_once_for_each_number() {
    let server = RedisServer::start();
    let runs = fire(
        &server,
        Duration::from_millis(100),
        CLOSE,
        |locker, tick, runs| {
            let lock = locker.lock("job").wait(HOUR);
            run_it(&lock.tick(u64::from(tick) + 1), runs);
        },
    );
    assert!(runs.iter().all(|fired| fired.runs() == 1));
}

/// Seconds apart, and thirty ticks behind: the one that is late finds each tick run.
#[test]
fn servers_that_are_three_seconds_apart_run_no_tick_twice_and_no_old_one() {
    let server = RedisServer::start();
    let late = [
        Duration::ZERO,
        Duration::from_millis(40),
        Duration::from_secs(3),
    ];
    let fired = SystemTime::UNIX_EPOCH + Duration::from_secs(1_790_000_000);
    let runs = fire(
        &server,
        Duration::from_millis(100),
        late,
        |locker, tick, runs| {
            let lock = locker.lock("job").wait(HOUR);
            run_it(&lock.tick(fired + HOUR * tick), runs);
        },
    );
    assert!(runs.iter().all(|fired| fired.runs() == 1));
}

/// The same for hours, and for days of 23 and 25 hours, by a clock that the test sets. The first to
/// come is another one each time, sooner or later than the one before.
#[test]
fn servers_that_are_seconds_apart_run_a_job_once_in_each_period_also_on_days_of_23_and_25_hours() {
    for (period, lengths) in [(1, [1, 1, 1, 1, 1]), (24, [24, 23, 24, 25, 24])] {
        let clock = ManualClock::new();
        let store = MemoryStore::with_clock(clock.clone());
        let servers = [0, 1, 2].map(|_| {
            let builder = AppLocker::builder().store(store.clone());
            builder.clock(clock.clone()).build().unwrap()
        });
        let late = Duration::from_secs(3);
        let mut runs = Vec::new();
        for (tick, length) in (0..TICKS).zip(lengths.into_iter().cycle()) {
            let run = AtomicU32::new(0);
            let ahead = late * (tick % 3);
            clock.advance(ahead);
            for server in servers.iter().cycle().skip(tick as usize % 3).take(3) {
                let lock = server.lock("job").every(HOUR * period);
                run_it(&lock, &run);
                clock.advance(late);
            }
            clock.advance(HOUR * length - late * 3 - ahead);
            runs.push(run.into_inner());
        }
        assert_eq!(runs, [1; TICKS as usize], "{period} h");
    }
}

#[test]
fn a_refusal_tells_who_ran_when_how_it_ended_and_when_the_next_may_begin() {
    let server = RedisServer::start();
    let locker = AppLocker::builder()
        .store(server.url())
        .instance("web-1")
        .build()
        .unwrap();
    let lock = locker.lock("job").every(HOUR);
    let ran = |lock: &Lock| -> LastHolding {
        match lock.acquire_blocking() {
            Err(Error::AlreadyRan(run)) => *run,
            other => panic!("{other:?}"),
        }
    };
    let guard = lock.acquire_blocking().unwrap();
    let during = ran(&lock);
    assert_eq!((during.ending, during.until), (Ending::Held, None));
    guard.release_blocking().unwrap();
    let after = ran(&lock);
    assert_eq!(after.instance_id, "web-1");
    assert_eq!(after.from, during.from);
    assert!(after.until.unwrap() >= after.from);
    let next = after.from + HOUR / 10 * 9;
    assert_eq!(
        (after.ending, after.next_at),
        (Ending::Released, Some(next))
    );
    let text = lock.acquire_blocking().unwrap_err().to_string();
    for part in [
        "already ran: the last run of \"QUEUE:job\" was on ",
        "(instance web-1) from 20",
        ": released; the next may begin at 20",
    ] {
        assert!(text.contains(part), "{text}");
    }
    // Who asks for it if it is free is told that there is none; others may have it.
    assert!(lock.try_acquire_blocking().unwrap().is_none());
    assert!(locker.lock("job").try_acquire_blocking().unwrap().is_some());
}

#[singleton(app = "skips", every = "1h", on_busy = skip, locker = locker)]
async fn skips(locker: &AppLocker, runs: &AtomicU32) -> Result<()> {
    runs.fetch_add(1, Ordering::SeqCst);
    Ok(())
}

#[singleton(app = "gives", tick = tick, on_busy = 0, locker = locker)]
fn gives(locker: &AppLocker, tick: u64) -> u64 {
    tick
}

#[tokio::test]
async fn to_have_run_already_is_skipped_as_busy_is() {
    let locker = AppLocker::in_memory();
    let runs = AtomicU32::new(0);
    for _ in 0..3 {
        skips(&locker, &runs).await.unwrap();
    }
    assert_eq!(runs.into_inner(), 1);
    let given = [1, 1, 2, 1, 2, 3].map(|tick| gives(&locker, tick));
    assert_eq!(given, [1, 0, 2, 0, 0, 3]);
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Way {
    Ok,
    Fail,
    Question,
    Panic,
}

fn goes(way: Way) -> Result<(), String> {
    match way {
        Way::Ok => Ok(()),
        Way::Panic => panic!("the body panics"),
        Way::Fail | Way::Question => Err("no disk".into()),
    }
}

#[derive(Debug)]
struct Failed;

impl From<Error> for Failed {
    fn from(error: Error) -> Self {
        panic!("{error}")
    }
}

impl From<String> for Failed {
    fn from(_: String) -> Self {
        Self
    }
}

#[singleton(app = "job", every = "1h", retry = failed, locker = locker)]
async fn retried(locker: &AppLocker, way: Way) -> Result<(), Failed> {
    goes(way)?;
    Ok(())
}

#[singleton(app = "job", every = "1h", retry = failed, locker = locker)]
fn retried_sync(locker: &AppLocker, way: Way) -> Result<(), Failed> {
    if way == Way::Question {
        goes(way)?;
    }
    Ok(goes(way)?)
}

/// No `retry`, and a body that is left by each way but its last line.
#[singleton(app = "job", locker = locker)]
fn left_early(locker: &AppLocker, way: &str, count: &mut u32) -> Result<()> {
    *count += 1;
    if way == "return" {
        return Err(bad());
    }
    if way == "question" {
        Err(bad())?;
    }
    if way == "returned well" {
        return Ok(());
    }
    Err(bad())
}

#[singleton(app = "job", locker = locker)]
fn left_in_a_macro<'a>(
    locker: &AppLocker,
    way: &str,
    count: &'a mut u32,
) -> anyhow::Result<&'a mut u32> {
    anyhow::ensure!(way == "well", "left early");
    *count += 1;
    Ok(count)
}

/// An error of our own: any.
fn bad() -> Error {
    let locker = AppLocker::in_memory();
    let guard = locker.lock("x").ttl(Duration::ZERO).acquire_blocking();
    guard.unwrap_err()
}

struct Counter(u32);

impl Counter {
    #[singleton(app = "job", on_busy = Err("busy".to_owned()), locker = locker)]
    fn left_in_a_method(&mut self, locker: &AppLocker, way: &str) -> Result<&mut u32, String> {
        let Self(count) = self;
        if way == "fails" {
            return Err("no disk".into());
        }
        *count += 1;
        Ok(count)
    }
}

/// A value that the attribute can't look at: bound to a name, a closure would lose its signature.
#[singleton(app = "job", locker = locker)]
fn gives_a_closure(locker: &AppLocker, way: Way) -> Result<impl Fn(&str) -> &str> {
    let guard = applock::current().unwrap();
    match way {
        Way::Ok => guard.mark_ok(),
        Way::Fail => guard.mark_failed(),
        _ => {}
    }
    Ok(str::trim)
}

#[test]
fn a_sync_run_that_is_left_early_has_ended_as_what_it_returned() {
    let locker = AppLocker::in_memory();
    let ending = || {
        let last = locker.lock("job").last_holding_blocking();
        last.unwrap().unwrap().ending
    };
    let mut count = 0;
    for (way, expected) in [
        ("return", Ending::Error),
        ("question", Ending::Error),
        ("returned well", Ending::Ok),
        ("to its end", Ending::Error),
    ] {
        let ran = left_early(&locker, way, &mut count);
        assert_eq!(
            (ran.is_ok(), ending()),
            (expected == Ending::Ok, expected),
            "{way}"
        );
    }
    *left_in_a_macro(&locker, "well", &mut count).unwrap() += 1;
    assert_eq!((count, ending()), (6, Ending::Ok));
    assert!(left_in_a_macro(&locker, "badly", &mut count).is_err());
    assert_eq!(ending(), Ending::Error);
    let mut counter = Counter(0);
    *counter.left_in_a_method(&locker, "well").unwrap() += 1;
    assert_eq!((counter.0, ending()), (2, Ending::Ok));
    counter.left_in_a_method(&locker, "fails").unwrap_err();
    assert_eq!(ending(), Ending::Error);
    // Of one that can't be looked at, what the body has said of it.
    for (way, expected) in [
        (Way::Ok, Ending::Ok),
        (Way::Fail, Ending::Error),
        (Way::Question, Ending::Released),
    ] {
        assert_eq!(gives_a_closure(&locker, way).unwrap()(" x "), "x");
        assert_eq!(ending(), expected);
    }
}

async fn until(what: &str, is_met: impl AsyncFn() -> bool) {
    let met = async {
        while !is_met().await {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    let met = tokio::time::timeout(LIMIT, met).await;
    assert!(met.is_ok(), "after {LIMIT:?} still not: {what}");
}

/// The stores that decide it, each on its own.
fn stores() -> Vec<(AppLocker, Box<dyn Send>)> {
    let (server, directory) = (RedisServer::start(), tempfile::tempdir().unwrap());
    let redis = AppLocker::connect_blocking(server.url()).unwrap();
    let url = format!("dir:{}", directory.path().join("locks").display());
    let dir = AppLocker::connect_blocking(url).unwrap();
    vec![
        (redis, Box::new(server)),
        (dir, Box::new(directory)),
        (AppLocker::in_memory(), Box::new(())),
    ]
}

/// The same run. A server reckons its end from two readings of its clock, and a machine may stand
/// still between them.
#[track_caller]
fn assert_is_told(told: &Option<LastHolding>, run: &LastHolding) {
    let mut told = told.clone().expect("a run");
    let (one, other) = (told.until.unwrap(), run.until.unwrap());
    let apart = one.duration_since(other).unwrap_or_else(|e| e.duration());
    assert!(apart < Duration::from_secs(1), "{told:?} is not {run:?}");
    told.until = run.until;
    assert_eq!(&told, run);
}

#[tokio::test]
async fn a_run_that_failed_is_taken_up_and_the_store_knows_how_each_ended() {
    for (locker, _kept) in stores() {
        let lock = locker.lock("job");
        let ending = async || lock.last_holding().await.unwrap().unwrap().ending;
        assert!(lock.last_success().await.unwrap().is_none());
        for (way, expected) in [
            (Way::Fail, Ending::Error),
            (Way::Question, Ending::Error),
            (Way::Panic, Ending::Panicked),
        ] {
            let ran = caught(retried(&locker, way)).await;
            assert_eq!(ran.is_err(), way == Way::Panic);
            assert_eq!(ending().await, expected);
            let ran = caught(async { retried_sync(&locker, way) }).await;
            assert_eq!(ran.is_err(), way == Way::Panic);
            assert_eq!(ending().await, expected, "sync");
        }
        // A future that is dropped at its first pause.
        let cancelled = lock.clone().every(HOUR).retry_failed();
        let begun = tokio::sync::Notify::new();
        let body = async {
            begun.notify_one();
            wait::to_be_cancelled().await;
        };
        tokio::select! {
            ended = cancelled.run(body) => panic!("{ended:?}"),
            () = begun.notified() => {}
        }
        // It is on its way.
        let is_cancelled = async || ending().await == Ending::Cancelled;
        until("it is cancelled", is_cancelled).await;
        assert!(lock.last_success().await.unwrap().is_none());

        retried(&locker, Way::Ok).await.unwrap();
        assert_eq!(ending().await, Ending::Ok);
        let success = lock.last_success().await.unwrap().unwrap();
        assert_is_told(&lock.last_holding().await.unwrap(), &success);
        for again in [cancelled.clone(), lock.clone().every(HOUR)] {
            let refused = again.acquire().await.unwrap_err();
            assert!(matches!(refused, Error::AlreadyRan(_)), "{refused}");
        }
        // It stays the newest that ended well, whatever comes after it.
        let guard = lock.acquire().await.unwrap();
        assert_eq!(ending().await, Ending::Held);
        assert_is_told(&lock.last_success().await.unwrap(), &success);
        guard.mark_failed();
        guard.release().await.unwrap();
        assert_eq!(ending().await, Ending::Error);
        assert_is_told(&lock.last_success().await.unwrap(), &success);
        let guard = lock.acquire().await.unwrap();
        guard.mark_ok();
        let token = guard.fencing_token();
        guard.release().await.unwrap();
        let newest = lock.last_success().await.unwrap().unwrap();
        assert_eq!((newest.fencing_token, newest.ending), (token, Ending::Ok));
    }
}

#[tokio::test]
async fn who_released_by_force_is_told() {
    for (locker, _kept) in stores() {
        let lock = locker.lock("job");
        let guard = lock.acquire().await.unwrap();
        assert!(lock.force_release().await.unwrap());
        let last = lock.last_holding().await.unwrap().unwrap();
        assert_eq!(last.ending, Ending::Forced);
        let by = last.forced_by.clone().unwrap();
        assert!(by.contains(&format!("(pid {}", std::process::id())), "{by}");
        assert!(
            last.to_string()
                .contains(&format!("released by force by {by}"))
        );
        guard.lost().await;
    }
}

/// It waits for a run that goes on, and is told when that has ended well.
#[tokio::test]
async fn a_waiter_is_judged_again_when_it_would_have_the_lock() {
    for (locker, _kept) in stores() {
        let lock = locker.lock("job").every(HOUR).retry_failed().wait(HOUR);
        for ends_well in [false, true] {
            let guard = lock.acquire().await.unwrap();
            let waiters = [lock.clone(), lock.clone(), lock.clone()];
            let waiting = waiters.map(|lock| tokio::spawn(async move { lock.acquire().await }));
            let all_wait = async || {
                let info = locker.lock("job").info().await.unwrap();
                info.and_then(|info| info.waiters()) == Some(3)
            };
            until("all three wait", all_wait).await;
            match ends_well {
                true => guard.mark_ok(),
                false => guard.mark_failed(),
            }
            guard.release().await.unwrap();
            let mut granted = 0;
            for waiting in waiting {
                match waiting.await.unwrap() {
                    // It does the work that had failed.
                    Ok(guard) => {
                        granted += 1;
                        guard.mark_ok();
                        guard.release().await.unwrap();
                    }
                    Err(Error::AlreadyRan(run)) => assert_eq!(run.ending, Ending::Ok),
                    Err(other) => panic!("{other}"),
                }
            }
            assert_eq!(granted, u32::from(!ends_well));
            // The next round needs a tick that is open.
            let plain = locker.lock("job").acquire().await.unwrap();
            plain.mark_failed();
            plain.release().await.unwrap();
            if !ends_well {
                let refused = lock.clone().try_acquire().await.unwrap();
                assert!(refused.is_none(), "the success before forbids it still");
                break;
            }
        }
    }
}

#[test]
fn what_cannot_be_is_refused_and_says_what_to_write() {
    let locker = AppLocker::builder()
        .store(MemoryStore::new())
        .build()
        .unwrap();
    let lock = || locker.lock("job");
    for (lock, part) in [
        (
            lock().every(Duration::ZERO),
            "invalid every 0s: it is shorter than 100ms",
        ),
        (
            lock().every(HOUR * 24 * 365 * 6),
            "it is longer than five years",
        ),
        (
            lock().every(HOUR).tick(7),
            "invalid every 1h: it stands beside a tick",
        ),
        (
            lock().retry_failed(),
            "invalid retry failed: there is no tick",
        ),
    ] {
        let refused = lock.acquire_blocking().unwrap_err();
        assert!(matches!(refused, Error::Invalid(_)));
        assert!(refused.to_string().contains(part), "{refused}");
    }
}
