//! From a URL to a store: an error names the part that is wrong, and no message ever
//! shows a password.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use redis::IntoConnectionInfo as _;

use crate::error::{Error, Result};

use super::Store;
use super::dir::DirStore;
use super::memory::MemoryStore;
use super::redis::RedisStore;

/// What a URL may begin with, for messages.
const KINDS: &str = "write redis://host:6379, rediss://host:6379, dir:/var/lock/app or memory:";

/// The store that a URL names. Does no I/O.
pub(crate) fn open(url: &str) -> Result<Arc<dyn Store>> {
    let url = url.trim();
    let bad = |reason: &str, remedy: &str| Err(Error::invalid("url", shown(url), reason, remedy));
    let Some((scheme, rest)) = url.split_once(':') else {
        return bad(
            "it has no scheme that says which kind of store it is",
            KINDS,
        );
    };
    match scheme {
        "redis" | "rediss" | "valkey" | "valkeys" | "unix" | "redis+unix" | "valkey+unix" => {
            redis_store(url)
        }
        "memory" => Ok(Arc::new(memory_store(rest.trim_start_matches('/')))),
        "dir" => {
            let path = rest.strip_prefix("//").unwrap_or(rest);
            if path.is_empty() {
                return bad("it names no directory", "write dir:/var/lock/app");
            }
            if path.contains('\0') {
                return bad(
                    "a directory's name can't hold a NUL",
                    "write dir:/var/lock/app",
                );
            }
            Ok(Arc::new(DirStore::new(path.into())))
        }
        "redis+sentinel" | "redis+cluster" => bad(
            "this version does not speak to Sentinel or to a cluster",
            "write redis:// and the address of a single server",
        ),
        "http" | "https" | "tcp" => bad("no store speaks this scheme", KINDS),
        _ => bad(&format!("the scheme {scheme:?} is not known"), KINDS),
    }
}

/// `memory:` is one store for the whole process, and `memory:NAME` one for each name:
/// callers that name the same one share it (rule R10).
fn memory_store(name: &str) -> MemoryStore {
    static STORES: LazyLock<Mutex<HashMap<String, MemoryStore>>> = LazyLock::new(Mutex::default);
    let mut stores = STORES.lock().unwrap_or_else(PoisonError::into_inner);
    stores.entry(name.to_owned()).or_default().clone()
}

fn redis_store(url: &str) -> Result<Arc<dyn Store>> {
    let bad = |reason: String, remedy: &str| Err(Error::invalid("url", shown(url), reason, remedy));
    const EXAMPLE: &str = "write redis://user:password@host:6379/0";

    if !cfg!(feature = "tls") && (url.starts_with("rediss:") || url.starts_with("valkeys:")) {
        return bad(
            "TLS is not built in".into(),
            "turn on applock's feature `tls`, or write redis:// for a connection without it",
        );
    }
    let parsed = match url::Url::parse(url) {
        Ok(parsed) => parsed,
        Err(error) => return bad(format!("it can't be read ({error})"), EXAMPLE),
    };
    // What stands before an @ may be a password that holds a / or a ?: quote nothing.
    if url.rsplit_once('@').is_some_and(|(before, _)| {
        let secret = before
            .split_once("://")
            .map_or(before, |(_, secret)| secret);
        secret.contains(['/', '?', '#'])
    }) {
        return bad(
            "the password or user name holds a /, ? or #, which end that part of a URL".into(),
            "write them as %2F, %3F and %23",
        );
    }
    let unix = parsed.scheme().contains("unix");
    if !unix {
        if parsed.host_str().is_none_or(str::is_empty) {
            return bad("it has no host".into(), EXAMPLE);
        }
        if parsed.port() == Some(0) {
            return bad("port 0 is no port to connect to".into(), EXAMPLE);
        }
        let database = parsed.path().trim_matches('/');
        if !database.is_empty() && database.parse::<u32>().is_err() {
            return bad(
                format!("{database:?} is no database number"),
                "end it with a number, as in redis://host:6379/0, or leave it out",
            );
        }
    }
    let known: &[&str] = if unix {
        &["db", "user", "pass", "protocol"]
    } else {
        &["protocol"]
    };
    for (name, _) in parsed.query_pairs() {
        if !known.contains(&&*name) {
            return bad(
                format!("the parameter {name:?} is not known"),
                "the one there is, is ?protocol=resp3",
            );
        }
    }
    #[cfg(feature = "tls")]
    if matches!(parsed.scheme(), "rediss" | "valkeys") {
        // rustls panics where no provider has been chosen. If the program has chosen
        // one already, that one stays.
        let _ = rustls::crypto::ring::default_provider().install_default();
    }
    let shown: Arc<str> = shown(url).into();
    let info = match url.into_connection_info() {
        Ok(info) => info,
        Err(error) => return bad(format!("it can't be used ({error})"), EXAMPLE),
    };
    match RedisStore::new(info, shown) {
        Ok(store) => Ok(Arc::new(store)),
        Err(error) => bad(format!("it can't be used ({error})"), EXAMPLE),
    }
}

