//! Misfortunes that a run drawn from a seed hardly ever meets: each is staged.

use std::rc::Rc;
use std::time::Duration;

use tokio::task::spawn_local;
use tokio::time::sleep;

use super::faults::Plan;
use super::host::{Host, wind_down};
use super::server::fleet::Layout;
use super::world::{World, elapsed, host_name};
use super::{play, with_server};

/// A key whose leases are so long that nothing is made good by their end, and one whose
/// leases end in the time of a scene.
const LONG: usize = 2;
const SHORT: usize = 1;

/// Far longer than any scene.
const FOREVER: Duration = Duration::from_secs(80);

/// Each makes other clocks, other delays, and other ttls.
const SEEDS: u64 = 8;

/// A caller of a host, which comes at `at`, waits no longer than `deadline`, and holds the
/// lock until then.
#[derive(Clone, Copy)]
struct Caller {
    host: usize,
    key: usize,
    at: Duration,
    deadline: Duration,
    until: Duration,
}

impl Caller {
    fn new(host: usize, key: usize, at: u64, until: u64) -> Self {
        Self {
            host,
            key,
            at: millis(at),
            deadline: FOREVER,
            until: millis(until),
        }
    }
}

const fn millis(length: u64) -> Duration {
    Duration::from_millis(length)
}

fn scene(plan: fn() -> Plan, callers: &[Caller]) {
    for seed in 0..SEEDS {
        fastrand::seed(seed);
        let plan = plan();
        let world = Rc::new(World::new(seed, plan.heal, true));
        let mut sim = with_server(&world);
        let hosts = callers.iter().map(|caller| caller.host + 1).max();
        for number in 0..hosts.unwrap_or_default() {
            let of_host = callers.iter().filter(|caller| caller.host == number);
            let act = act(Rc::clone(&world), number, of_host.copied().collect());
            sim.client(host_name(number), act);
        }
        let run = play(sim, plan, &world);
        assert!(
            run.broken.is_empty(),
            "seed {seed}:\n{}{}",
            run.history,
            run.broken.join("\n")
        );
    }
}

async fn act(world: Rc<World>, number: usize, callers: Vec<Caller>) -> turmoil::Result {
    let rng = &mut fastrand::Rng::with_seed(world.seed * 1_000 + number as u64);
    let (host, engine_at_work) = Host::start(Rc::clone(&world), number, rng);
    let watching = spawn_local(Rc::clone(&host).watch());
    let callers: Vec<_> = callers
        .into_iter()
        .map(|caller| {
            let (host, mut rng) = (Rc::clone(&host), rng.fork());
            spawn_local(async move {
                sleep(caller.at.saturating_sub(elapsed())).await;
                host.take_and_hold(&mut rng, caller.key, caller.deadline, caller.until)
                    .await;
            })
        })
        .collect();
    for caller in callers {
        caller.await?;
    }
    watching.abort();
    let _ = watching.await;
    drop(host);
    wind_down(&world, number, engine_at_work).await
}

/// The server stalls, and then carries out a waiter's first request, which was given up, and
/// right after it the release of a holder of the same host.
#[test]
fn a_waiter_that_is_handed_the_lock_before_it_knows_its_place_keeps_it() {
    scene(
        || Plan::calm(millis(2_030)).hold(millis(1_000), millis(2_030), 0),
        &[
            Caller::new(0, LONG, 0, 1_950),
            Caller::new(0, LONG, 1_010, 8_000),
        ],
    );
}

/// The server loses its data while many callers of a host wait.
#[test]
fn the_waiters_of_a_server_that_lost_its_data_are_served_one_right_after_the_other() {
    let mut callers = vec![Caller::new(0, LONG, 0, 4_000)];
    callers.extend((0..20).map(|_| Caller::new(1, LONG, 1_000, 0)));
    scene(
        || Plan::calm(millis(3_100)).forget(millis(3_000), millis(3_100)),
        &callers,
    );
}

/// The server loses a long wait queue, and nothing else.
#[test]
fn a_long_queue_that_is_lost_is_restored_by_a_request_of_each_waiter() {
    let mut callers = vec![Caller::new(0, LONG, 0, 8_000)];
    callers.extend((0..400).map(|_| Caller::new(1, LONG, 1_000, 0)));
    scene(
        || Plan::calm(millis(4_000)).lose_queue(millis(4_000), LONG),
        &callers,
    );
}

/// A request of a caller that has gone is carried out when the engine has long ceased to
/// watch for it, and queues that caller.
#[test]
fn a_lock_that_is_granted_to_a_caller_that_has_long_gone_is_given_back() {
    scene(
        || Plan::calm(millis(2_120)).delay(millis(2_080), millis(2_300), 1, millis(12_000)),
        &[
            Caller::new(0, LONG, 0, 15_000),
            // Its host subscribes.
            Caller {
                deadline: millis(800),
                ..Caller::new(1, LONG, 1_000, 0)
            },
            Caller {
                deadline: millis(150),
                ..Caller::new(1, LONG, 2_100, 0)
            },
            // It waits behind the one that has gone.
            Caller::new(0, LONG, 14_500, 0),
            // Its host lives on.
            Caller::new(1, SHORT, 2_500, 20_000),
        ],
    );
}

/// A caller that does not wait is granted the lock, and no replica acknowledges that.
#[test]
fn a_grant_that_no_replica_has_is_given_back() {
    for seed in 0..SEEDS {
        fastrand::seed(seed);
        let plan = Plan::calm(millis(2_000)).lag(millis(1_000), millis(20_000));
        let world = World::of(Layout::Sentinels, true, seed, plan.heal, false);
        let world = Rc::new(world);
        let mut sim = with_server(&world);
        let of_host = Rc::clone(&world);
        sim.client(host_name(0), async move {
            let rng = &mut fastrand::Rng::with_seed(seed);
            let (host, engine_at_work) = Host::start(Rc::clone(&of_host), 0, rng);
            sleep(millis(1_500)).await;
            let refused = host.try_take(rng, LONG).await;
            assert!(refused.is_err());
            drop(refused);
            drop(host);
            wind_down(&of_host, 0, engine_at_work).await
        });
        let run = play(sim, plan, &world);
        assert!(
            run.broken.is_empty(),
            "seed {seed}:\n{}{}",
            run.history,
            run.broken.join("\n")
        );
    }
}

/// A node says by `MOVED` who serves, and those that are asked for the map do not know it yet.
#[test]
fn a_map_that_is_as_old_as_the_one_before_takes_no_slot_back() {
    for seed in 0..SEEDS {
        fastrand::seed(seed);
        let plan = Plan::calm(millis(6_000)).unheard_failover(millis(1_000));
        let world = Rc::new(World::of(Layout::Cluster, false, seed, plan.heal, false));
        let mut sim = with_server(&world);
        let of_host = Rc::clone(&world);
        sim.client(host_name(0), async move {
            let rng = &mut fastrand::Rng::with_seed(seed);
            let (host, engine_at_work) = Host::start(Rc::clone(&of_host), 0, rng);
            sleep(millis(500)).await;
            host.try_take(rng, SHORT).await?.release().await?;
            sleep(millis(1_000)).await;
            // It may be asked while the old master is retired.
            drop(host.try_take(rng, SHORT).await);
            for _ in 0..20 {
                sleep(millis(300)).await;
                host.try_take(rng, SHORT).await?.release().await?;
            }
            drop(host);
            wind_down(&of_host, 0, engine_at_work).await
        });
        let run = play(sim, plan, &world);
        assert!(
            run.broken.is_empty(),
            "seed {seed}:\n{}{}",
            run.history,
            run.broken.join("\n")
        );
    }
}
