//! What a failover costs: real clusters and real sentinel sets, killed, frozen and failed over.
//!
//! ```text
//! cargo run --release -p applock-benches --bin ha [-- [--runs N] [NAME…]]
//! ```
//!
//! Prints a table: the smallest, the median and the largest figure of the runs, beside the goal. A
//! figure that begins with a promotion counts in a cluster from when the promoted server first says
//! that it is a master, and behind sentinels from when the first of them names it (for about a
//! second before that nobody can know of it); both are asked every other millisecond.

/// The servers that the tests start.
#[allow(
    dead_code,
    unreachable_pub,
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "tests"
)]
#[path = "../../../tests/support"]
mod support {
    pub mod cluster;
    pub mod ports;
    pub mod redis;
    pub mod sentinel;
    pub mod sets;
    pub mod wait;
}

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use applock::{AppLocker, LockGuard};
use redis::Connection;

use crate::support::cluster::Cluster;
use crate::support::redis::RedisServer;
use crate::support::sentinel::{Layout, SentinelSet};

/// No step of these measurements takes so long, unless it hangs.
const LONGEST: Duration = Duration::from_secs(40);

/// One measurement: how one run of it is made, and the goal.
struct Measurement {
    name: &'static str,
    what: &'static str,
    unit: &'static str,
    goal: &'static str,
    run: fn() -> Result<f64>,
}

const MEASUREMENTS: &[Measurement] = &[
    Measurement {
        name: "cluster-failover",
        what: "`CLUSTER FAILOVER`: the longest gap between heartbeats, over a third of the ttl",
        unit: "ms",
        goal: "≤ 200",
        run: gap_over_a_cluster_failover,
    },
    Measurement {
        name: "cluster-kill",
        what: "cluster, kill -9: first renewal after the promotion",
        unit: "ms",
        goal: "≤ 100",
        run: || first_renewal_in_a_cluster(RedisServer::kill),
    },
    Measurement {
        name: "cluster-freeze",
        what: "cluster, SIGSTOP: first renewal after the promotion",
        unit: "ms",
        goal: "≤ 100",
        run: || first_renewal_in_a_cluster(|server| server.freeze()),
    },
    Measurement {
        name: "sentinel-kill",
        what: "Sentinel, kill -9: first renewal after the promotion",
        unit: "ms",
        goal: "≤ 100",
        run: || first_renewal_behind_sentinels(RedisServer::kill),
    },
    Measurement {
        name: "sentinel-freeze",
        what: "Sentinel, SIGSTOP: first renewal after the promotion",
        unit: "ms",
        goal: "≤ 100",
        run: || first_renewal_behind_sentinels(|server| server.freeze()),
    },
    Measurement {
        name: "planned-stay",
        what: "`SENTINEL FAILOVER`: how long locks are taken at the old master still",
        unit: "ms",
        goal: "≤ 200",
        run: || Ok(planned_switch("")?.0),
    },
    Measurement {
        name: "planned-twice",
        what: "`SENTINEL FAILOVER`: locks that the new master would grant again",
        unit: "locks",
        goal: "≤ 2",
        run: || Ok(planned_switch("")?.1),
    },
    Measurement {
        name: "planned-twice-acknowledged",
        what: "the same with `replicas` = all",
        unit: "locks",
        goal: "0",
        run: || Ok(planned_switch("?replicas=2")?.1),
    },
    Measurement {
        name: "lost-write",
        what: "the holder of a write that was lost is told, after the promotion",
        unit: "ms",
        goal: "≤ 50",
        run: told_of_a_lost_write,
    },
    Measurement {
        name: "waiter",
        what: "a waiter has the lock, after the holder's end at the new master",
        unit: "ms",
        goal: "≤ 300",
        run: waiter_after_a_promotion,
    },
    Measurement {
        name: "migration",
        what: "a slot with 1,000 keys migrates: acquires refused",
        unit: "locks",
        goal: "0",
        run: refused_over_a_migration,
    },
    Measurement {
        name: "frozen-node",
        what: "one node frozen: p99 of a cycle at another node, × without",
        unit: "×",
        goal: "1",
        run: p99_beside_a_frozen_node,
    },
    Measurement {
        name: "heartbeats",
        what: "10,000 locks, three masters: the servers' time for a heartbeat of a lock",
        unit: "µs",
        goal: "≤ 15",
        run: server_time_of_heartbeats,
    },
    Measurement {
        name: "wait",
        what: "64 callers, `replicas = 1`: cycles a second, × without",
        unit: "×",
        goal: "≥ 0.8",
        run: cycles_with_acknowledgement,
    },
];

