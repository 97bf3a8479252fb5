//! A simulated host: an engine, and tasks that take, hold and give back locks at random;
//! and, when the faults are over, the proof that everything still works.

use std::future::Future;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use redis::ProtocolVersion;
use tokio::task::{JoinHandle, spawn_local};
use tokio::time::{sleep, timeout};

use crate::engine::{AcquireRequest, Engine, Held, Parts, Wait};
use crate::error::{Error, Result};
use crate::store::{Identity, OwnerId};

use super::history::{Attempt, OwnerNumber, What};
use super::world::{HostClock, TTLS, World, between, elapsed, host_name};

/// How many tasks of a host want locks; and how many do in a crowd.
const TASKS: u64 = 3;
const CROWD: u64 = 6;

/// Where the crowd is.
const CROWDED: [usize; 2] = [1, 2];

/// How long after the faults holders go on holding.
const LAST_HOLD: Duration = Duration::from_secs(1);

/// After that, each waiter gets its lock within so long.
const LIVENESS: Duration = Duration::from_secs(8);

/// And an engine without a user ends within so long: it goes on releasing orphans, which
/// may come to life for five seconds after the store has answered.
const WIND_DOWN: Duration = Duration::from_secs(8);

pub(super) struct Host {
    world: Rc<World>,
    number: usize,
    engine: Engine,
    clock: Arc<HostClock>,
}

/// Runs a host from its start to its end.
pub(super) async fn live(world: Rc<World>, number: usize) -> turmoil::Result {
    let mut rng = fastrand::Rng::with_seed(world.seed * 1_000 + number as u64);
    let (host, engine_at_work) = Host::start(Rc::clone(&world), number, &mut rng);
    let tasks: Vec<_> = (0..if world.crowd { CROWD } else { TASKS })
        .map(|_| spawn_local(Rc::clone(&host).work(rng.fork())))
        .collect();
    let watching = spawn_local(Rc::clone(&host).watch());
    for task in tasks {
        task.await?;
    }
    watching.abort();
    let _ = watching.await;
    let mut order: Vec<usize> = (0..TTLS.len()).collect();
    rng.shuffle(&mut order);
    for key in order {
        host.take_after_all(key).await;
    }
    drop(host);
    wind_down(&world, number, engine_at_work).await
}

/// Waits for the end of an engine without a user.
pub(super) async fn wind_down(
    world: &World,
    number: usize,
    engine_at_work: JoinHandle<()>,
) -> turmoil::Result {
    match timeout(WIND_DOWN, engine_at_work).await {
        Ok(ended) => ended?,
        Err(_) => world.history.borrow_mut().blame(format!(
            "unrest: the engine of host {number} has something to do still at {:?}",
            elapsed()
        )),
    }
    Ok(())
}

impl Host {
    pub(super) fn start(
        world: Rc<World>,
        number: usize,
        rng: &mut fastrand::Rng,
    ) -> (Rc<Self>, JoinHandle<()>) {
        let clock = Arc::new(HostClock::start(rng));
        let protocol = if rng.bool() {
            ProtocolVersion::RESP2
        } else {
            ProtocolVersion::RESP3
        };
        let (engine, work) = Engine::driven_by_caller(Parts {
            store: Arc::new(world.store(number, protocol)),
            clock: Arc::clone(&clock) as _,
            identity: Arc::new(Identity {
                instance: host_name(number),
                host: host_name(number),
                pid: 1,
            }),
            command_timeout: Duration::from_secs(1),
        });
        let engine_at_work = spawn_local(work);
        let host = Rc::new(Self {
            world,
            number,
            engine,
            clock,
        });
        (host, engine_at_work)
    }

