//! Several servers, by `APPLOCK_URL` alone: a cluster, and a master that sentinels name.

use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;

use crate::support::cluster::{Cluster, Layout};
use crate::support::sentinel::SentinelSet;
use crate::support::{LONGEST, Running, applock, code, err, out, output, run, wait};

fn masters(arguments: &[&str]) -> Cluster {
    Cluster::with(&Layout {
        replicas_each: 0,
        arguments,
        ..Layout::default()
    })
}

fn findings(url: &str) -> Vec<Value> {
    let said = output(&mut applock(url, "doctor --json"));
    let text = out(&said);
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text} {}", err(&said)))
}

fn about<'a>(found: &'a [Value], what: &str) -> Vec<&'a Value> {
    found.iter().filter(|one| one["about"] == what).collect()
}

#[test]
fn every_command_is_at_home_on_a_cluster_and_behind_sentinels() {
    let cluster = masters(&[]);
    let sentinels = SentinelSet::start();
    for url in [cluster.url_of([0]), sentinels.url()] {
        let mut holder = Running::start(&mut run(&url, "--ttl 2s", "echo here; sleep 1000"));
        holder.says();
        for (command, expected) in [
            ("ls", 0),
            ("info --app jobs", 0),
            ("info --app free", 1),
            ("check --app jobs --max-age 1h", 0),
            ("check --app free --max-age 1h", 2),
            ("wait --app jobs --timeout 100ms", 75),
            ("wait --app free", 0),
            ("release --app jobs --stale 10m", 1),
            ("run --app jobs -- true", 75),
            ("run --app free -- true", 0),
            ("release --app jobs --force --reason test", 0),
        ] {
            let said = output(&mut applock(&url, command));
            let text = out(&said) + &err(&said);
            assert_eq!(
                said.status.code(),
                Some(expected),
                "{url} {command}: {text}"
            );
            if command == "ls" {
                assert!(text.contains("QUEUE:jobs"), "{text}");
            }
        }
        assert_eq!(holder.ends(), Some(76));
        let last = out(&output(&mut applock(&url, "info --app jobs")));
        assert!(
            last.contains("by force by ") && last.contains(": test"),
            "{last}"
        );
        let found = findings(&url);
        for well in ["lock", "version", "topology", "eviction", "rights", "clock"] {
            let about = about(&found, well);
            assert!(
                !about.is_empty() && about.iter().all(|one| one["level"] == "ok"),
                "{url} {well}: {found:?}"
            );
        }
    }
}

#[test]
fn watch_hears_the_changes_at_each_master_of_a_cluster() {
    let cluster = masters(&["--notify-keyspace-events", "KA"]);
    let url = cluster.url();
    let mut watch = Running::start(&mut applock(&url, "watch --json --interval 1h"));
    for node in &cluster.nodes {
        wait::until("it listens", LONGEST, || {
            node.run::<i64>("PUBSUB NUMPAT") == 1
        });
    }
    for master in 0..3 {
        let app = cluster.app(master, 0);
        let command = format!("run --app {app} -- sh -c");
        let mut holder = Running::start(applock(&url, &command).arg("echo here; sleep 1000"));
        holder.says();
        let change: Value = serde_json::from_str(&watch.says()).expect("JSON");
        let key = format!("QUEUE:{app}");
        assert_eq!(
            (&change["event"], &change["key"]),
            (&"held".into(), &key.into())
        );
        holder.signal(Signal::TERM);
        assert_eq!(holder.ends(), Some(128 + 15));
        let change: Value = serde_json::from_str(&watch.says()).expect("JSON");
        assert_eq!(change["event"], "failed");
    }
}

#[test]
fn a_node_that_is_silent_costs_the_doctor_one_time_out_and_is_not_called_well() {
    let cluster = masters(&["--appendonly", "yes"]);
    let frozen = &cluster.nodes[2];
    frozen.freeze();
    let begun = Instant::now();
    let found = findings(&cluster.url_of([0]));
    let took = begun.elapsed();
    frozen.thaw();
    // Each of the fifty questions would have a second.
    assert!(took < Duration::from_secs(20), "{took:?}");
    let is_there = |one: &&&Value| {
        let server = one["server"].as_str().unwrap_or_default();
        server.contains(&frozen.port().to_string())
    };
    let reach: Vec<&Value> = about(&found, "reach");
    let reach: Vec<_> = reach.iter().filter(is_there).collect();
    assert!(
        reach.len() == 1 && reach[0]["level"] == "problem",
        "{found:?}"
    );
    assert_eq!(about(&found, "rights").iter().filter(is_there).count(), 0);
    assert_eq!(about(&found, "rights").len(), 2, "{found:?}");
}

#[test]
fn a_url_that_names_a_fleet_as_a_single_server_is_a_problem_with_its_remedy() {
    let cluster = masters(&[]);
    let sentinels = SentinelSet::start();
    let replica = &sentinels.servers[1];
    for (url, remedy) in [
        (cluster.nodes[0].url(), "redis+cluster://"),
        (sentinels.sentinels[0].url(), "redis+sentinel://"),
        (replica.url(), "redis+sentinel://"),
    ] {
        let found = findings(&url);
        let topology = about(&found, "topology");
        let says = topology[0]["remedy"].as_str().unwrap_or_default();
        assert!(
            topology[0]["level"] == "problem" && says.contains(remedy),
            "{url}: {found:?}"
        );
        // Each of them: what is wrong, and by itself what to do.
        for one in found.iter().filter(|one| one["level"] == "problem") {
            let (what, remedy) = (one["what"].as_str(), one["remedy"].as_str());
            let (what, remedy) = (what.unwrap_or_default(), remedy.unwrap_or_default());
            assert!(!remedy.is_empty() && !what.contains(remedy), "{url}: {one}");
        }
        assert_eq!(code(&mut applock(&url, "doctor")), Some(1));
    }
    // It runs no scripts, so it is not well.
    let found = findings(&sentinels.sentinels[0].url());
    assert_eq!(about(&found, "rights")[0]["level"], "problem", "{found:?}");
}
