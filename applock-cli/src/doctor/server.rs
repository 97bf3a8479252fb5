//! What a server says of itself (`INFO`), and what that means for locks.

use applock_runtime::__private::shown_text;

use super::finding::{Finding, Level};

/// The oldest Redis that does all that the scripts ask for.
const OLDEST: (u32, u32) = (6, 2);

/// `is_cluster`: the URL says that it is a node of one.
pub(super) fn judge(info: &str, is_cluster: bool) -> Vec<Finding> {
    let info = Info(info);
    let found = [
        version(info),
        Some(role(info, is_cluster)),
        eviction(info),
        memory(info),
        persistence(info),
        writes(info),
        replicas(info),
    ];
    found.into_iter().flatten().collect()
}

/// The answer to `INFO`: `name:value` lines.
#[derive(Clone, Copy)]
struct Info<'a>(&'a str);

impl<'a> Info<'a> {
    fn get(self, name: &str) -> Option<&'a str> {
        self.0.lines().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            (key == name).then(|| value.trim())
        })
    }

    fn number(self, name: &str) -> u64 {
        self.get(name)
            .and_then(|text| text.parse().ok())
            .unwrap_or(0)
    }
}

fn version(info: Info<'_>) -> Option<Finding> {
    if let Some(version) = info.get("valkey_version") {
        return Some(Finding::ok(
            "version",
            format!("Valkey {}", shown_text(version)),
        ));
    }
    let version = info.get("redis_version")?;
    let mut parts = version.split('.').map(|part| part.parse().unwrap_or(0));
    let is_old = (parts.next().unwrap_or(0), parts.next().unwrap_or(0)) < OLDEST;
    let what = format!("Redis {}", shown_text(version));
    Some(if is_old {
        Finding::new(Level::Problem, "version", what).remedy("6.2 is the oldest that will do")
    } else {
        Finding::ok("version", what)
    })
}

fn role(info: Info<'_>, is_cluster: bool) -> Finding {
    let mode = match info.get("redis_mode").or(info.get("server_mode")) {
        Some("cluster") if !is_cluster => {
            return Finding::new(
                Level::Problem,
                "topology",
                "this is a node of a cluster, and the URL is that of a single server",
            )
            .remedy("write redis+cluster:// in place of redis://");
        }
        Some("cluster") => "a node of a cluster",
        Some("sentinel") => {
            return Finding::new(
                Level::Problem,
                "topology",
                "this is a sentinel, which keeps no locks",
            )
            .remedy("name the master's set: redis+sentinel://host:26379/mymaster");
        }
        _ => "a single server, or one that sentinels look after",
    };
    if info.get("role") == Some("slave") {
        return Finding::new(
            Level::Problem,
            "topology",
            "this is a replica: it takes no locks",
        )
        .remedy("name the master, or its sentinels: redis+sentinel://host:26379/mymaster");
    }
    Finding::ok("topology", format!("a master; {mode}"))
}

fn eviction(info: Info<'_>) -> Option<Finding> {
    let policy = info.get("maxmemory_policy")?;
    if policy == "noeviction" {
        return Some(Finding::ok("eviction", "noeviction: no lock is evicted"));
    }
    let what = format!(
        "maxmemory-policy is {}: a lock expires, so it is evicted when memory runs out, and free \
         while its holder works",
        shown_text(policy)
    );
    let level = if info.number("maxmemory") == 0 {
        // Nothing is evicted without a limit.
        Level::Note
    } else {
        Level::Warning
    };
    Some(
        Finding::new(level, "eviction", what).remedy(
            "CONFIG SET maxmemory-policy noeviction, or give the locks a Redis of their own",
        ),
    )
}

fn memory(info: Info<'_>) -> Option<Finding> {
    let (used, most) = (info.number("used_memory"), info.number("maxmemory"));
    if most == 0 {
        return None;
    }
    let percent = used.saturating_mul(100) / most;
    let what = format!("{percent} % of maxmemory is used");
    Some(if percent < 90 {
        Finding::ok("memory", what)
    } else {
        Finding::new(Level::Warning, "memory", what)
            .remedy("with no memory left no lock is granted: raise maxmemory, or free some")
    })
}