fn main() -> Result<()> {
    let mut runs = 20;
    let mut chosen = Vec::new();
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        match word.as_str() {
            "--runs" => {
                let count = words.next().context("--runs needs a number")?;
                runs = count.parse().context("--runs needs a number")?;
            }
            name if MEASUREMENTS.iter().any(|one| one.name == name) => chosen.push(word),
            other => {
                let names: Vec<&str> = MEASUREMENTS.iter().map(|one| one.name).collect();
                bail!("{other} is no measurement; there are: {}", names.join(" "));
            }
        }
    }
    println!("| name | figure | unit | smallest | median | largest | runs | goal |");
    println!("|---|---|---|---:|---:|---:|---:|---|");
    for one in MEASUREMENTS {
        if !chosen.is_empty() && chosen.iter().all(|name| name != one.name) {
            continue;
        }
        let mut figures = Vec::new();
        for run in 0..runs {
            match (one.run)() {
                Ok(figure) => figures.push(figure),
                Err(error) => eprintln!("{}, run {run}: {error:#}", one.name),
            }
        }
        figures.sort_by(f64::total_cmp);
        let (Some(least), Some(most)) = (figures.first(), figures.last()) else {
            println!("| {} | {} | | | | | 0 | {} |", one.name, one.what, one.goal);
            continue;
        };
        println!(
            "| {} | {} | {} | {least:.1} | {:.1} | {most:.1} | {} | {} |",
            one.name,
            one.what,
            one.unit,
            figures.get(figures.len() / 2).unwrap_or(least),
            figures.len(),
            one.goal,
        );
    }
    Ok(())
}

fn ms(length: Duration) -> f64 {
    length.as_secs_f64() * 1_000.0
}

/// Asks each millisecond, no longer than [`LONGEST`].
fn until<T>(what: &str, mut met: impl FnMut() -> Option<T>) -> Result<T> {
    let begun = Instant::now();
    loop {
        if let Some(found) = met() {
            return Ok(found);
        }
        ensure!(begun.elapsed() < LONGEST, "it does not come: {what}");
        sleep(Duration::from_millis(1));
    }
}

/// A server that is looked at, over a connection that is made anew where it has ended.
struct Watched<'a> {
    server: &'a RedisServer,
    connection: Option<Connection>,
}

impl<'a> Watched<'a> {
    fn new(server: &'a RedisServer) -> Self {
        Self {
            server,
            connection: None,
        }
    }

    fn ask<T: redis::FromRedisValue>(
        &mut self,
        command: &str,
        argument: Option<&str>,
    ) -> Option<T> {
        if self.connection.is_none() {
            let connection = self.server.connect().ok()?;
            connection
                .set_read_timeout(Some(Duration::from_secs(1)))
                .ok()?;
            self.connection = Some(connection);
            // What a replica of a cluster needs for its data to be read; elsewhere an error.
            let _: Option<()> = self.ask("READONLY", None);
        }
        let connection = self.connection.as_mut()?;
        let answer = redis::cmd(command).arg(argument).query(connection);
        if answer
            .as_ref()
            .is_err_and(|error: &redis::RedisError| error.code().is_none())
        {
            self.connection = None;
        }
        answer.ok()
    }

    fn is_master(&mut self) -> bool {
        match self.ask("ROLE", None) {
            Some(redis::Value::Array(parts)) => {
                matches!(parts.first(), Some(redis::Value::BulkString(role)) if role == b"master")
            }
            _ => false,
        }
    }

    /// The time left of a key, in ms.
    fn time_left(&mut self, key: &str) -> Option<i64> {
        self.ask("PTTL", Some(key)).filter(|left| *left > 0)
    }
}

/// From the promotion of a server, which was seen then, to the first renewal of the lock there,
/// which was acquired for [`LONG`].
fn first_renewal(
    server: &RedisServer,
    seen: Instant,
    key: &str,
    held: &LockGuard,
    acquired: Instant,
) -> Result<f64> {
    let mut server = Watched::new(server);
    until("a renewal", || {
        let left = u64::try_from(server.time_left(key)?).ok()?;
        // More than what the first grant can have left. It may have come before this looks.
        let most = LONG.saturating_sub(acquired.elapsed()) + Duration::from_millis(50);
        (Duration::from_millis(left) > most).then_some(())
    })?;
    let passed = seen.elapsed();
    ensure!(held.is_held(), "the lock was lost");
    Ok(ms(passed))
}

