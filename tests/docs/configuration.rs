//! Promise: a `#[singleton]` without a locker uses the process's: that of `init`, or the
//! one that `APPLOCK_URL` names, and never one that was not named.

use crate::support::child::{self, ChildProcess};
use crate::support::ports::nowhere;
use crate::support::redis::RedisServer;
use applock::{AppLocker, Error, Result, URL_VARIABLE, singleton};

#[singleton(app = "default")]
async fn job() -> Result<String> {
    Ok(applock::current().unwrap().info().key().to_owned())
}

#[singleton(app = "default")]
fn sync_job() -> Result<String> {
    Ok(applock::current().unwrap().info().key().to_owned())
}

fn says_its_outcome() {
    match pollster::block_on(job()) {
        Ok(key) => child::say(format_args!("ran under {key}")),
        Err(error) => child::say(error),
    }
    match sync_job() {
        Ok(key) => child::say(format_args!("ran under {key}")),
        Err(error) => child::say(error),
    }
}

#[track_caller]
fn outcome(test: &str, url: &str) -> String {
    let child = ChildProcess::with(test, "", &[(URL_VARIABLE, url)]);
    let outcome = child.says();
    assert_eq!(child.says(), outcome, "async and sync get the same");
    child.dismiss();
    outcome
}

#[test]
fn the_environment_names_the_store() {
    if child::part().is_some() {
        return says_its_outcome();
    }
    let name = child::name_of(the_environment_names_the_store);
    let server = RedisServer::start();
    assert_eq!(outcome(name, &server.url()), "ran under QUEUE:default");
    // It was this server: its token is kept there.
    assert!(server.run::<bool>("EXISTS {QUEUE:default}:fence"));
    assert_eq!(outcome(name, "memory:"), "ran under QUEUE:default");
    let nowhere = format!("redis://:hunter2@127.0.0.1:{}", nowhere());
    let text = outcome(name, &nowhere);
    assert!(
        text.starts_with("unavailable") && !text.contains("hunter2"),
        "{text}"
    );
    let text = outcome(name, "redis://:hunter2@127.0.0.1:99999");
    assert!(
        text.starts_with("invalid") && text.contains("port"),
        "{text}"
    );
    assert!(!text.contains("hunter2"), "{text}");
}

#[test]
fn a_directory_that_the_environment_names_is_created_on_first_use() {
    if child::part().is_some() {
        return says_its_outcome();
    }
    let name = child::name_of(a_directory_that_the_environment_names_is_created_on_first_use);
    let home = tempfile::tempdir().unwrap();
    let directory = home.path().join("deep/locks");
    let url = format!("dir:{}", directory.display());
    assert_eq!(outcome(name, &url), "ran under QUEUE:default");
    assert!(directory.is_dir());
}

// R10
#[test]
fn without_any_word_the_store_is_redis_on_this_machine() {
    if child::part().is_some() {
        let locker = AppLocker::from_env().unwrap();
        return child::say(locker.store());
    }
    let child = ChildProcess::start(
        child::name_of(without_any_word_the_store_is_redis_on_this_machine),
        "",
    );
    assert_eq!(child.says(), "redis://127.0.0.1:6379");
    child.dismiss();
}

#[test]
fn init_goes_before_the_environment_and_can_be_done_anew() {
    if let Some(urls) = child::part() {
        for url in urls.split(' ') {
            applock::init(AppLocker::connect_blocking(url).unwrap());
            child::say(pollster::block_on(job()).unwrap());
            child::say(sync_job().unwrap());
        }
        return;
    }
    let first = RedisServer::start();
    let second = RedisServer::start();
    let nowhere = format!("redis://127.0.0.1:{}", nowhere());
    let child = ChildProcess::with(
        child::name_of(init_goes_before_the_environment_and_can_be_done_anew),
        &format!("{} {}", first.url(), second.url()),
        &[(URL_VARIABLE, &nowhere)],
    );
    for _ in 0..4 {
        assert_eq!(child.says(), "QUEUE:default");
    }
    child.dismiss();
    for server in [first, second] {
        assert!(server.run::<bool>("EXISTS {QUEUE:default}:fence"));
    }
}

#[test]
fn a_bad_environment_is_an_error_and_not_another_store() {
    if child::part().is_some() {
        let error = AppLocker::from_env().unwrap_err();
        assert!(matches!(error, Error::Invalid(_)), "{error}");
        return child::say(error);
    }
    let name = child::name_of(a_bad_environment_is_an_error_and_not_another_store);
    for (url, part) in [
        ("", "it is empty"),
        (" ", "it is empty"),
        ("rubbish", "no scheme"),
        // R10: it would be another lock in another working directory.
        ("dir:locks", "not absolute"),
        ("dir:~/locks", "not absolute"),
    ] {
        let child = ChildProcess::with(name, "", &[(URL_VARIABLE, url)]);
        let text = child.says();
        assert!(text.contains(part) && text.contains("write "), "{text}");
        assert!(text.starts_with("invalid APPLOCK_URL "), "{text}");
        child.dismiss();
    }
}

#[test]
fn a_prefix_and_an_instance_name_are_used() {
    let server = RedisServer::start();
    let locker = AppLocker::builder()
        .store(server.url())
        .key_prefix("staging:")
        .instance("worker-7")
        .connect_blocking()
        .unwrap();
    let guard = locker
        .lock("reports")
        .name("eu")
        .acquire_blocking()
        .unwrap();
    assert_eq!(guard.info().key(), "staging:reports:eu");
    let instance = server.text("staging:reports:eu").unwrap()["instance"].clone();
    assert_eq!(instance, "worker-7");
    assert_eq!(locker.instance_id(), "worker-7");
}

#[test]
fn after_a_shutdown_of_the_default_no_call_runs_and_none_has_another_default_made() {
    if let Some(how) = child::part() {
        let within = std::time::Duration::from_secs(5);
        match &*how {
            "shutdown" => applock::shutdown_blocking(within).unwrap(),
            _ => applock::drain_blocking(within).unwrap(),
        }
        return says_its_outcome();
    }
    let name = child::name_of(
        after_a_shutdown_of_the_default_no_call_runs_and_none_has_another_default_made,
    );
    for how in ["shutdown", "drain"] {
        let child = ChildProcess::with(name, how, &[(URL_VARIABLE, "memory:")]);
        for _ in 0..2 {
            let outcome = child.says();
            assert!(outcome.starts_with("closed: "), "{how}: {outcome}");
        }
        child.dismiss();
    }
}
