//! Promise: who looks at the server sees whose connections they are (`CLIENT LIST`), and a user who
//! may not give them a name loses nothing by it.

use std::thread;
use std::time::Duration;

use applock::AppLocker;

use crate::support::redis::RedisServer;
use crate::support::wait;

const SOON: Duration = Duration::from_secs(20);

/// The names of the clients, each with its last command, while one waits for a lock, and the lock
/// was handed over.
fn clients_of(server: &RedisServer, url: &str, instance: &str) -> Vec<(String, String)> {
    wait::until("those before have hung up", SOON, || {
        let list: String = server.run("CLIENT LIST");
        list.lines().count() == 1
    });
    let build = || {
        let builder = AppLocker::builder().store(url).instance(instance);
        builder.connect_blocking().unwrap()
    };
    let (holder, waiter) = (build(), build());
    let guard = holder.lock("job").acquire_blocking().unwrap();
    let lock = waiter.lock("job").wait_forever();
    let waiting = thread::spawn(move || lock.acquire_blocking());
    wait::until("the waiter listens", SOON, || {
        let channels: Vec<String> = server.run("PUBSUB CHANNELS applock:*");
        !channels.is_empty()
    });
    let list: String = server.run("CLIENT LIST");
    guard.release_blocking().unwrap();
    waiting.join().unwrap().unwrap().release_blocking().unwrap();
    let field = |line: &str, name: &str| {
        let found = line.split(' ').find_map(|field| field.strip_prefix(name));
        found.unwrap().to_owned()
    };
    list.lines()
        .map(|line| (field(line, "name="), field(line, "cmd=")))
        // This very question, which Redis before 7 calls by its first word.
        .filter(|(_, command)| command != "client|list" && command != "client")
        .collect()
}

#[test]
fn commands_and_subscriptions_have_the_instances_name() {
    let server = RedisServer::start();
    let open = server.url();
    let _: String = server.run("ACL SETUSER job on >secret ~* &* +@all");
    let known = format!("redis://job:secret@127.0.0.1:{}/3", server.port());
    for url in [
        open.clone(),
        format!("{open}?protocol=resp3"),
        known.clone(),
        format!("{known}?protocol=resp3"),
    ] {
        let clients = clients_of(&server, &url, "worker 7\n\u{e4}");
        assert_eq!(clients.len(), 3, "{clients:?}");
        for (name, command) in &clients {
            assert_eq!(name, "applock:worker-7--", "{url}: {command}");
        }
        let subscribed = clients.iter().filter(|(_, command)| command == "subscribe");
        assert_eq!(subscribed.count(), 1, "{clients:?}");
    }
}

#[test]
fn a_user_who_may_not_name_connections_needs_no_name() {
    let server = RedisServer::start();
    // Redis before 7 can't take a subcommand alone away.
    let _: String = server.run("ACL SETUSER job on >secret ~* &* +@all -client");
    let url = format!("redis://job:secret@127.0.0.1:{}", server.port());
    let clients = clients_of(&server, &url, "worker-7");
    assert_eq!(clients.len(), 3, "{clients:?}");
    assert!(
        clients.iter().all(|(name, _)| name.is_empty()),
        "{clients:?}"
    );
}

/// The name travels with the login, and with what asks the server what it is.
#[test]
fn a_name_costs_no_command_of_a_lock() {
    let server = RedisServer::with(&["--slowlog-log-slower-than", "0"]);
    let () = server.run("CONFIG SET slowlog-max-len 10000");
    let locker = AppLocker::connect_blocking(server.url()).unwrap();
    for _ in 0..10 {
        let guard = locker.lock("job").acquire_blocking().unwrap();
        guard.release_blocking().unwrap();
    }
    let entries: Vec<Vec<redis::Value>> = server.run("SLOWLOG GET 10000");
    let commands = entries.into_iter().map(|entry| {
        let words: Vec<String> = redis::from_redis_value(entry[3].clone()).unwrap();
        words.join(" ").to_lowercase()
    });
    let (mut names, mut scripts) = (0, 0);
    for command in commands {
        names += u32::from(command.starts_with("client setname"));
        scripts += u32::from(command.starts_with("evalsha"));
    }
    assert_eq!(names, 1);
    assert!(scripts >= 20, "{scripts}");
}
