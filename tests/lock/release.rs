//! Promise: the lock is free when the caller has its result, however the body ended;
//! and the body, with its arguments, ends before the lock does.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use crate::support::lease::{KEPT, LIMIT, outlives_its_ttl};
use crate::support::panics::{caught, caught_and};
use crate::support::probe::Probe;
use crate::support::redis::RedisServer;
use crate::support::{log, wait};
use applock::{AppLocker, Error, singleton};
use tokio::sync::oneshot;

/// Far longer than any test here: nothing is freed by its ttl.
const LONG: Duration = Duration::from_secs(60);

/// In the background, but soon.
const SOON: Duration = Duration::from_secs(30);

fn is_taken(server: &RedisServer, app: &str) -> bool {
    server.run(&format!("EXISTS QUEUE:{app}"))
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Way {
    Return,
    ReturnEarly,
    QuestionMark,
    Error,
    Panic,
}

use Way::{Panic, QuestionMark, Return, ReturnEarly};

#[derive(Debug)]
enum Failure {
    Lock(#[allow(dead_code, reason = "shown by Debug")] Error),
    Ours,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Lock(error)
    }
}

fn fails() -> Result<u32, Failure> {
    Err(Failure::Ours)
}

#[singleton(app = "ways", locker = locker)]
async fn job(locker: &AppLocker, server: &RedisServer, way: Way) -> Result<u32, Failure> {
    assert!(is_taken(server, "ways"));
    tokio::task::yield_now().await;
    if way == ReturnEarly {
        return Ok(1);
    }
    if way == QuestionMark {
        fails()?;
    }
    assert!(way != Panic, "the body panics");
    if way == Way::Error { fails() } else { Ok(2) }
}

#[singleton(app = "ways", locker = locker)]
fn sync_job(locker: &AppLocker, server: &RedisServer, way: Way) -> Result<u32, Failure> {
    assert!(is_taken(server, "ways"));
    if way == ReturnEarly {
        return Ok(1);
    }
    if way == QuestionMark {
        fails()?;
    }
    assert!(way != Panic, "the body panics");
    if way == Way::Error { fails() } else { Ok(2) }
}

fn is_as_expected(way: Way, outcome: &Result<u32, Failure>) -> bool {
    match way {
        Return => matches!(outcome, Ok(2)),
        ReturnEarly => matches!(outcome, Ok(1)),
        QuestionMark | Way::Error => matches!(outcome, Err(Failure::Ours)),
        Panic => false,
    }
}

#[tokio::test]
async fn an_async_body_has_released_when_its_caller_has_the_result() {
    let server = RedisServer::start();
    let locker = AppLocker::connect(server.url()).await.unwrap();
    for way in [Return, ReturnEarly, QuestionMark, Way::Error] {
        let outcome = job(&locker, &server, way).await;
        assert!(!is_taken(&server, "ways"));
        assert!(is_as_expected(way, &outcome), "{outcome:?}");
    }
}

#[test]
fn a_sync_body_has_released_when_its_caller_has_the_result() {
    let server = RedisServer::start();
    let locker = AppLocker::connect_blocking(server.url()).unwrap();
    for way in [Return, ReturnEarly, QuestionMark, Way::Error] {
        let outcome = sync_job(&locker, &server, way);
        assert!(!is_taken(&server, "ways"));
        assert!(is_as_expected(way, &outcome), "{outcome:?}");
    }
}

#[tokio::test]
async fn the_lock_is_free_when_an_async_panic_reaches_the_caller() {
    let server = RedisServer::start();
    let locker = AppLocker::connect(server.url()).await.unwrap();
    let is_free = || !is_taken(&server, "ways");
    let panic = caught_and(job(&locker, &server, Panic), is_free).await;
    let (panic, was_free) = panic.unwrap_err();
    assert!(was_free, "the panic was there before the release");
    assert_eq!(panic.downcast_ref(), Some(&"the body panics"));
    // And the locker works on.
    assert!(job(&locker, &server, Return).await.is_ok());
}

#[test]
fn the_lock_is_free_when_a_sync_panic_reaches_the_caller() {
    let server = RedisServer::start();
    let locker = AppLocker::connect_blocking(server.url()).unwrap();
    let panic = catch_unwind(AssertUnwindSafe(|| sync_job(&locker, &server, Panic))).unwrap_err();
    assert!(!is_taken(&server, "ways"));
    assert_eq!(panic.downcast_ref(), Some(&"the body panics"));
    assert!(sync_job(&locker, &server, Return).is_ok());
}

/// Pauses the server's writes while a body ends, and lets them go on when its release has
/// arrived.
struct Pause<'a> {
    server: &'a RedisServer,
    over: AtomicBool,
}