/// So long that no heartbeat is due while a server fails.
const LONG: Duration = Duration::from_secs(45);

fn first_renewal_in_a_cluster(fail: fn(&mut RedisServer)) -> Result<f64> {
    let mut cluster = Cluster::quick();
    let app = cluster.app(0, 0);
    let replica = cluster.replica_of(0);
    let locker = AppLocker::connect_blocking(cluster.url())?;
    let held = locker.lock(&app).ttl(LONG).acquire_blocking()?;
    let acquired = Instant::now();
    sleep(Duration::from_millis(200));
    fail(&mut cluster.nodes[0]);
    // Something has to speak to the node: an idle holder learns at its next heartbeat.
    let asking = held.verify_blocking();
    ensure!(!asking.is_ok_and(|held| held), "the master has answered");
    let server = &cluster.nodes[replica];
    let mut watched = Watched::new(server);
    until("a promotion", || watched.is_master().then_some(()))?;
    let key = format!("QUEUE:{app}");
    first_renewal(server, Instant::now(), &key, &held, acquired)
}

fn first_renewal_behind_sentinels(fail: fn(&mut RedisServer)) -> Result<f64> {
    let mut set = SentinelSet::quick();
    let locker = AppLocker::connect_blocking(set.url())?;
    let held = locker.lock("held").ttl(LONG).acquire_blocking()?;
    let acquired = Instant::now();
    sleep(Duration::from_millis(200));
    let mut names = set.names();
    fail(&mut set.servers[0]);
    let (promoted, seen) = names.until_another(0);
    let server = &set.servers[promoted];
    first_renewal(server, seen, "QUEUE:held", &held, acquired)
}

/// The longest that the lock went without a renewal, over a third of its ttl.
fn gap_over_a_cluster_failover() -> Result<f64> {
    let ttl = Duration::from_secs(3);
    let cluster = Cluster::quick();
    let app = cluster.app(0, 0);
    let replica = cluster.replica_of(0);
    let locker = AppLocker::connect_blocking(cluster.url())?;
    let held = locker.lock(&app).ttl(ttl).acquire_blocking()?;
    let mut nodes = [0, replica].map(|node| Watched::new(&cluster.nodes[node]));
    let key = format!("QUEUE:{app}");
    let mut least = ttl;
    let mut at_the_end = None;
    let begun = Instant::now();
    let mut asked = false;
    while begun.elapsed() < Duration::from_secs(4) {
        if begun.elapsed() > Duration::from_secs(1) && !std::mem::replace(&mut asked, true) {
            let () = cluster.nodes[replica].run("CLUSTER FAILOVER");
        }
        // The one of both that was renewed last.
        let left = nodes
            .iter_mut()
            .filter_map(|node| node.time_left(&key))
            .max();
        if let Some(left) = left {
            least = least.min(Duration::from_millis(u64::try_from(left)?));
            at_the_end = Some(left);
        }
        sleep(Duration::from_millis(2));
    }
    ensure!(held.is_held() && at_the_end.is_some(), "the lock was lost");
    ensure!(cluster.nodes[replica].is_master(), "there was no failover");
    Ok(ms((ttl - least).saturating_sub(ttl / 3)))
}

/// A planned failover under a client that takes a fresh lock each 10 ms: for how many ms after the
/// promotion it was granted locks that the new master does not know, and how many.
fn planned_switch(query: &str) -> Result<(f64, f64)> {
    let set = SentinelSet::start();
    let locker = AppLocker::connect_blocking(format!("{}{query}", set.url()))?;
    let over = Arc::new(AtomicBool::new(false));
    let granted: Arc<Mutex<Vec<(String, Instant, LockGuard)>>> = Arc::default();
    let client = thread::spawn({
        let (over, granted) = (Arc::clone(&over), Arc::clone(&granted));
        move || {
            for number in 0.. {
                if over.load(Ordering::Relaxed) {
                    return;
                }
                let name = number.to_string();
                let lock = locker.lock("fresh").name(&name).ttl(LONG);
                if let Ok(guard) = lock.acquire_blocking() {
                    let mut granted = granted.lock().unwrap_or_else(PoisonError::into_inner);
                    granted.push((format!("QUEUE:fresh:{name}"), Instant::now(), guard));
                }
                sleep(Duration::from_millis(10));
            }
        }
    });
    sleep(Duration::from_millis(500));
    let (promoted, seen) = set.fail_over();
    sleep(Duration::from_secs(4));
    over.store(true, Ordering::Relaxed);
    let _ = client.join();
    let mut server = Watched::new(&set.servers[promoted]);
    let granted = granted.lock().unwrap_or_else(PoisonError::into_inner);
    let (mut stay, mut twice) = (Duration::ZERO, 0);
    for (key, at, guard) in granted.iter() {
        let text: Option<String> = server.ask("GET", Some(key)).context("no answer")?;
        let token = format!("\"token\":{}}}", guard.fencing_token());
        // Those of before nobody could know of are told to their holders at the switch.
        if *at >= seen && !text.is_some_and(|text| text.contains(&token)) {
            twice += 1;
            stay = stay.max(at.saturating_duration_since(seen));
        }
    }
    Ok((ms(stay), f64::from(twice)))
}

