//! Commands and bytes, as the server counts them.

use std::collections::HashMap;

use redis::{Connection, cmd};

use super::{alone, block_on, cycles, smallest, support, warm};

const CYCLES: u32 = 200;
const ROUNDS: usize = 3;

/// One to acquire, one to release: a script each.
const SENT: f64 = 2.0;

/// The two `EVALSHA` and nine within the scripts: the server's clock, the lock, the fence
/// with the token, and once the wait queue, which is empty.
const SENT_AND_CALLED: f64 = 11.0;

/// Two requests, each with its script's digest and four keys; the acquire carries the
/// information about the holder, the release how its run ended. Without the name of the host;
/// the last few are for the digits of the process's number.
const BYTES_RECEIVED: f64 = 660.0;

/// Two answers: the acquire's with the token, which is the time, the release's with how it went.
const BYTES_SENT: f64 = 27.0;

#[test]
fn a_cycle_sends_two_commands_and_calls_no_more_than_it_needs() {
    let _alone = alone();
    let server = support::redis::RedisServer::start();
    let mut statistics = server.connect().unwrap();
    block_on(async {
        let lock = warm(&server.url()).await;
        let mut sent = Vec::new();
        let mut all = Vec::new();
        for _ in 0..ROUNDS {
            cmd("CONFIG")
                .arg("RESETSTAT")
                .exec(&mut statistics)
                .unwrap();
            cycles(&lock, CYCLES).await;
            let calls = calls(&mut statistics);
            let of = |wanted: &dyn Fn(&str) -> bool| {
                let calls = calls.iter().filter(|(name, _)| wanted(name));
                calls.map(|(_, calls)| calls).sum::<u64>() as f64 / f64::from(CYCLES)
            };
            sent.push(of(&|name| name == "evalsha" || name == "fcall"));
            all.push(of(&|_| true));
        }
        let (sent, all) = (smallest(sent), smallest(all));
        assert!((1.0..=SENT).contains(&sent), "{sent} commands sent a cycle");
        assert!(
            (sent..=SENT_AND_CALLED).contains(&all),
            "{all} commands sent and called a cycle"
        );
    });
}

#[test]
fn a_cycle_costs_no_more_bytes_than_it_did() {
    let _alone = alone();
    let server = support::redis::RedisServer::start();
    let mut statistics = server.connect().unwrap();
    block_on(async {
        let lock = warm(&server.url()).await;
        let guard = lock.acquire().await.unwrap();
        let host = lock.info().await.unwrap().unwrap().host().len() as f64;
        guard.release().await.unwrap();
        let (mut received, mut sent) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            let before = bytes(&mut statistics);
            let between = bytes(&mut statistics);
            cycles(&lock, CYCLES).await;
            let after = bytes(&mut statistics);
            // The question and its answer are counted as well.
            let counted = |of: fn((u64, u64)) -> u64| {
                let own = of(between) - of(before);
                (of(after) - of(between)).saturating_sub(own) as f64 / f64::from(CYCLES)
            };
            received.push(counted(|(received, _)| received));
            sent.push(counted(|(_, sent)| sent));
        }
        let (received, sent) = (smallest(received), smallest(sent));
        assert!(
            received > 0.0 && sent > 0.0,
            "nothing was counted: {received}, {sent}"
        );
        assert!(
            received <= BYTES_RECEIVED + host && sent <= BYTES_SENT,
            "the server received {received} bytes a cycle and sent {sent}"
        );
    });
}

/// Calls by command since the last reset; the reset itself is not among them.
fn calls(statistics: &mut Connection) -> HashMap<String, u64> {
    let info: String = cmd("INFO").arg("commandstats").query(statistics).unwrap();
    let read = |line: &str| {
        let (name, rest) = line.strip_prefix("cmdstat_")?.split_once(":calls=")?;
        let calls = rest.split(',').next()?.parse().ok()?;
        (!name.starts_with("config")).then(|| (name.to_owned(), calls))
    };
    info.lines().filter_map(read).collect()
}

/// Bytes that the server received and sent since it started.
fn bytes(statistics: &mut Connection) -> (u64, u64) {
    let info: String = cmd("INFO").arg("stats").query(statistics).unwrap();
    let field = |name: &str| {
        let value = info.lines().find_map(|line| line.strip_prefix(name));
        value.unwrap().trim().parse().unwrap()
    };
    (
        field("total_net_input_bytes:"),
        field("total_net_output_bytes:"),
    )
}