    /// Takes a lock, waiting for it no longer than `deadline`, and lets it go when it is `until`.
    pub(super) async fn take_and_hold(
        &self,
        rng: &mut fastrand::Rng,
        key: usize,
        deadline: Duration,
        until: Duration,
    ) {
        let (attempt, request) = self.request(rng, key, Wait::Forever, None);
        if let Some(Ok(held)) = self.acquire(attempt, request, deadline).await {
            while self.check(attempt.owner, &held) && elapsed() < until {
                sleep((until - elapsed()).min(Duration::from_millis(50))).await;
            }
            self.note(What::LetGo(attempt.owner));
        }
    }

    /// What comes of an acquire, noted. `None`: its future was dropped.
    async fn acquire(
        &self,
        attempt: Attempt,
        request: AcquireRequest,
        deadline: Duration,
    ) -> Option<Result<Held>> {
        let result = timeout(deadline, self.engine.acquire(request)).await.ok();
        self.note(match &result {
            None => What::Dropped(attempt.owner),
            Some(Err(error)) => What::Refused(attempt.owner, refusal(error)),
            Some(Ok(held)) => What::Acquired(attempt.owner, held.lease().token),
        });
        result
    }

    /// Takes a lock, if it is free.
    pub(super) async fn try_take(&self, rng: &mut fastrand::Rng, key: usize) -> Result<Held> {
        let (_, request) = self.request(rng, key, Wait::Not, None);
        self.engine.acquire(request).await
    }

    fn note(&self, what: What) {
        self.world.note(what);
    }

    /// Looks at what the engine keeps, again and again.
    pub(super) async fn watch(self: Rc<Self>) {
        loop {
            sleep(Duration::from_millis(500)).await;
            let (now, kept) = (elapsed(), self.engine.unfinished());
            let mut history = self.world.history.borrow_mut();
            history.check_kept(self.number, kept, now);
        }
    }

    /// Takes locks, until the faults are over.
    async fn work(self: Rc<Self>, mut rng: fastrand::Rng) {
        loop {
            sleep(between(&mut rng, 0, 600)).await;
            if elapsed() >= self.world.heal {
                return;
            }
            self.take_one(&mut rng).await;
        }
    }

    /// An acquisition, from the request to whatever end.
    async fn take_one(&self, rng: &mut fastrand::Rng) {
        let key = rng.usize(..TTLS.len());
        let key = if self.world.crowd {
            CROWDED[key % 2]
        } else {
            key
        };
        let wait = match rng.u8(..8) {
            0 if self.world.crowd => Wait::Not,
            0..=2 if !self.world.crowd => Wait::Not,
            1..=3 => Wait::Forever,
            _ => Wait::For(between(rng, 20, 3_000)),
        };
        let at_most = (rng.u8(..6) == 0).then(|| between(rng, 200, 3_000));
        let (attempt, mut request) = self.request(rng, key, wait, at_most);
        request.at_least = (rng.u8(..6) == 0).then(|| between(rng, 100, 800));
        let deadline = match rng.u8(..8) {
            0 | 1 => between(rng, 0, 300),
            // It does not end before the faults do.
            2 if wait == Wait::Forever => self.world.heal - elapsed() + LIVENESS,
            _ => between(rng, 2_000, 4_000),
        };
        match self.acquire(attempt, request, deadline).await {
            None if elapsed() >= self.world.heal + LIVENESS => self.blame_stuck(attempt),
            None | Some(Err(_)) => (),
            Some(Ok(held)) => self.hold(attempt, held, rng).await,
        }
    }

    fn blame_stuck(&self, attempt: Attempt) {
        self.world.history.borrow_mut().blame(format!(
            "stuck: all is well, and {} of host {} has not key {} by {:?}",
            attempt.owner,
            self.number,
            attempt.key,
            elapsed()
        ));
    }

