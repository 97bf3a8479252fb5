//! Each right that a lock needs, one by one: by a command that needs just that, on keys of the
//! doctor's own. Their names are those of a lock and of what is kept beside it, so that the user's
//! key patterns are asked for as well.

use applock_runtime::__private::{ServerAnswer, keys_of};
use applock_runtime::Error;

use super::finding::{Finding, Level, Servers, brief};

/// Without these, waiters poll; without that, `applock ls` has nothing to list.
const OPTIONAL: [(&str, &str); 5] = [
    (
        "publish",
        "waiters poll, and are served in order all the same",
    ),
    (
        "subscribe",
        "waiters poll, and are served in order all the same",
    ),
    ("scan", "`applock ls` and `watch` can't list"),
    ("ping", "nothing is lost"),
    ("info", "nobody is warned of a server that may evict locks"),
];

/// A right, and the command that shows it. `LOCK`, `FENCE`, `QUEUE`, `WAITERS` stand for keys. None
/// of the commands writes: there is nothing to change, or, of the last words, one is wrong, which
/// the server finds after it has looked at the rights.
const NEEDED: &[(&str, &[&str])] = &[
    ("eval", &["EVAL", "return 1", "1", "LOCK"]),
    (
        "evalsha",
        &[
            "EVALSHA",
            "0000000000000000000000000000000000000000",
            "1",
            "LOCK",
        ],
    ),
    ("time", &["TIME"]),
    ("type", &["TYPE", "LOCK"]),
    ("exists", &["EXISTS", "FENCE"]),
    ("pttl", &["PTTL", "LOCK"]),
    ("getrange", &["GETRANGE", "FENCE", "0", "0"]),
    ("mget", &["MGET", "LOCK"]),
    ("set", &["SET", "LOCK", "", "XX", "PX", "1"]),
    ("setrange", &["SETRANGE", "FENCE", "0", ""]),
    ("pexpire", &["PEXPIRE", "LOCK", "1"]),
    ("zadd", &["ZADD", "QUEUE", "XX", "1", "-"]),
    ("zrange", &["ZRANGE", "QUEUE", "0", "0"]),
    ("zrank", &["ZRANK", "QUEUE", "-"]),
    ("zcard", &["ZCARD", "QUEUE"]),
    ("zrem", &["ZREM", "QUEUE", "-"]),
    ("zpopmin", &["ZPOPMIN", "QUEUE"]),
    ("hget", &["HGET", "WAITERS", "-"]),
    ("hset", &["HSET", "WAITERS", "-", "0", "odd"]),
    ("hincrby", &["HINCRBY", "WAITERS", "-", "many"]),
    ("hdel", &["HDEL", "WAITERS", "-"]),
    ("del", &["DEL", "WAITERS"]),
    ("publish", &["PUBLISH", "applock:doctor", ""]),
    ("scan", &["SCAN", "0", "MATCH", "LOCK", "COUNT", "1"]),
    ("ping", &["PING"]),
    ("info", &["INFO", "server"]),
];

pub(super) fn judge(all: &mut Servers<'_>) -> Result<Vec<Finding>, Error> {
    let locker = all.locker;
    let key = keys_of(&locker.lock(NAME).name(locker.instance_id()))?;
    let mut missing: Vec<(String, &str, Refused)> = Vec::new();
    let mut servers: Vec<String> = Vec::new();
    for (right, words) in NEEDED {
        let words: Vec<String> = words.iter().map(|word| key_for(word, &key)).collect();
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        for said in all.ask(&words)? {
            if !servers.contains(&said.server) {
                servers.push(said.server.clone());
            }
            if let Some(refused) = refusal(&said) {
                missing.push((said.server, right, refused));
            }
        }
    }
    // It can't be tried here: a connection that has subscribed takes no other command.
    let subscribes = subscribes(all)?;
    let mut found = Vec::new();
    for server in servers {
        let mut needed = 0_usize;
        let mut unknown: Vec<&str> = Vec::new();
        for (at, right, refused) in &missing {
            if *at != server {
                continue;
            }
            if *refused == Refused::Unknown {
                unknown.push(right);
                continue;
            }
            let finding = lacks(right, *refused);
            needed += usize::from(finding.level == Level::Problem);
            found.push(finding.at(&server));
        }
        if subscribes.contains(&server) {
            found.push(lacks("subscribe", Refused::Command).at(&server));
        }
        if !unknown.is_empty() {
            needed += 1;
            found.push(unknown_there(&unknown).at(&server));
        }
        // Of one that has not answered to the end nothing is known.
        if needed == 0 && !all.is_silent(&server) {
            found.push(Finding::ok("rights", "all that a lock needs").at(&server));
        }
    }
    Ok(found)
}

