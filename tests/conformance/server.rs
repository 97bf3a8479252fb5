//! The servers that most tests share, with a key prefix each.

use std::process::{Child, Command, Stdio};
use std::sync::Mutex;

use crate::store::Servers;

/// Sees to it that they end. A static is never dropped, so a small companion ends them when this
/// process ends, however it ends: its standard input closes then.
pub(crate) fn of_all_tests(servers: Servers) -> Servers {
    static COMPANIONS: Mutex<Vec<Child>> = Mutex::new(Vec::new());
    let all = servers.all();
    let processes = all.iter().map(|server| server.id().to_string());
    let directories = all
        .iter()
        .map(|server| server.directory().display().to_string());
    let companion = Command::new("sh")
        .arg("-c")
        .arg(
            "read -r never; count=$1; shift; \
             while [ \"$count\" -gt 0 ]; do kill -9 \"$1\"; shift; count=$((count - 1)); done; \
             rm -rf \"$@\"",
        )
        .args(["companion", &all.len().to_string()])
        .args(processes)
        .args(directories)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("sh");
    COMPANIONS.lock().unwrap().push(companion);
    servers
}