impl Pause<'_> {
    fn begin(&self) {
        let () = self.server.run("CLIENT PAUSE 600000 WRITE");
    }

    /// Whether the call returned before its release was answered, or had failed.
    fn is_forestalled(server: &RedisServer, app: &str, call: impl FnOnce(&Pause<'_>)) -> bool {
        log::keep();
        let pause = Pause {
            server,
            over: AtomicBool::new(false),
        };
        std::thread::scope(|scope| {
            scope.spawn(|| {
                wait::until("a release arrives", SOON, || {
                    server.info("blocked_clients") > 0
                });
                pause.over.store(true, Ordering::SeqCst);
                let () = server.run("CLIENT UNPAUSE");
            });
            call(&pause);
            // A machine that stands still for longer than a command may take.
            let failed = !log::lines(&["a release failed", app]).is_empty();
            !(pause.over.load(Ordering::SeqCst) || failed)
        })
    }
}

#[singleton(app = "paused", name = "{way:?}", locker = locker)]
async fn pauses(locker: &AppLocker, pause: &Pause<'_>, way: Way) -> Result<u32, Failure> {
    pause.begin();
    assert!(way != Panic, "the body panics");
    Ok(2)
}

#[singleton(app = "paused-sync", name = "{way:?}", locker = locker)]
fn pauses_sync(locker: &AppLocker, pause: &Pause<'_>, way: Way) -> Result<u32, Failure> {
    pause.begin();
    assert!(way != Panic, "the body panics");
    Ok(2)
}

#[test]
fn result_and_panic_reach_the_caller_only_when_the_release_is_answered() {
    let server = RedisServer::start();
    let locker = AppLocker::connect_blocking(server.url()).unwrap();
    for way in [Return, Panic] {
        for app in ["paused", "paused-sync"] {
            let mut outcome = None;
            let lock = format!("{app}:{way:?}");
            let forestalled = Pause::is_forestalled(&server, &lock, |pause| {
                let call = AssertUnwindSafe(|| match app {
                    "paused" => pollster::block_on(pauses(&locker, pause, way)),
                    _ => pauses_sync(&locker, pause, way),
                });
                outcome = Some(catch_unwind(call));
            });
            assert!(
                !forestalled,
                "{lock}: the call did not wait for the release"
            );
            assert_eq!(outcome.unwrap().is_err(), way == Panic);
            wait::until("the lock is free", SOON, || !is_taken(&server, &lock));
        }
    }
}

#[tokio::test]
async fn a_scoped_run_releases_on_return_and_on_panic() {
    let server = RedisServer::start();
    let locker = AppLocker::connect(server.url()).await.unwrap();
    let lock = locker.lock("scoped");
    assert!(
        lock.run(async { is_taken(&server, "scoped") })
            .await
            .unwrap()
    );
    assert!(!is_taken(&server, "scoped"));
    let panicking = async { panic!("the scope panics") };
    let outcome: Result<Result<(), _>, _> = caught(lock.run(panicking)).await;
    assert!(outcome.is_err());
    assert!(!is_taken(&server, "scoped"));
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        lock.run_blocking(|| -> () { panic!("the scope panics") })
    }));
    assert!(outcome.is_err());
    assert!(!is_taken(&server, "scoped"));
}