/// A sentinel, a proxy, or a server of which a person has taken commands away.
fn unknown_there(commands: &[&str]) -> Finding {
    let is_optional = |command: &&str| OPTIONAL.iter().any(|(name, _)| name == command);
    let level = match commands.iter().all(is_optional) {
        true => Level::Note,
        false => Level::Problem,
    };
    let what = format!("what answers there does not know: {}", commands.join(", "));
    Finding::new(level, "rights", what).remedy(
        "see whether it is a sentinel or a proxy, or whether rename-command stands in redis.conf",
    )
}

const NAME: &str = "applock-doctor";

fn key_for(word: &str, key: &[String; 4]) -> String {
    let [lock, fence, queue, waiters] = key;
    match word {
        "LOCK" => lock.clone(),
        "FENCE" => fence.clone(),
        "QUEUE" => queue.clone(),
        "WAITERS" => waiters.clone(),
        other => other.to_owned(),
    }
}

fn lacks(right: &str, refused: Refused) -> Finding {
    let optional = OPTIONAL.iter().find(|(name, _)| *name == right);
    let (level, without) = match optional {
        Some((_, without)) => (Level::Note, format!("; without it {without}")),
        None => (Level::Problem, String::new()),
    };
    let (what, remedy) = match refused {
        Refused::Command => (format!("+{right} is missing"), format!("+{right}")),
        Refused::Key => (
            format!("+{right} may not touch the keys of locks"),
            "~QUEUE:* ~{QUEUE:*}:*".to_owned(),
        ),
        Refused::Unknown => (format!("{right} is not known there"), format!("+{right}")),
        Refused::Channel => (
            format!("+{right} may not use the channel"),
            "&applock:*".to_owned(),
        ),
    };
    Finding::new(level, "rights", what + &without).remedy(format!(
        "ACL SETUSER USER {remedy} (the whole line is in the README under 'Rights')"
    ))
}

/// What a server has refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Refused {
    Command,
    Key,
    Channel,
    /// It has no such command.
    Unknown,
}

/// What the server refuses for a want of rights. Every other answer, an error too, is of a server
/// that has looked at the rights before.
fn refusal(said: &ServerAnswer) -> Option<Refused> {
    match &said.answer {
        Err(error @ Error::Denied(_)) => Some(of_text(&brief(error))),
        Err(error) if brief(error).to_lowercase().contains("unknown command") => {
            Some(Refused::Unknown)
        }
        _ => None,
    }
}

fn of_text(text: &str) -> Refused {
    let text = text.to_lowercase();
    if text.contains("command") {
        Refused::Command
    } else if text.contains("channel") {
        Refused::Channel
    } else {
        Refused::Key
    }
}

/// The servers that say that we may not subscribe. One that can't be asked says nothing.
fn subscribes(servers: &mut Servers<'_>) -> Result<Vec<String>, Error> {
    let names = servers.ask(&["ACL", "WHOAMI"])?;
    let mut refused = Vec::new();
    for name in names {
        let Some(user) = name
            .answer
            .ok()
            .and_then(|name| Some(name.as_str()?.to_owned()))
        else {
            continue;
        };
        let tried = servers.ask(&["ACL", "DRYRUN", &user, "SUBSCRIBE", "applock:doctor"])?;
        for said in tried {
            let is_no = said
                .answer
                .is_ok_and(|answer| answer.as_str().is_some_and(|text| text != "OK"));
            if is_no && !refused.contains(&said.server) {
                refused.push(said.server);
            }
        }
    }
    Ok(refused)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_refused_is_known_by_the_text_of_every_version() {
        for (text, expected) in [
            (
                "this user has no permissions to run the 'set' command or its subcommand",
                Refused::Command,
            ),
            (
                "User poor has no permissions to run the 'set' command",
                Refused::Command,
            ),
            (
                "this user has no permissions to access one of the keys used as arguments",
                Refused::Key,
            ),
            ("No permissions to access a key", Refused::Key),
            ("No permissions to access a channel", Refused::Channel),
        ] {
            assert_eq!(of_text(text), expected, "{text}");
        }
    }
}
