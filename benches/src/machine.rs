//! What the figures were measured on.

use std::fmt::{Display, Formatter};
use std::process::Command;

use crate::peers::{Contestant, Role};
use crate::support::redis::RedisServer;

/// The machine, and the versions of what runs on it.
pub(crate) struct Machine {
    rows: Vec<(&'static str, String)>,
}

impl Machine {
    /// This one, now.
    pub(crate) fn read(
        server: &RedisServer,
        contestants: &[Contestant],
        load: &[String; 2],
    ) -> Self {
        let cores = std::thread::available_parallelism().map_or(0, usize::from);
        let system = rustix::system::uname();
        let kernel = format!(
            "{} {} {}",
            system.sysname().to_string_lossy(),
            system.release().to_string_lossy(),
            system.machine().to_string_lossy()
        );
        let info: String = server.run("INFO server");
        let server = info
            .lines()
            .find_map(|line| line.strip_prefix("redis_version:"));
        let libraries: Vec<String> = contestants
            .iter()
            .filter(|who| who.role == Role::Peer && !who.version.is_empty())
            .map(|who| format!("{} {} ({})", who.name, who.version, who.language))
            .collect();
        Self {
            rows: vec![
                ("date", said("date", "+%F")),
                ("processor", format!("{}, {cores} cores", processor())),
                ("kernel", kernel),
                ("load before and after", load.join(", ")),
                (
                    "redis-server",
                    server.unwrap_or("unknown").trim().to_owned(),
                ),
                ("compiler", said("rustc", "--version")),
                ("applock", env!("CARGO_PKG_VERSION").to_owned()),
                ("peers", libraries.join(", ")),
            ],
        }
    }
}

impl Display for Machine {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "| | |\n|---|---|")?;
        for (what, value) in &self.rows {
            writeln!(f, "| {what} | {value} |")?;
        }
        Ok(())
    }
}

/// The load average of the last minute: what else ran here.
pub(crate) fn load() -> String {
    let said = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    said.split(' ').next().unwrap_or_default().to_owned()
}

fn processor() -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info
        .lines()
        .find_map(|line| line.strip_prefix("model name"));
    let model = model.and_then(|rest| rest.split_once(':'));
    model.map_or_else(|| "unknown".to_owned(), |(_, name)| name.trim().to_owned())
}

/// What a program says of itself.
fn said(program: &str, argument: &str) -> String {
    match Command::new(program).arg(argument).output() {
        Ok(said) if said.status.success() => {
            String::from_utf8_lossy(&said.stdout).trim().to_owned()
        }
        _ => "unknown".to_owned(),
    }
}