#[singleton(app = "dropped", locker = locker)]
async fn waits_for_ever(
    locker: &AppLocker,
    entered: oneshot::Sender<()>,
    in_body: Probe,
    argument: Probe,
) -> Result<(), Error> {
    let _in_body = in_body;
    entered.send(()).unwrap();
    std::future::pending::<()>().await;
    drop(argument);
    Ok(())
}

#[tokio::test]
async fn a_dropped_future_releases_the_lock_after_its_body_is_gone() {
    let server = RedisServer::start();
    let locker = AppLocker::connect(server.url()).await.unwrap();
    let (in_body, body_saw) = Probe::new(&server, "QUEUE:dropped");
    let (argument, argument_saw) = Probe::new(&server, "QUEUE:dropped");
    let (entered, is_entered) = oneshot::channel();
    let task = {
        let locker = locker.clone();
        tokio::spawn(async move { waits_for_ever(&locker, entered, in_body, argument).await })
    };
    is_entered.await.unwrap();
    assert!(!body_saw.is_dropped());
    task.abort();
    assert!(task.await.unwrap_err().is_cancelled());
    assert!(body_saw.saw_the_lock_taken());
    assert!(argument_saw.saw_the_lock_taken());
    wait::until("the lock is free", SOON, || !is_taken(&server, "dropped"));
}

#[tokio::test]
async fn a_future_dropped_while_it_acquires_leaves_no_lock_behind() {
    let server = RedisServer::start();
    let locker = AppLocker::connect(server.url()).await.unwrap();
    for _ in 0..20 {
        let lock = locker.lock("dropped").ttl(LONG);
        let mut acquire = Box::pin(lock.acquire());
        // Asked once: the command is on its way, and no task waits for the answer.
        let asked =
            std::future::poll_fn(|context| Poll::Ready(acquire.as_mut().poll(context).is_ready()));
        assert!(!asked.await);
        drop(acquire);
    }
    wait::until("the lock is free for good", SOON, || {
        // Everything that was asked before is settled by the time this is answered.
        let last = locker.lock("dropped").ttl(LONG).try_acquire_blocking();
        last.unwrap()
            .is_some_and(|guard| guard.release_blocking().is_ok())
    });
    wait::until("the lock is free", SOON, || !is_taken(&server, "dropped"));
}

#[test]
fn a_dropped_guard_releases_on_a_thread_without_a_runtime() {
    let server = RedisServer::start();
    let locker = AppLocker::connect_blocking(server.url()).unwrap();
    let guard = locker.lock("guard").ttl(LONG).acquire_blocking().unwrap();
    assert!(is_taken(&server, "guard"));
    std::thread::spawn(move || drop(guard)).join().unwrap();
    wait::until("the lock is free", SOON, || !is_taken(&server, "guard"));
}

#[tokio::test]
async fn a_guard_dropped_in_a_runtime_releases() {
    let server = RedisServer::start();
    let locker = AppLocker::connect(server.url()).await.unwrap();
    let guard = locker.lock("guard").ttl(LONG).acquire().await.unwrap();
    assert!(is_taken(&server, "guard"));
    drop(guard);
    wait::until("the lock is free", SOON, || !is_taken(&server, "guard"));
}

#[test]
fn a_guard_that_outlives_its_locker_is_renewed_and_releases() {
    let server = RedisServer::start();
    let locker = AppLocker::connect_blocking(server.url()).unwrap();
    let lock = locker.lock("orphan").ttl(KEPT).wait(LIMIT);
    let guard = lock.acquire_blocking().unwrap();
    drop(lock);
    drop(locker);
    outlives_its_ttl(&server, "QUEUE:orphan");
    guard.ensure_held().unwrap();
    guard.release_blocking().unwrap();
    assert!(!is_taken(&server, "orphan"));
}

#[singleton(app = "arguments", locker = locker)]
async fn takes(locker: &AppLocker, _: Probe, _unused: Probe, used: Probe) -> Result<(), Error> {
    std::hint::black_box(&used);
    Ok(())
}

