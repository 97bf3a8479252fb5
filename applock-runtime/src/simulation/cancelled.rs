//! Waits that are given up, by the thousand.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use tokio::task::spawn_local;
use tokio::time::sleep;

use super::host::{Host, wind_down};
use super::with_server;
use super::world::{World, between, host_name};

/// A key with long leases: what is left behind is not made good by time.
const KEY: usize = 2;

const WAITING_HOSTS: usize = 2;
const TASKS: usize = 100;
const WAITS: usize = 50;

/// How long the lock is held while they wait; later it comes and goes.
const HELD: Duration = Duration::from_secs(3);

#[test]
fn ten_thousand_cancelled_waits_leave_nothing_behind() {
    fastrand::seed(0);
    let world = Rc::new(World::new(0, Duration::ZERO, true));
    let mut sim = with_server(&world);
    let waiting = Rc::new(Cell::new(WAITING_HOSTS));
    sim.client(host_name(0), hold(Rc::clone(&world), Rc::clone(&waiting)));
    for number in 1..=WAITING_HOSTS {
        let give_up = give_up(Rc::clone(&world), number, Rc::clone(&waiting));
        sim.client(host_name(number), give_up);
    }
    sim.run().unwrap();
    let broken = world.history.borrow().broken();
    assert!(broken.is_empty(), "{}", broken.join("\n"));
    let left = world.data(0).borrow_mut().all_but_fences();
    assert!(left.is_empty(), "{left:?}");
}

/// Holds the lock, and when the others are done, takes it once more, at once.
async fn hold(world: Rc<World>, waiting: Rc<Cell<usize>>) -> turmoil::Result {
    let rng = &mut fastrand::Rng::with_seed(0);
    let (host, engine_at_work) = Host::start(Rc::clone(&world), 0, rng);
    let held = host.try_take(rng, KEY).await?;
    sleep(HELD).await;
    held.release().await?;
    while waiting.get() > 0 {
        sleep(Duration::from_millis(100)).await;
        host.take_and_hold(rng, KEY, Duration::from_millis(200), Duration::ZERO)
            .await;
    }
    // What it had itself is given back in the background.
    sleep(Duration::from_secs(1)).await;
    host.try_take(rng, KEY).await?.release().await?;
    drop(host);
    wind_down(&world, 0, engine_at_work).await
}

async fn give_up(world: Rc<World>, number: usize, waiting: Rc<Cell<usize>>) -> turmoil::Result {
    let rng = &mut fastrand::Rng::with_seed(number as u64);
    let (host, engine_at_work) = Host::start(Rc::clone(&world), number, rng);
    // The holder comes first.
    sleep(HELD / 2).await;
    let tasks: Vec<_> = (0..TASKS)
        .map(|_| {
            let (host, mut rng) = (Rc::clone(&host), rng.fork());
            spawn_local(async move {
                for _ in 0..WAITS {
                    let deadline = between(&mut rng, 0, 200);
                    host.take_and_hold(&mut rng, KEY, deadline, Duration::ZERO)
                        .await;
                }
            })
        })
        .collect();
    for task in tasks {
        task.await?;
    }
    drop(host);
    wind_down(&world, number, engine_at_work).await?;
    waiting.set(waiting.get() - 1);
    Ok(())
}
