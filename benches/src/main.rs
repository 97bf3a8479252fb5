//! What a lock costs beside one written by hand, for one caller, on a redis-server that
//! this starts for itself: `cargo run --release -p applock-benches`.
//!
//! Written by hand means: `SET key id NX PX ttl`, and a script that compares and
//! deletes, through the same redis crate, over one multiplexed connection, in the same
//! runtime. It has no heartbeat, no fencing token, and no information about the holder.
//!
//! The rounds of the two alternate, so that both meet the same machine; what is printed
//! are ratios of one run. They say nothing about another machine, or about several
//! callers.

/// The server that the tests start.
#[allow(dead_code, unreachable_pub, clippy::expect_used, reason = "tests")]
#[path = "../../tests/support"]
mod support {
    pub mod redis;
    pub mod wait;
}

use std::time::{Duration, Instant};

use anyhow::Result;
use applock::{AppLocker, Lock};
use redis::aio::MultiplexedConnection;
use redis::io::tcp::TcpSettings;
use redis::{Client, IntoConnectionInfo as _, Script};
use support::redis::RedisServer;

const ROUNDS: usize = 21;
const CYCLES: u32 = 1_000;
const TTL: Duration = Duration::from_secs(60);

fn main() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(measure())
}

async fn measure() -> Result<()> {
    let server = RedisServer::start();
    let locker = AppLocker::connect(server.url()).await?;
    let ours = locker.lock("bench").ttl(TTL);
    let mut by_hand = ByHand::connect(&server.url()).await?;

    // Both scripts are known to the server, both connections are warm.
    cycles_of_ours(&ours).await?;
    by_hand.cycles().await?;

    let mut rounds = Vec::with_capacity(ROUNDS);
    for round in 0..ROUNDS {
        let (a, b);
        if round % 2 == 0 {
            a = cycles_of_ours(&ours).await?;
            b = by_hand.cycles().await?;
        } else {
            b = by_hand.cycles().await?;
            a = cycles_of_ours(&ours).await?;
        }
        rounds.push((a, b));
    }

    println!("acquire and release, one caller, {ROUNDS} rounds of {CYCLES} cycles each\n");
    println!("                 median      min      max");
    show("applock", "µs", rounds.iter().map(|(a, _)| micros(*a)));
    show("by hand", "µs", rounds.iter().map(|(_, b)| micros(*b)));
    let ratios = rounds
        .iter()
        .map(|(a, b)| a.as_secs_f64() / b.as_secs_f64());
    show("ratio", "  ", ratios);

    println!("\ncommands per cycle, those inside scripts included");
    server.run::<()>("CONFIG RESETSTAT");
    cycles_of_ours(&ours).await?;
    println!("  applock  {}", commands(&server));
    server.run::<()>("CONFIG RESETSTAT");
    by_hand.cycles().await?;
    println!("  by hand  {}", commands(&server));
    Ok(())
}

async fn cycles_of_ours(lock: &Lock) -> Result<Duration> {
    let start = Instant::now();
    for _ in 0..CYCLES {
        lock.acquire().await?.release().await?;
    }
    Ok(start.elapsed())
}

struct ByHand {
    connection: MultiplexedConnection,
    release: Script,
}

impl ByHand {
    async fn connect(url: &str) -> Result<Self> {
        let settings = TcpSettings::default().set_nodelay(true);
        let info = url.into_connection_info()?.set_tcp_settings(settings);
        Ok(Self {
            connection: Client::open(info)?
                .get_multiplexed_async_connection()
                .await?,
            release: Script::new(
                "if redis.call('GET', KEYS[1]) == ARGV[1] then \
                 return redis.call('DEL', KEYS[1]) else return 0 end",
            ),
        })
    }

    async fn cycles(&mut self) -> Result<Duration> {
        let ttl = u64::try_from(TTL.as_millis())?;
        let start = Instant::now();
        for id in 0..CYCLES {
            let taken: Option<String> = redis::cmd("SET")
                .arg("by-hand")
                .arg(id)
                .arg("NX")
                .arg("PX")
                .arg(ttl)
                .query_async(&mut self.connection)
                .await?;
            anyhow::ensure!(taken.is_some(), "the lock was not free");
            let mut release = self.release.key("by-hand");
            let deleted: u8 = release.arg(id).invoke_async(&mut self.connection).await?;
            anyhow::ensure!(deleted == 1, "the lock was gone");
        }
        Ok(start.elapsed())
    }
}

/// Of one cycle.
fn micros(round: Duration) -> f64 {
    round.as_secs_f64() * 1e6 / f64::from(CYCLES)
}

fn show(what: &str, unit: &str, values: impl Iterator<Item = f64>) {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    if let (Some(min), Some(max)) = (values.first(), values.last()) {
        let median = values[values.len() / 2];
        println!("  {what:<10} {median:8.2} {min:8.2} {max:8.2}  {unit}");
    }
}

/// From `INFO commandstats`: `cmdstat_evalsha:calls=2000,usec=…`.
fn commands(server: &RedisServer) -> String {
    let stats: String = server.run("INFO commandstats");
    let mut shown: Vec<String> = stats
        .lines()
        .filter_map(|line| line.strip_prefix("cmdstat_")?.split_once(":calls="))
        .filter_map(|(name, rest)| Some((name, rest.split(',').next()?.parse().ok()?)))
        .map(|(name, calls): (&str, f64)| (name, calls / f64::from(CYCLES)))
        // What asks for the statistics is not part of a cycle.
        .filter(|(_, calls)| *calls >= 0.1)
        .map(|(name, calls)| format!("{name} {calls:.2}"))
        .collect();
    shown.sort();
    shown.join(", ")
}