#[singleton(app = "arguments", locker = locker)]
fn takes_sync(locker: &AppLocker, _: Probe, _unused: Probe, used: Probe) -> Result<(), Error> {
    std::hint::black_box(&used);
    Ok(())
}

#[expect(dead_code, reason = "only its drop is looked at")]
struct Job(Probe);

impl Job {
    #[singleton(app = "arguments", locker = locker)]
    async fn run(self, locker: &AppLocker) -> Result<(), Error> {
        Ok(())
    }

    #[singleton(app = "arguments", locker = locker)]
    fn run_sync(self, locker: &AppLocker) -> Result<(), Error> {
        Ok(())
    }
}

// R5
#[tokio::test]
async fn what_is_moved_into_a_body_is_dropped_before_the_lock_is_released() {
    let server = RedisServer::start();
    let locker = AppLocker::connect(server.url()).await.unwrap();
    let mut witnesses = Vec::new();
    let mut probe = || {
        let (probe, witness) = Probe::new(&server, "QUEUE:arguments");
        witnesses.push(witness);
        probe
    };
    takes(&locker, probe(), probe(), probe()).await.unwrap();
    takes_sync(&locker, probe(), probe(), probe()).unwrap();
    Job(probe()).run(&locker).await.unwrap();
    Job(probe()).run_sync(&locker).unwrap();
    assert_eq!(witnesses.len(), 8);
    for (which, witness) in witnesses.iter().enumerate() {
        assert!(witness.saw_the_lock_taken(), "probe {which}");
    }
    assert!(!is_taken(&server, "arguments"));
}

#[singleton(app = "arguments", locker = locker)]
async fn panics_with(locker: &AppLocker, argument: Probe) -> Result<(), Error> {
    std::hint::black_box(&argument);
    panic!("the body panics");
}

#[singleton(app = "arguments", locker = locker)]
fn panics_with_sync(locker: &AppLocker, argument: Probe) -> Result<(), Error> {
    std::hint::black_box(&argument);
    panic!("the body panics");
}

#[tokio::test]
async fn arguments_are_dropped_before_the_lock_is_released_also_in_a_panic() {
    let server = RedisServer::start();
    let locker = AppLocker::connect(server.url()).await.unwrap();
    let (probe, saw) = Probe::new(&server, "QUEUE:arguments");
    assert!(caught(panics_with(&locker, probe)).await.is_err());
    assert!(saw.saw_the_lock_taken());
    assert!(!is_taken(&server, "arguments"));
    let (probe, saw) = Probe::new(&server, "QUEUE:arguments");
    assert!(catch_unwind(AssertUnwindSafe(|| panics_with_sync(&locker, probe))).is_err());
    assert!(saw.saw_the_lock_taken());
    assert!(!is_taken(&server, "arguments"));
}

/// Ready at once, and still whole afterwards, as no async block is.
struct KeepsItsProbe(#[expect(dead_code, reason = "only its drop is looked at")] Probe);

impl Future for KeepsItsProbe {
    type Output = ();

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
        Poll::Ready(())
    }
}

// R5
#[tokio::test]
async fn a_future_of_ones_own_is_dropped_before_the_lock_is_released() {
    let server = RedisServer::start();
    let locker = AppLocker::connect(server.url()).await.unwrap();
    let (probe, saw) = Probe::new(&server, "QUEUE:own");
    locker.lock("own").run(KeepsItsProbe(probe)).await.unwrap();
    assert!(saw.is_dropped());
    assert!(saw.saw_the_lock_taken());
    assert!(!is_taken(&server, "own"));
}

#[tokio::test]
async fn the_function_runs_again_after_each_end_with_a_larger_token() {
    #[singleton(app = "tokens", locker = locker)]
    async fn token(locker: &AppLocker) -> Result<u64, Error> {
        Ok(applock::current().unwrap().fencing_token())
    }
    let server = RedisServer::start();
    let locker = AppLocker::connect(server.url()).await.unwrap();
    let mut last = 0;
    for _ in 0..50 {
        let next = token(&locker).await.unwrap();
        assert!(next > last);
        last = next;
    }
}