fn told_of_a_lost_write() -> Result<f64> {
    let mut set = SentinelSet::quick();
    let locker = AppLocker::connect_blocking(set.url())?;
    // The connection is there before the replicas are parted.
    locker
        .lock("first")
        .acquire_blocking()?
        .release_blocking()?;
    let mut names = set.names();
    set.servers[0].part_from_replicas();
    let held = locker.lock("lost").ttl(LONG).acquire_blocking()?;
    set.servers[0].kill();
    let (_, seen) = names.until_another(0);
    until("the loss", || (!held.is_held()).then_some(()))?;
    Ok(ms(seen.elapsed()))
}

fn waiter_after_a_promotion() -> Result<f64> {
    let mut set = SentinelSet::quick();
    let locker = AppLocker::connect_blocking(set.url())?;
    let other = AppLocker::connect_blocking(set.url())?;
    let held = locker.lock("served").ttl(LONG).acquire_blocking()?;
    let waiting = thread::spawn(move || -> Result<(Instant, LockGuard)> {
        let guard = other.lock("served").wait_forever().acquire_blocking()?;
        Ok((Instant::now(), guard))
    });
    sleep(Duration::from_millis(500));
    let mut names = set.names();
    set.servers[0].kill();
    let _ = names.until_another(0);
    ensure!(
        held.verify_blocking().is_ok_and(|held| held),
        "the lock was lost"
    );
    held.release_blocking()?;
    let released = Instant::now();
    match waiting.join() {
        Ok(served) => Ok(ms(served?.0.saturating_duration_since(released))),
        Err(_) => bail!("the waiter panicked"),
    }
}

fn refused_over_a_migration() -> Result<f64> {
    let cluster = Cluster::start();
    let app = cluster.app(0, 0);
    let tag = format!("QUEUE:{app}");
    let slot = cluster.slot(&tag);
    for number in 0..1_000 {
        let key = format!("{{{tag}}}:other:{number}");
        let () = cluster.nodes[0].try_run(&["SET", &key, "x"])?;
    }
    let locker = AppLocker::connect_blocking(cluster.url())?;
    let over = Arc::new(AtomicBool::new(false));
    let client = thread::spawn({
        let over = Arc::clone(&over);
        move || {
            let (mut refused, mut taken) = (0_u32, 0_u32);
            while !over.load(Ordering::Relaxed) {
                let lock = locker.lock(&app);
                match lock.acquire_blocking().map(LockGuard::release_blocking) {
                    Ok(Ok(())) => taken += 1,
                    _ => refused += 1,
                }
            }
            (refused, taken)
        }
    });
    sleep(Duration::from_millis(200));
    cluster.move_slot(slot, 0, 1);
    sleep(Duration::from_millis(200));
    over.store(true, Ordering::Relaxed);
    let Ok((refused, taken)) = client.join() else {
        bail!("the caller panicked");
    };
    ensure!(taken > 0, "no lock was taken");
    Ok(f64::from(refused))
}

