//! The real engine and the real `redis` crate on simulated hosts, over a simulated network,
//! in virtual time.
//!
//! A run is drawn from its seed: hosts whose clocks run at different rates take, hold and
//! give back locks at random ([`host`]); messages are lost, delayed and held, connections
//! reset, and the server restarted ([`faults`]); the server is a small one that runs our
//! scripts ([`server`]). Every other pair of runs is a crowd, where many waiters share few locks.
//! All that happens is recorded, and checked ([`history`], [`queues`], [`calm`]):
//!
//! | check | what must hold |
//! |---|---|
//! | overlap | no two leases of a key are valid at once |
//! | unbacked | a guard that says 'held' belongs to the holder at the server at that moment |
//! | token | fencing tokens grow strictly, in the order of acquisition |
//! | revived | a guard that turned lost never says 'held' again |
//! | stuck | when the faults are over, every waiter gets the lock, in bounded time |
//! | unrest | then every engine comes to rest |
//! | left behind | and no lock is left at the server, expired or not |
//! | left in queue | and no waiter is in a wait queue |
//! | order | waiters keep their positions in the wait queue |
//! | jumped | no waiter gets a lock before a subscribed waiter ahead of it |
//! | unserved | a released lock goes at once to a subscribed waiter |
//! | wasted | and not to a waiter that can't be notified |
//! | unnotified | a waiter that is granted a lock is notified soon |
//! | forgotten | a waiter whose wait queue the server lost is soon in it again |
//! | lingers | and a waiter that has gone is soon in no wait queue |
//! | asleep | no lock is free for long while a waiter without a network fault is in its wait queue |
//! | leaked | no lock stays with a caller that has given up, or let go |
//! | late | a waiter gets its answer at its deadline |
//! | lost for nothing | a lease is lost only for a cause: `at_most`, lost data, a fault that outlasts two attempts |
//! | idle | all in all no lock is free for long while the same waiter waits for it without a fault |
//! | restless | no host asks the server more often than its callers give reason to |
//! | growth | no engine keeps more than what its callers have, or left behind not long ago |
//! | unaware | see below |
//!
//! A server that restarts without its data gives a lock to another while its holder still
//! thinks that it has it: no lock can prevent that. In every other seed the server forgets
//! so. There, two leases may overlap if the server forgot the older one before it gave the
//! younger one; instead the older one's holder must notice within a heartbeat and two
//! seconds of the server's being back ('unaware'), where its host has no network fault. Tokens grow all the same, and all other checks are made as ever. In the seeds
//! where it does not forget (it is restarted there, too) nothing is excused.
//!
//! Other runs have several servers ([`server::fleet`]): a master and a replica behind sentinels, or a
//! cluster. Theirs are failovers that lose the last writes, masters that go on answering after
//! another was promoted, or come back empty, slots that move, replicas that lag, sentinels and
//! nodes that know it late ([`failovers`]). What counts is what the server says that serves; what
//! another one says is noted as 'in vain'. In every other such seed all replicas acknowledge each
//! write, and nothing is excused; in the others a lease may rest on a lost write until its
//! holder can be told. All checks are made, and these ([`switches`]):
//!
//! | check | what must hold |
//! |---|---|
//! | untold | a holder whose lock was lost by a switch is told soon after the switch is known |
//! | retired | no guard is made of a grant by a master whose successor its host has dialled |
//! | remembered | no server is dialled that no sentinel has just named |
//! | denied | a release that was carried out is never told as 'not held' |
//! | refused | no caller is told 'unavailable' while nothing is wrong |
//! | crossing | no call has keys of several slots |
//! | asking | no command stands behind `ASKING` that was not sent there for it |
//!
//! `APPLOCK_SEED=17 cargo test -p applock-runtime --lib in_every_simulated_run -- --nocapture` runs
//! one seed, and prints its history; `behind_sentinels`, `in_a_cluster` are the others.

mod calm;
mod cancelled;
mod failovers;
mod faults;
mod history;
mod host;
mod queues;
mod scenes;
mod scripts;
mod server;
mod switches;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::Rc;
use std::time::Duration;

use faults::{Hand, Plan, SLOW, STEP};
use history::What;
use server::fleet::Layout;
use turmoil::Sim;
use world::{HOSTS, SENTINEL, World, host_name, server_name};

/// Nothing takes so long, unless it hangs.
const LONGEST_RUN: Duration = Duration::from_secs(90);

const VARIABLE: &str = "APPLOCK_SEED";

/// What a run came to.
struct SimulatedRun {
    history: String,
    broken: Vec<String>,
}

/// Whether the server of this seed's run ever loses its data.
fn is_forgetting(seed: u64) -> bool {
    seed % 2 == 1
}

/// Whether replicas acknowledge all writes of this seed's run, where there are several servers.
fn is_acknowledged(seed: u64) -> bool {
    seed % 2 == 1
}

/// Whether this seed's run has many waiters.
fn is_crowd(seed: u64) -> bool {
    seed % 4 >= 2
}

/// A network with the servers.
fn with_server(world: &Rc<World>) -> Sim<'static> {
    let mut sim = turmoil::Builder::new()
        .rng_seed(world.seed)
        .tick_duration(STEP)
        .min_message_latency(STEP)
        .max_message_latency(SLOW)
        .simulation_duration(LONGEST_RUN)
        .tcp_capacity(1_024)
        .enable_random_order()
        .build();
    let (servers, has_sentinels) = {
        let fleet = world.fleet.borrow();
        (fleet.servers.len(), !fleet.sentinels.is_empty())
    };
    for number in 0..servers {
        let served = Rc::clone(world);
        let serve = move || server::serve(Rc::clone(&served), number);
        sim.host(server_name(number), serve);
    }
    if has_sentinels {
        let named = Rc::clone(world);
        sim.host(SENTINEL, move || server::sentinel::serve(Rc::clone(&named)));
    }
    sim
}