    /// A request with an owner id of the run's own.
    fn request(
        &self,
        rng: &mut fastrand::Rng,
        key: usize,
        wait: Wait,
        at_most: Option<Duration>,
    ) -> (Attempt, AcquireRequest) {
        let (least, most) = self.world.ttls[key];
        let attempt = Attempt {
            owner: self.world.next_owner(),
            host: self.number,
            key,
            ttl: between(rng, least, most),
            wait,
            at_most,
        };
        let request = AcquireRequest {
            due: None,
            key: self.world.keys[key].clone(),
            owner: OwnerId::from_u128(attempt.owner.into()),
            ttl: attempt.ttl,
            remember: Duration::from_secs(3_600),
            identity: Arc::clone(self.engine.identity()),
            wait,
            at_least: None,
            at_most,
        };
        self.note(What::Attempted(attempt));
        (attempt, request)
    }

    /// Looks at the guard. `false`: lost.
    fn check(&self, owner: OwnerNumber, held: &Held) -> bool {
        let says = held.lease().is_valid();
        self.note(What::Says(owner, says));
        says
    }

    async fn hold(&self, attempt: Attempt, held: Held, rng: &mut fastrand::Rng) {
        let owner = attempt.owner;
        let longest = match (rng.u8(..24), self.world.crowd) {
            (0, _) | (1..8, false) => 14_000,
            (_, false) => 2_500,
            (_, true) => 300,
        };
        let end = (elapsed() + between(rng, 0, longest)).min(self.world.heal + LAST_HOLD);
        while self.check(owner, &held) && elapsed() < end {
            if rng.u8(..20) == 0 {
                // Whatever it answers, the guard is what counts.
                let _ = timeout(between(rng, 0, 500), held.verify()).await;
            } else {
                sleep(self.until_next_check(&held, rng)).await;
            }
        }
        if rng.bool() {
            // A caller that does not stop when its guard is lost, or a body that takes its time.
            for _ in 0..rng.u8(..5) {
                sleep(between(rng, 1, 400)).await;
                self.check(owner, &held);
            }
        }
        self.note(What::LetGo(owner));
        match rng.u8(..3) {
            0 => drop(held),
            1 => {
                let deadline = between(rng, 0, 100);
                self.release(owner, timeout(deadline, held.release())).await;
            }
            _ => {
                let forever = Duration::from_secs(60);
                self.release(owner, timeout(forever, held.release())).await;
            }
        }
    }

    /// Checks come at random, and just before the lease's end: no other owner may have the
    /// lock even then.
    fn until_next_check(&self, held: &Held, rng: &mut fastrand::Rng) -> Duration {
        let left = self.clock.true_length(held.lease().remaining());
        let last = left.saturating_sub(Duration::from_millis(1));
        between(rng, 10, 200).min(last.max(Duration::from_millis(1)))
    }

    async fn release(
        &self,
        owner: OwnerNumber,
        released: impl Future<Output = std::result::Result<Result<()>, tokio::time::error::Elapsed>>,
    ) {
        match released.await {
            Ok(result) => self.note(What::Released(owner, outcome(&result))),
            Err(_) => self.note(What::Dropped(owner)),
        }
    }

    /// Nothing is wrong any more, so every waiter gets its lock.
    async fn take_after_all(&self, key: usize) {
        let rng = &mut fastrand::Rng::with_seed(self.world.seed);
        let (attempt, request) = self.request(rng, key, Wait::For(LIVENESS), None);
        match self.engine.acquire(request).await {
            Ok(held) => {
                self.note(What::Acquired(attempt.owner, held.lease().token));
                self.check(attempt.owner, &held);
                self.note(What::LetGo(attempt.owner));
                self.release(attempt.owner, timeout(LIVENESS, held.release()))
                    .await;
            }
            Err(error) => {
                self.note(What::Refused(attempt.owner, refusal(&error)));
                self.blame_stuck(attempt);
            }
        }
    }
}

/// In a word, so that the history of a run has one line for each event.
fn outcome(result: &Result<()>) -> String {
    match result {
        Ok(()) => "released".to_owned(),
        Err(error) => refusal(error),
    }
}

fn refusal(error: &Error) -> String {
    match error {
        Error::Busy(_) => "busy".to_owned(),
        Error::Unavailable(fault) => format!("unavailable, {fault}"),
        other => other.to_string(),
    }
}