fn persistence(info: Info<'_>) -> Option<Finding> {
    info.get("loading")?;
    if info.get("aof_enabled") == Some("1") {
        return Some(Finding::ok(
            "persistence",
            "append-only file: with appendfsync everysec a crash forgets up to a second",
        ));
    }
    let last = match info.number("rdb_last_save_time") {
        _ if info.get("rdb_saves") == Some("0") => "none was made since the start",
        0 => "none was made",
        _ => "what came after the last one is lost",
    };
    Some(
        Finding::new(
            Level::Warning,
            "persistence",
            format!(
                "snapshots at the most ({last}): a restart forgets locks that are held, and their \
                 holders learn of it at their next heartbeat"
            ),
        )
        .remedy("CONFIG SET appendonly yes; and check fencing tokens where two runs would do harm"),
    )
}

/// What makes a server refuse writes, and so locks.
fn writes(info: Info<'_>) -> Option<Finding> {
    for (field, what) in [
        ("rdb_last_bgsave_status", "the last snapshot failed"),
        (
            "aof_last_write_status",
            "the last write of the append-only file failed",
        ),
    ] {
        if info.get(field) == Some("err") {
            return Some(
                Finding::new(
                    Level::Problem,
                    "persistence",
                    format!("{what}: the server may refuse every write, and so every lock"),
                )
                .remedy("see the server's log; is its disk full?"),
            );
        }
    }
    None
}

fn replicas(info: Info<'_>) -> Option<Finding> {
    if info.get("role") != Some("master") {
        return None;
    }
    let count = info.number("connected_slaves");
    if count == 0 {
        return Some(Finding::new(
            Level::Note,
            "replicas",
            "none: when this server is gone, no lock is granted until it is back",
        ));
    }
    let online = (0..count)
        .filter(|at| {
            info.get(&format!("slave{at}"))
                .is_some_and(|line| line.contains("state=online"))
        })
        .count();
    Some(
        Finding::new(
            Level::Note,
            "replicas",
            format!(
                "{count}, {online} of them up to date: one that is promoted may lack the newest locks"
            ),
        )
        .remedy(format!(
            "?replicas={count} at the end of the URL has a lock count only once they have it"
        )),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn level(info: &str, about: &str) -> Option<Level> {
        let found = judge(&info.replace(' ', "\r\n"), false);
        found
            .iter()
            .find(|one| one.about == about)
            .map(|one| one.level)
    }

    #[test]
    fn each_thing_is_judged_by_what_the_server_says() {
        use Level::{Note, Ok, Problem, Warning};
        for (info, about, expected) in [
            ("redis_version:7.2.4", "version", Some(Ok)),
            ("redis_version:6.2.0", "version", Some(Ok)),
            ("redis_version:6.0.16", "version", Some(Problem)),
            ("redis_version:5.9.1", "version", Some(Problem)),
            (
                "redis_version:7.2.4 valkey_version:8.0.1",
                "version",
                Some(Ok),
            ),
            ("role:master", "topology", Some(Ok)),
            ("role:slave", "topology", Some(Problem)),
            ("redis_mode:sentinel", "topology", Some(Problem)),
            ("redis_mode:cluster", "topology", Some(Problem)),
            ("maxmemory_policy:noeviction", "eviction", Some(Ok)),
            (
                "maxmemory:1 maxmemory_policy:volatile-lru",
                "eviction",
                Some(Warning),
            ),
            (
                "maxmemory:0 maxmemory_policy:allkeys-lru",
                "eviction",
                Some(Note),
            ),
            ("maxmemory:100 used_memory:89", "memory", Some(Ok)),
            ("maxmemory:100 used_memory:90", "memory", Some(Warning)),
            ("maxmemory:0 used_memory:90", "memory", None),
            ("loading:0 aof_enabled:1", "persistence", Some(Ok)),
            ("loading:0 aof_enabled:0", "persistence", Some(Warning)),
            ("aof_last_write_status:err", "persistence", Some(Problem)),
            ("rdb_last_bgsave_status:err", "persistence", Some(Problem)),
            ("rdb_last_bgsave_status:ok", "persistence", None),
            ("role:master connected_slaves:0", "replicas", Some(Note)),
            ("role:master connected_slaves:2", "replicas", Some(Note)),
            ("", "version", None),
        ] {
            assert_eq!(level(info, about), expected, "{info}");
        }
    }

    #[test]
    fn what_a_server_says_is_shown_on_one_line() {
        let found = judge("redis_version:7.\u{1b}[31m\u{2028}x\r\n", false);
        assert!(!found[0].what.contains('\u{1b}'), "{}", found[0].what);
    }
}
