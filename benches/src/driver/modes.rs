//! The modes of a driver, for every library alike.

use std::cell::Cell;
use std::future::Future;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::report::{Report, Section, monotonic, processor_time};
use super::{Peer, block_on, ready, say};
use crate::figures::quantile;
use crate::options::{DriverOptions, Mode};

/// Of a lock that is not held for long.
const TTL: Duration = Duration::from_secs(60);

/// So many acquires of the mode `hold` are under way at a time.
const ABREAST: u32 = 200;

/// Does what the mode says.
pub(crate) fn run<P: Peer>(options: &DriverOptions) -> Result<Report> {
    let ttl = match options.mode {
        Mode::Hold { ttl, .. } => ttl,
        _ => TTL,
    };
    block_on(async {
        let peer = P::connect(&options.url, ttl).await?;
        P::cycle(&peer.lock(&format!("{}-warm", options.key))?).await?;
        let lock = peer.lock(&options.key)?;
        let of = |number: u32| peer.lock(&format!("{}-{number}", options.key));
        let longest = options.seconds;
        match options.mode {
            Mode::Cycle => {
                ready()?;
                let (start, used) = (Instant::now(), processor_time());
                let mut times = times::<P>(lock, start + longest).await?;
                let mut report = counted(times.len() as u64, start);
                report.cpu_seconds = processor_time() - used;
                report.quarter = quantile(&mut times, 0.25);
                Ok(report)
            }
            Mode::Once => {
                ready()?;
                let start = Instant::now();
                P::cycle(&lock).await?;
                Ok(counted(1, start))
            }
            Mode::Many { locks } => {
                let locks = (0..locks).map(of).collect::<Result<Vec<_>>>()?;
                ready()?;
                let start = Instant::now();
                let jobs = locks
                    .into_iter()
                    .map(|lock| move || cycles::<P>(lock, start + longest));
                let cycles = abreast::<P, _, _, _>(jobs).await?.into_iter().sum();
                Ok(counted(cycles, start))
            }
            Mode::Workers {
                workers,
                hold,
                pause,
            } => {
                ready()?;
                let until = Instant::now() + longest;
                let jobs = (0..workers).map(|number| {
                    let lock = lock.clone();
                    move || work::<P>(lock, number, until, hold, pause)
                });
                Ok(Report {
                    sections: abreast::<P, _, _, _>(jobs).await?.concat(),
                    ..Report::default()
                })
            }
            Mode::Hold { locks, .. } => {
                let locks = (0..locks).map(of).collect::<Result<Vec<_>>>()?;
                ready()?;
                hold_all::<P>(locks, longest).await
            }
        }
    })
}

/// All jobs at the same time: as tasks of this thread, or on a thread each.
async fn abreast<P, T, F, Fut>(jobs: impl Iterator<Item = F>) -> Result<Vec<T>>
where
    P: Peer,
    T: Send + 'static,
    F: FnOnce() -> Fut + Send + 'static,
    Fut: Future<Output = Result<T>> + 'static,
{
    if P::BLOCKS {
        let threads: Vec<_> = jobs
            .map(|job| std::thread::spawn(move || block_on(job())))
            .collect();
        let join = |thread: std::thread::JoinHandle<Result<T>>| match thread.join() {
            Ok(result) => result,
            Err(_) => Err(anyhow::anyhow!("a worker panicked")),
        };
        return threads.into_iter().map(join).collect();
    }
    let mut tasks = JoinSet::new();
    for job in jobs {
        tasks.spawn_local(job());
    }
    let mut results = Vec::new();
    while let Some(result) = tasks.join_next().await {
        results.push(result??);
    }
    Ok(results)
}

/// How long each cycle took, in µs.
async fn times<P: Peer>(lock: P::Lock, until: Instant) -> Result<Vec<f64>> {
    let mut times = Vec::with_capacity(1 << 16);
    let mut start = Instant::now();
    while start < until {
        P::cycle(&lock).await?;
        let end = Instant::now();
        times.push((end - start).as_secs_f64() * 1e6);
        start = end;
    }
    Ok(times)
}

async fn cycles<P: Peer>(lock: P::Lock, until: Instant) -> Result<u64> {
    let mut cycles = 0;
    while Instant::now() < until {
        P::cycle(&lock).await?;
        cycles += 1;
    }
    Ok(cycles)
}

fn counted(cycles: u64, start: Instant) -> Report {
    Report {
        cycles,
        seconds: start.elapsed().as_secs_f64(),
        ..Report::default()
    }
}

/// One worker: takes the lock, holds it, and lets it go, until the time is over. A
/// worker that waits then still gets the lock.
async fn work<P: Peer>(
    lock: P::Lock,
    number: u32,
    until: Instant,
    hold: Duration,
    pause: Duration,
) -> Result<Vec<Section>> {
    let mut sections = Vec::new();
    // Once at the least.
    while sections.is_empty() || Instant::now() < until {
        let held = P::acquire(&lock).await?;
        let start = monotonic();
        pause_for(hold).await;
        sections.push((start, monotonic(), number));
        P::release(held).await?;
        pause_for(pause).await;
    }
    Ok(sections)
}

async fn pause_for(time: Duration) {
    if !time.is_zero() {
        sleep(time).await;
    }
}

/// Takes all locks, says `held`, and lets the library renew them for so long.
async fn hold_all<P: Peer>(locks: Vec<P::Lock>, longest: Duration) -> Result<Report> {
    let locks: Rc<[P::Lock]> = locks.into();
    let before = resident()?;
    let next = Rc::new(Cell::new(0));
    let takers = (0..ABREAST).map(|_| take_next::<P>(Rc::clone(&locks), Rc::clone(&next)));
    let mut tasks: JoinSet<Result<()>> = JoinSet::new();
    takers.for_each(|taker| {
        tasks.spawn_local(taker);
    });
    while let Some(ended) = tasks.join_next().await {
        ended??;
    }
    let bytes = resident()?.saturating_sub(before);
    say("held")?;
    let (start, used) = (Instant::now(), processor_time());
    sleep(longest).await;
    Ok(Report {
        seconds: start.elapsed().as_secs_f64(),
        cpu_seconds: processor_time() - used,
        bytes,
        ..Report::default()
    })
}

/// Takes one after the other of the locks that no other task has begun to take.
async fn take_next<P: Peer>(locks: Rc<[P::Lock]>, next: Rc<Cell<usize>>) -> Result<()> {
    while let Some(lock) = locks.get(next.get()) {
        next.set(next.get() + 1);
        P::keep(lock).await?;
    }
    Ok(())
}

/// The memory of this process that is in use, in bytes.
fn resident() -> Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.context("no VmRSS")?.trim().trim_end_matches(" kB");
    Ok(kib.parse::<u64>()? * 1024)
}