fn p99_beside_a_frozen_node() -> Result<f64> {
    let cluster = Cluster::start();
    let (ours, theirs) = (cluster.app(1, 0), cluster.app(0, 0));
    let locker = AppLocker::connect_blocking(cluster.url())?;
    let p99 = |locker: &AppLocker| -> Result<Duration> {
        let mut cycles = Vec::new();
        for _ in 0..2_000 {
            let begun = Instant::now();
            locker.lock(&ours).acquire_blocking()?.release_blocking()?;
            cycles.push(begun.elapsed());
        }
        cycles.sort_unstable();
        cycles
            .get(cycles.len() * 99 / 100)
            .copied()
            .context("there are some")
    };
    let beside = |locker: AppLocker, over: Arc<AtomicBool>| {
        let theirs = theirs.clone();
        thread::spawn(move || {
            while !over.load(Ordering::Relaxed) {
                let _ = locker.lock(&theirs).acquire_blocking();
                sleep(Duration::from_millis(5));
            }
        })
    };
    let _ = p99(&locker)?;
    let over = Arc::new(AtomicBool::new(false));
    let caller = beside(locker.clone(), Arc::clone(&over));
    let without = p99(&locker)?;
    cluster.nodes[0].freeze();
    sleep(Duration::from_millis(100));
    let with = p99(&locker)?;
    cluster.nodes[0].thaw();
    over.store(true, Ordering::Relaxed);
    let _ = caller.join();
    Ok(with.as_secs_f64() / without.as_secs_f64())
}

/// How long the server's main thread has run, in ns.
fn run_time(server: &RedisServer) -> Result<u64> {
    let pid = server.info("process_id");
    let text = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/schedstat"))?;
    let first = text.split(' ').next().context("it has a first number")?;
    Ok(first.parse()?)
}

fn server_time_of_heartbeats() -> Result<f64> {
    const LOCKS: usize = 10_000;
    let cluster = Cluster::start();
    let locker = AppLocker::connect_blocking(cluster.url())?;
    let all = |cluster: &Cluster| -> Result<u64> {
        let times: Result<Vec<u64>> = cluster.nodes.iter().take(3).map(run_time).collect();
        Ok(times?.into_iter().sum())
    };
    let window = Duration::from_secs(10);
    let before = all(&cluster)?;
    sleep(window);
    let idle = all(&cluster)? - before;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()?;
    let ttl = Duration::from_secs(15);
    let guards = runtime.block_on(async {
        let mut guards = Vec::new();
        for number in 0..LOCKS {
            let lock = locker.lock("many").name(number.to_string()).ttl(ttl);
            guards.push(lock.acquire().await?);
        }
        Ok::<_, applock::Error>(guards)
    })?;
    let beats = |cluster: &Cluster| -> u64 {
        let nodes = cluster.nodes.iter().take(3);
        nodes.map(|node| node.calls("pexpire")).sum()
    };
    sleep(ttl / 3);
    let (before, beaten) = (all(&cluster)?, beats(&cluster));
    sleep(window);
    let (time, beaten) = (all(&cluster)? - before - idle, beats(&cluster) - beaten);
    ensure!(guards.iter().all(LockGuard::is_held), "a lock was lost");
    // Each renewal touches the lock and its fence.
    #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
    Ok(time as f64 / 1_000.0 / (beaten as f64 / 2.0))
}

fn cycles_with_acknowledgement() -> Result<f64> {
    let set = SentinelSet::with(&Layout {
        sentinels: 3,
        ..Layout::default()
    });
    let server = set.servers[0].url();
    let mut rates: HashMap<bool, f64> = HashMap::new();
    for round in 0..6 {
        let with = round % 2 == 1;
        let query = if with { "?replicas=1" } else { "" };
        let locker = AppLocker::connect_blocking(format!("{server}{query}"))?;
        let rate = cycles(&locker)?;
        let best = rates.entry(with).or_default();
        *best = best.max(rate);
    }
    let rate = |with| rates.get(&with).copied().context("it was measured");
    Ok(rate(true)? / rate(false)?)
}

/// Cycles of 64 callers a second.
fn cycles(locker: &AppLocker) -> Result<f64> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()?;
    let length = Duration::from_secs(2);
    runtime.block_on(async {
        let local = tokio::task::LocalSet::new();
        let begun = Instant::now();
        let callers: Vec<_> = (0..64)
            .map(|caller| {
                let lock = locker.lock("cycle").name(caller.to_string());
                local.spawn_local(async move {
                    let mut cycles = 0_u32;
                    while begun.elapsed() < length {
                        lock.acquire().await?.release().await?;
                        cycles += 1;
                    }
                    Ok::<_, applock::Error>(cycles)
                })
            })
            .collect();
        local.await;
        let mut all = 0.0;
        for caller in callers {
            all += f64::from(caller.await??);
        }
        Ok(all / begun.elapsed().as_secs_f64())
    })
}