fn run(seed: u64) -> SimulatedRun {
    // The engine's jitter.
    fastrand::seed(seed);
    let plan = Plan::draw(&mut fastrand::Rng::with_seed(seed), is_forgetting(seed));
    let world = World::new(seed, plan.heal, is_crowd(seed));
    live(plan, world)
}

/// The same with several servers.
fn run_fleet(layout: Layout, seed: u64) -> SimulatedRun {
    fastrand::seed(seed);
    let acknowledged = is_acknowledged(seed);
    let mut world = World::of(layout, acknowledged, seed, Duration::ZERO, is_crowd(seed));
    let rng = &mut fastrand::Rng::with_seed(seed);
    let plan = Plan::draw_fleet(rng, layout, acknowledged, world.shards());
    world.heal = plan.heal;
    live(plan, world)
}

/// Plays a run with hosts that take and give back locks at random.
fn live(plan: Plan, world: World) -> SimulatedRun {
    let world = Rc::new(world);
    let mut sim = with_server(&world);
    for number in 0..HOSTS {
        sim.client(host_name(number), host::live(Rc::clone(&world), number));
    }
    play(sim, plan, &world)
}

/// Carries a plan out, until every host has come to its end, and checks what happened.
fn play(mut sim: Sim<'_>, plan: Plan, world: &World) -> SimulatedRun {
    let mut hand = Hand::new(plan, world);
    loop {
        hand.act(&mut sim, world);
        match sim.step() {
            Ok(true) => break,
            Ok(false) => (),
            Err(error) => {
                world.history.borrow_mut().blame(format!("failed: {error}"));
                break;
            }
        }
    }
    let left = world.locks(sim.elapsed());
    let queued = world.queued();
    let mut history = world.history.borrow_mut();
    history.note(sim.elapsed(), What::Fault("the end".to_owned()));
    history.dialled = world.dials();
    if !left.is_empty() {
        history.blame(format!("left behind: {left:?}"));
    }
    for (key, owner) in queued {
        history.blame(format!("left in queue: {owner} at key {key}"));
    }
    SimulatedRun {
        history: history.to_string(),
        broken: history.broken(),
    }
}

/// The seed that is to be run alone.
fn asked_seed() -> Option<u64> {
    let asked = std::env::var(VARIABLE).ok();
    asked.map(|seed| seed.parse().expect("APPLOCK_SEED is a number"))
}

/// Runs the seeds, and tells how to run the first one again that fails.
fn seeds(layout: Layout, all: std::ops::Range<u64>) {
    match asked_seed() {
        // Any number will do, but one test is enough to run it.
        Some(seed) if all.start == 0 => check(layout, seed, true),
        Some(_) => eprintln!("{VARIABLE} is set: its seed is run by another test"),
        None => all.for_each(|seed| check(layout, seed, false)),
    }
}

fn check(layout: Layout, seed: u64, aloud: bool) {
    let test = match layout {
        Layout::Single => "in_every_simulated_run",
        Layout::Sentinels => "behind_sentinels",
        Layout::Cluster => "in_a_cluster",
    };
    let replay = format!(
        "replay: {VARIABLE}={seed} cargo test -p applock-runtime --lib {test} -- --nocapture"
    );
    let run = || match layout {
        Layout::Single => run(seed),
        _ => run_fleet(layout, seed),
    };
    match catch_unwind(AssertUnwindSafe(run)) {
        Ok(run) => {
            if aloud {
                eprint!("{}", run.history);
            }
            assert!(
                run.broken.is_empty(),
                "seed {seed}:\n{}\n{replay}",
                run.broken.join("\n")
            );
        }
        Err(panic) => {
            eprintln!("{replay}");
            resume_unwind(panic);
        }
    }
}

#[test]
fn promises_hold_in_every_simulated_run_1() {
    seeds(Layout::Single, 0..60);
}

#[test]
fn promises_hold_in_every_simulated_run_2() {
    seeds(Layout::Single, 60..120);
}

#[test]
fn promises_hold_in_every_simulated_run_3() {
    seeds(Layout::Single, 120..180);
}

#[test]
fn promises_hold_in_every_simulated_run_4() {
    seeds(Layout::Single, 180..240);
}

#[test]
fn promises_hold_behind_sentinels_1() {
    seeds(Layout::Sentinels, 0..24);
}

#[test]
fn promises_hold_behind_sentinels_2() {
    seeds(Layout::Sentinels, 24..48);
}

#[test]
fn promises_hold_in_a_cluster_1() {
    seeds(Layout::Cluster, 0..24);
}

#[test]
fn promises_hold_in_a_cluster_2() {
    seeds(Layout::Cluster, 24..48);
}

#[test]
fn the_same_seed_makes_the_same_history() {
    for seed in [0, 1] {
        let (first, second) = (run(seed), run(seed));
        assert!(first.history.lines().count() > 300);
        assert_eq!(first.history.len(), second.history.len(), "seed {seed}");
        for (first, second) in first.history.lines().zip(second.history.lines()) {
            assert_eq!(first, second, "seed {seed}");
        }
    }
}
