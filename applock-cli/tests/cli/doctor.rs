//! `doctor`: each finding with its remedy, on servers that have what it finds.

use serde_json::Value;

use crate::support::{RedisServer, applock, err, out, output};

/// The findings about a thing: their levels, and what they say.
fn findings(url: &str) -> (Option<i32>, Vec<Value>) {
    let said = output(&mut applock(url, "doctor --json"));
    let text = out(&said);
    let found: Vec<Value> = serde_json::from_str(&text)
        .unwrap_or_else(|error| panic!("{error}: {text} {}", err(&said)));
    (said.status.code(), found)
}

fn level(found: &[Value], about: &str) -> String {
    let one = found.iter().find(|one| one["about"] == about);
    let one = one.unwrap_or_else(|| panic!("nothing about {about}: {found:?}"));
    one["level"].as_str().expect("a level").to_owned()
}

#[test]
fn a_server_that_is_fit_has_nothing_to_be_mended() {
    let server = RedisServer::durable();
    let before = server.run::<i64>("DBSIZE");
    let (code, found) = findings(&server.url());
    assert_eq!(code, Some(0), "{found:?}");
    for about in [
        "reach",
        "lock",
        "version",
        "topology",
        "eviction",
        "persistence",
        "clock",
        "rights",
    ] {
        assert_eq!(level(&found, about), "ok", "{about}");
    }
    level(&found, "latency");
    level(&found, "replicas");
    // What is remembered of its own lock, and no more.
    let left: Vec<String> = server.run("KEYS *");
    assert!(
        left.iter().all(|key| key.ends_with("}:fence")) && before == 0,
        "{left:?}"
    );

    let said = out(&output(&mut applock(&server.url(), "doctor")));
    assert!(
        said.contains("Redis ") || said.contains("Valkey "),
        "{said}"
    );
    assert!(said.contains("all that a lock needs"), "{said}");
}

#[test]
fn what_may_cost_a_lock_is_told_with_its_remedy() {
    let server = RedisServer::with(&["--maxmemory", "100mb", "--maxmemory-policy", "volatile-lru"]);
    let (code, found) = findings(&server.url());
    assert_eq!(code, Some(1));
    assert_eq!(level(&found, "eviction"), "warning");
    assert_eq!(level(&found, "persistence"), "warning");
    for one in &found {
        let is_ok = matches!(one["level"].as_str(), Some("ok"));
        let has_remedy = one["remedy"].as_str().is_some_and(|text| !text.is_empty());
        assert!(is_ok || has_remedy || one["level"] == "note", "{one}");
    }
}

#[test]
fn each_right_that_is_missing_is_named_and_no_other() {
    let server = RedisServer::start();
    let all = include_str!("../../../README.md")
        .lines()
        .find(|line| line.starts_with("ACL SETUSER applock "))
        .expect("the README has the line");
    let words: Vec<&str> = all.split(' ').collect();
    server.try_run::<()>(&words).expect("Redis takes them");
    server.run::<()>("ACL SETUSER applock +info +ping +scan");
    let url = format!("redis://applock:PASSWORD@127.0.0.1:{}", server.port());
    let missing = || {
        let (_, found) = findings(&url);
        let rights = found.into_iter().filter(|one| one["about"] == "rights");
        rights
            .filter(|one| one["level"] != "ok")
            .map(|one| one["what"].as_str().expect("what").to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(missing(), Vec::<String>::new());
    // The subcommands of ACL are asked for where that is allowed: then subscribing is judged as well.
    server.run::<()>("ACL SETUSER applock +acl");
    let rights = words.iter().filter_map(|word| word.strip_prefix('+'));
    for right in rights.chain(["info", "ping", "scan"]) {
        server.run::<()>(&format!("ACL SETUSER applock -{right}"));
        let told = missing();
        let is_named = |what: &String| what.starts_with(&format!("+{right} is missing"));
        // Without TIME the server is asked nothing else: it is another kind of answer.
        assert!(
            told.len() == 1 && told.iter().all(is_named),
            "{right}: {told:?}"
        );
        server.run::<()>(&format!("ACL SETUSER applock +{right}"));
    }
    server.run::<()>("ACL SETUSER applock resetkeys ~QUEUE:*");
    let told = missing();
    assert!(
        told.iter()
            .any(|what| what.contains("may not touch the keys")),
        "{told:?}"
    );
}

#[test]
fn a_server_that_is_not_there_or_refuses_us_is_one_problem() {
    let (code, found) = findings("redis://127.0.0.1:1");
    assert_eq!((code, found.len()), (Some(69), 1));
    assert_eq!(level(&found, "reach"), "problem");
    let server = RedisServer::with(&["--requirepass", "right"]);
    let (code, found) = findings(&format!("redis://:wrong@127.0.0.1:{}", server.port()));
    assert_eq!((code, level(&found, "reach")), (Some(77), "problem".into()));
}

#[test]
fn a_directory_is_looked_at_too() {
    let folder = tempfile::tempdir().expect("a folder");
    let (code, found) = findings(&format!("dir:{}", folder.path().display()));
    assert_eq!((code, level(&found, "reach")), (Some(0), "ok".into()));
    let missing = findings("dir:/proc/no/such");
    assert_ne!(missing.0, Some(0));
}

#[test]
fn the_url_may_be_its_argument() {
    let server = RedisServer::start();
    let said = output(&mut applock(
        "redis://127.0.0.1:1",
        &format!("doctor {}", server.url()),
    ));
    assert!(matches!(said.status.code(), Some(0 | 1)), "{}", out(&said));
}