/// A URL without its password: also one that can't be read, where whatever stands
/// before the last `@` may hold one.
fn shown(url: &str) -> String {
    let (scheme, rest) = match url.split_once("://") {
        Some((scheme, rest)) => (format!("{scheme}://"), rest),
        None => (String::new(), url),
    };
    let rest = match rest.rsplit_once('@') {
        Some((secret, host)) => match secret.split_once(':') {
            Some((user, _)) => format!("{user}:***@{host}"),
            // It may be a user's name, or a password whose colon was forgotten.
            None => format!("***@{host}"),
        },
        None => rest.to_owned(),
    };
    // A socket's URL carries its password as a parameter; whatever a parameter is called,
    // its value is not ours to know.
    match rest.split_once('?') {
        Some((before, parameters)) => {
            let masked: Vec<String> = parameters
                .split('&')
                .map(|parameter| match parameter.split_once('=') {
                    Some((name, _)) => format!("{name}=***"),
                    None => parameter.to_owned(),
                })
                .collect();
            format!("{scheme}{before}?{}", masked.join("&"))
        }
        None => format!("{scheme}{rest}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(url: &str) -> String {
        open(url).unwrap_err().to_string()
    }

    #[test]
    fn a_bad_url_is_told_by_the_part_that_is_wrong() {
        for (url, part) in [
            ("localhost", "no scheme"),
            ("http://localhost", "no store speaks"),
            ("postgres://localhost", "\"postgres\" is not known"),
            ("redis://", "host"),
            ("redis://localhost:99999", "port"),
            ("redis://localhost:0", "port 0"),
            ("redis://localhost/abc", "\"abc\" is no database"),
            ("redis://localhost/-1", "\"-1\" is no database"),
            ("redis://localhost?timeout=5", "\"timeout\" is not known"),
            ("redis+sentinel://localhost", "Sentinel"),
            ("dir:", "no directory"),
            ("", "no scheme"),
        ] {
            let text = refusal(url);
            assert!(text.contains(part), "{url}: {text}");
            assert!(text.contains("; "), "{text}");
        }
    }

    #[test]
    fn no_message_shows_a_password() {
        for url in [
            "redis://user:hunter2@localhost:99999",
            "redis://:hunter2@localhost/abc",
            "redis://hunter2@localhost/abc",
            "redis://user:hun:ter@2hunter2@localhost/abc",
            "user:hunter2@localhost",
            "foo://user:hunter2@localhost",
            "unix:///run/redis.sock?pass=hunter2&bad=1",
            "redis://default:12/hunter2@host:6379/0",
            "redis://user:12?hunter2@host",
            "redis://host?password=hunter2",
        ] {
            let text = refusal(url);
            assert!(!text.contains("hunter2"), "{text}");
        }
        assert_eq!(
            shown("redis://user:secret@host:1/2"),
            "redis://user:***@host:1/2"
        );
        assert_eq!(shown("redis://host:1"), "redis://host:1");
    }

    #[test]
    fn one_memory_url_is_one_store() {
        assert!(open("memory:").is_ok());
        assert!(open("memory:one").is_ok());
    }
}
