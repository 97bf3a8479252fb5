//! The Redis server that most tests share, with a key prefix each.

use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;

use crate::support::redis::RedisServer;

/// Starts it. A static is never dropped, so a small companion ends the server when this
/// process ends, however it ends: its standard input closes then.
pub(crate) fn of_all_tests() -> RedisServer {
    static COMPANION: OnceLock<Child> = OnceLock::new();
    let server = RedisServer::start();
    let process = server
        .run::<String>("INFO server")
        .lines()
        .find_map(|line| line.strip_prefix("process_id:").map(str::to_owned))
        .expect("its process id");
    let directory: Vec<String> = server.run("CONFIG GET dir");
    let companion = Command::new("sh")
        .arg("-c")
        .arg("read -r never; kill -9 \"$1\"; rm -f \"$2/redis.log\"; rmdir \"$2\"")
        .args(["companion", &process, &directory[1]])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("sh");
    COMPANION.set(companion).expect("it is started once");
    server
}
