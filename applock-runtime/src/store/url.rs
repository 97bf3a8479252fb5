//! From a URL to a store: an error names the part that is wrong, and no message ever
//! shows a password.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::Duration;

use redis::IntoConnectionInfo as _;

use crate::error::{Error, Result};

use super::Store;
use super::dir::DirStore;
use super::memory::MemoryStore;
use super::redis::acknowledge::Replicas;
use super::redis::hosts::{self, Kind};
#[cfg(feature = "tls")]
use super::redis::tls::{Mistake, Tls, TlsOptions};
use super::redis::{Dialer, RedisStore};

/// What a URL may begin with, for messages.
const KINDS: &str = "write redis://host:6379, rediss://host:6379, redis+sentinel://host:26379/mymaster, \
     redis+cluster://host:6379, dir:/var/lock/app or memory:";

/// What the user has said beside the URL.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Asked<'a> {
    /// Where the URL itself does not say.
    pub(crate) replicas: AskedReplicas,
    /// The name that a person gave this instance.
    pub(crate) instance: Option<&'a str>,
}

/// The store that a URL names. Reads the files that the URL names for TLS, and does no other I/O.
pub(crate) fn open(url: &str, asked: Asked<'_>) -> Result<Arc<dyn Store>> {
    let url = url.trim();
    let (url, replicas) = &take_replicas(url, asked.replicas)?;
    let replicas = replicas.checked(url)?;
    let instance = asked.instance;
    let bad = |reason: &str, remedy: &str| Err(Error::invalid("url", masked(url), reason, remedy));
    let Some((scheme, rest)) = scheme(url) else {
        return bad(
            "it has no scheme that says which kind of store it is",
            KINDS,
        );
    };
    match scheme {
        "memory" => Ok(Arc::new(memory_store(rest.trim_start_matches('/')))),
        "dir" => {
            let path = Path::new(rest.strip_prefix("//").unwrap_or(rest));
            if path.as_os_str().is_empty() {
                return bad("it names no directory", "write dir:/var/lock/app");
            }
            if rest.contains('\0') {
                return bad(
                    "a directory's name can't hold a NUL",
                    "write dir:/var/lock/app",
                );
            }
            if !path.is_absolute() {
                return bad(
                    "its path is not absolute, so it would be another directory, and another lock, \
                     in another working directory (~ and $HOME are not expanded)",
                    "write the whole path: dir:/var/lock/app",
                );
            }
            Ok(Arc::new(DirStore::new(path.to_owned())))
        }
        "http" | "https" | "tcp" => bad("no store speaks this scheme", KINDS),
        _ if REDIS.contains(&scheme) => {
            let (dialer, shown) = redis_server(scheme, url, url, instance)?;
            let dialer = Arc::new(dialer.with_replicas(replicas));
            Ok(Arc::new(RedisStore::over(dialer, shown)))
        }
        _ if let Some((kind, plain)) = hosts::kind(scheme) => {
            several_hosts((kind, plain), url, rest, replicas, instance)
        }
        _ => bad(&format!("the scheme {scheme:?} is not known"), KINDS),
    }
}

/// The schemes of a Redis server, and those of a socket to one.
const REDIS: [&str; 7] = [
    "redis",
    "rediss",
    "valkey",
    "valkeys",
    "unix",
    "redis+unix",
    "valkey+unix",
];

/// The scheme of a URL, and what follows its colon.
///
/// Danger: a URL without its scheme, `user:password@host`. What stands before that colon is none,
/// and may be a secret: it is a scheme if we know it, or if `//` follows.
fn scheme(url: &str) -> Option<(&str, &str)> {
    let (scheme, rest) = url.split_once(':')?;
    let is_word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.');
    let is_known = ["memory", "dir"].contains(&scheme) || REDIS.contains(&scheme);
    (is_known || rest.starts_with("//") && scheme.chars().all(is_word)).then_some((scheme, rest))
}

/// `memory:` is one store for the whole process, and `memory:NAME` one for each name:
/// callers that name the same one share it (rule R10).
fn memory_store(name: &str) -> MemoryStore {
    static STORES: LazyLock<Mutex<HashMap<String, MemoryStore>>> = LazyLock::new(Mutex::default);
    let mut stores = STORES.lock().unwrap_or_else(PoisonError::into_inner);
    stores.entry(name.to_owned()).or_default().clone()
}

/// What the user has asked for about replicas, part by part.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct AskedReplicas {
    pub(crate) count: Option<u32>,
    pub(crate) timeout: Option<Duration>,
}

impl AskedReplicas {
    /// What that comes to, for the store that `url` names. `None`: no write waits for a replica.
    fn checked(self, url: &str) -> Result<Option<Replicas>> {
        let bad = |what, given: String, reason: &str, remedy: &str| {
            Err(Error::invalid(what, given, reason, remedy))
        };
        let Some(count) = self.count.filter(|count| *count > 0) else {
            return match self.timeout {
                Some(given) => bad(
                    "replica_timeout",
                    format!("{given:?}"),
                    "no write waits for a replica, so there is no time-out of it",
                    "say how many replicas have to have a write, too: replicas = 1",
                ),
                None => Ok(None),
            };
        };
        let scheme = scheme(url).map(|(scheme, _)| scheme);
        if scheme.is_none_or(|scheme| !REDIS.contains(&scheme) && hosts::kind(scheme).is_none()) {
            return bad(
                "replicas",
                count.to_string(),
                "this store has no replicas",
                "leave it out; it is for Redis",
            );
        }
        if count > Replicas::MOST {
            return bad(
                "replicas",
                count.to_string(),
                "no server has so many",
                "write how many replicas of a master may be promoted, such as 1",
            );
        }
        let timeout = self.timeout.unwrap_or(Replicas::TIMEOUT);
        if timeout < Duration::from_millis(1) || timeout > Replicas::LONGEST {
            return bad(
                "replica_timeout",
                format!("{timeout:?}"),
                "it is from 1 ms to 800 ms: the whole step has one second",
                "write one between these, such as 250ms, or leave it out",
            );
        }
        Ok(Some(Replicas { count, timeout }))
    }
}

/// Refuses them for a store in memory.
pub(crate) fn check_replicas(asked: AskedReplicas) -> Result<()> {
    asked.checked("memory:").map(drop)
}

/// Takes `replicas` and `replica_timeout` out of a URL. They stand before what was asked for
/// elsewhere.
fn take_replicas(url: &str, mut asked: AskedReplicas) -> Result<(String, AskedReplicas)> {
    let (before, fragment) = match url.split_once('#') {
        Some((before, fragment)) => (before, format!("#{fragment}")),
        None => (url, String::new()),
    };
    let Some((address, query)) = before.split_once('?') else {
        return Ok((url.to_owned(), asked));
    };
    let mut others = Vec::new();
    for parameter in query.split('&') {
        match parameter.split_once('=') {
            Some(("replicas", count)) => {
                asked.count = Some(count.parse().map_err(|_| {
                    Error::invalid(
                        "url",
                        masked(url),
                        "its parameter `replicas` is no number",
                        "write how many replicas have to have each write, as in ?replicas=1",
                    )
                })?);
            }
            Some(("replica_timeout", length)) => {
                asked.timeout = Some(humantime::parse_duration(length).map_err(|_| {
                    Error::invalid(
                        "url",
                        masked(url),
                        "its parameter `replica_timeout` is no length of time",
                        "write it with its unit, as in ?replicas=1&replica_timeout=250ms",
                    )
                })?);
            }
            _ => others.push(parameter),
        }
    }
    let query = match others.as_slice() {
        [] => String::new(),
        others => format!("?{}", others.join("&")),
    };
    Ok((format!("{address}{query}{fragment}"), asked))
}

/// A store behind sentinels, or a cluster.
fn several_hosts(
    (kind, plain): (Kind, &str),
    url: &str,
    rest: &str,
    replicas: Option<Replicas>,
    instance: Option<&str>,
) -> Result<Arc<dyn Store>> {
    let parsed = hosts::parse(kind, plain, rest)
        .map_err(|(reason, remedy)| Error::invalid("url", masked(url), reason, remedy))?;
    let mut shown = masked(url);
    if !parsed.name.is_empty() {
        // The URL is right, so that is no secret in a wrong place. The login before the hosts is.
        let hosts = shown.find("://").map_or(0, |at| at + "://".len());
        if let Some(path) = shown[hosts..].find("/***").map(|at| hosts + at) {
            let name = format!("/{}", crate::shown::shown(&parsed.name));
            shown.replace_range(path..path + "/***".len(), &name);
        }
    }
    let shown: Arc<str> = shown.into();
    let (servers, _) = redis_server(plain, &parsed.server, url, instance)?;
    let servers = Arc::new(servers.with_replicas(replicas));
    match kind {
        Kind::Sentinel => {
            let (scheme, _) = parsed.sentinel.split_once(':').unwrap_or_default();
            let (sentinels, _) = redis_server(scheme, &parsed.sentinel, url, instance)?;
            Ok(Arc::new(RedisStore::behind_sentinels(
                servers,
                Arc::new(sentinels),
                parsed.hosts,
                parsed.name.into(),
                shown,
            )))
        }
        Kind::Cluster => Ok(Arc::new(RedisStore::of_cluster(
            servers,
            parsed.hosts,
            shown,
        ))),
    }
}

/// What dials the server of a plain URL, and the URL as messages show it. `given` is the URL that
/// the user wrote, of which that one may be a part.
fn redis_server(
    scheme: &str,
    url: &str,
    given: &str,
    instance: Option<&str>,
) -> Result<(Dialer, Arc<str>)> {
    let bad =
        |reason: String, remedy: &str| Err(Error::invalid("url", masked(given), reason, remedy));
    const EXAMPLE: &str = "write redis://user:password@host:6379/0";

    let is_tls = matches!(scheme, "rediss" | "valkeys");
    if is_tls && !cfg!(feature = "tls") {
        return bad(
            "TLS is not built in".into(),
            "turn on applock's feature `tls`, or write redis:// for a connection without it",
        );
    }
    if url == given && !scheme.contains("unix") && names_several_hosts(url) {
        return bad(
            "it names several hosts, and its scheme is for one".into(),
            "write redis+sentinel://host:26379,host:26379/mymaster for sentinels, or \
             redis+cluster://host:6379,host:6379 for a cluster",
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
    let unix = scheme.contains("unix");
    // R10: another server in another working directory.
    if unix && (parsed.cannot_be_a_base() || parsed.host_str().is_some_and(|host| !host.is_empty()))
    {
        return bad(
            "it does not name the whole path of a socket".into(),
            "write unix:///run/redis/redis.sock",
        );
    }
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
                "what stands behind the host is no database number".into(),
                "end it with a number, as in redis://host:6379/0, or leave it out",
            );
        }
    }
    // Neither a name nor a value is quoted: a secret may have come into either.
    for (at, (name, value)) in (1..).zip(parsed.query_pairs()) {
        // One that a secret has not come into: it is a word of ours.
        if !is_tls && matches!(&*name, "ca" | "cert" | "key") {
            return bad(
                format!("its parameter ?{name}= is about TLS, which {scheme}:// does not speak"),
                "write rediss://, or leave the parameter out",
            );
        }
        let is_known = match &*name {
            "ca" | "cert" | "key" => true,
            "protocol" => matches!(&*value, "2" | "resp2" | "3" | "resp3"),
            "db" if unix => value.parse::<u32>().is_ok(),
            "user" | "pass" => unix,
            _ => false,
        };
        if !is_known {
            return bad(
                format!("its parameter number {at} is not known, or has a value that is not"),
                &format!(
                    "those there are, are {}?replicas=1, ?replica_timeout=250ms and ?protocol=resp3",
                    if is_tls {
                        "?ca=FILE, ?cert=FILE, ?key=FILE, "
                    } else if unix {
                        "?db=0, ?user=…, ?pass=…, "
                    } else {
                        ""
                    }
                ),
            );
        }
    }
    if parsed
        .fragment()
        .is_some_and(|part| !is_tls || part != "insecure")
    {
        return bad(
            "it has a # part, which means nothing here".into(),
            "leave that out; in a password a # is written %23",
        );
    }
    let mut shown = masked(url);
    // A URL that can be read has its user's name there; without a password it may be one.
    if parsed
        .password()
        .is_some_and(|password| !password.is_empty())
    {
        shown = shown.replacen("***@", &format!("{}:***@", parsed.username()), 1);
    }
    let mut plain = parsed.clone();
    if is_tls {
        plain.set_fragment(None);
        // TLS is ours: to the crate it is a connection without.
        let _ = plain.set_scheme("redis");
    }
    let dialer = match plain.into_connection_info() {
        Ok(info) => Dialer::new(&info, instance),
        // Without its details, which may be a part of the URL.
        Err(error) => return bad(format!("it can't be used ({:?})", error.kind()), EXAMPLE),
    };
    #[cfg(feature = "tls")]
    let dialer = match is_tls {
        true => match tls_options(&parsed).and_then(Tls::new) {
            Ok(tls) => dialer.through(Arc::new(tls)),
            Err((what, remedy)) => return bad(what, remedy),
        },
        false => dialer,
    };
    Ok((dialer, shown.into()))
}

/// Whether a comma stands where a plain URL has its one host.
fn names_several_hosts(url: &str) -> bool {
    let (_, rest) = url.split_once("://").unwrap_or_default();
    let (_, hosts) = rest.rsplit_once('@').unwrap_or(("", rest));
    let end = hosts.find(['/', '?', '#']).unwrap_or(hosts.len());
    hosts[..end].contains(',')
}

/// What a URL says of TLS.
#[cfg(feature = "tls")]
fn tls_options(url: &url::Url) -> std::result::Result<TlsOptions, Mistake> {
    let mut options = TlsOptions {
        insecure: url.fragment() == Some("insecure"),
        ..TlsOptions::default()
    };
    for (name, value) in url.query_pairs() {
        let (file, parameter) = match &*name {
            "ca" => (&mut options.ca, "ca"),
            "cert" => (&mut options.cert, "cert"),
            "key" => (&mut options.key, "key"),
            _ => continue,
        };
        // Danger: the key itself, in place of its file. Only what begins as a path is shown.
        if !Path::new(&*value).is_absolute() || value.contains(char::is_control) {
            return Err((
                format!("its parameter ?{parameter}= does not name the whole path of a file"),
                "write it as in ?ca=/etc/ssl/redis-ca.pem",
            ));
        }
        if file.replace(value.into_owned().into()).is_some() {
            return Err((
                format!("its parameter ?{parameter}= is there twice"),
                "write it once; one file may hold several certificates",
            ));
        }
    }
    Ok(options)
}

/// A URL as messages show it, also one that can't be read: no user, no password, no parameter, and
/// nothing that may be a part of these in the wrong place. What is shown of a server is its host,
/// port and database, where they look like that.
pub(crate) fn masked(url: &str) -> String {
    let hidden = |part: &str, as_shown: &str| match part {
        "" => String::new(),
        _ => as_shown.to_owned(),
    };
    let Some((scheme, rest)) = scheme(url.trim()) else {
        return hidden(url, "***");
    };
    let authority = rest.strip_prefix("//").unwrap_or(rest);
    let is_path = matches!(scheme, "memory" | "dir") || scheme.contains("unix");
    let ends: &[char] = if is_path {
        &['?', '#']
    } else {
        &['/', '?', '#']
    };
    let (authority, tail) = authority.split_at(authority.find(ends).unwrap_or(authority.len()));
    if tail.contains('@') || is_path && authority.contains('@') {
        // A secret that holds what ends its part of a URL.
        return format!(
            "{scheme}:{}***",
            hidden(&rest[..rest.len() - authority.len() - tail.len()], "//")
        );
    }
    let slashes = if rest.starts_with("//") { "//" } else { "" };
    if is_path {
        return format!("{scheme}:{slashes}{authority}{}", hidden(tail, "?***"));
    }
    let (user, address) = match authority.rsplit_once('@') {
        Some((_, address)) => ("***@", address),
        None => ("", authority),
    };
    let (path, rest) = tail.split_at(tail.find(['?', '#']).unwrap_or(tail.len()));
    let path = match path.trim_matches('/').parse::<u32>() {
        Ok(_) => path.to_owned(),
        Err(_) => hidden(path.trim_matches('/'), "/***"),
    };
    format!(
        "{scheme}:{slashes}{user}{}{path}{}",
        masked_address(address),
        hidden(rest, "?***")
    )
}

/// Hosts and their ports, as they are where they look like that.
fn masked_address(addresses: &str) -> String {
    let each: Vec<String> = addresses.split(',').map(masked_host).collect();
    each.join(",")
}

/// A host and its port, each as it is if it looks like one. In `user:password` without the rest,
/// and in `user:passwordhost` with the @ forgotten, the password stands where a port does.
fn masked_host(address: &str) -> String {
    let colon = match address.rfind(']') {
        Some(end) => address[end..].find(':').map(|at| end + at),
        None => address.rfind(':'),
    };
    let (host, port) = address.split_at(colon.unwrap_or(address.len()));
    let inside = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'));
    let looks_right = match inside {
        Some(address) => address
            .chars()
            .all(|c| c.is_ascii_hexdigit() || matches!(c, ':' | '.')),
        None => host
            .chars()
            .all(|c| c.is_alphanumeric() || matches!(c, '.' | '-' | '_')),
    };
    let is_port = port.len() <= 6 && port.chars().skip(1).all(|c| c.is_ascii_digit());
    format!(
        "{}{}",
        if looks_right { host } else { "***" },
        if is_port { port } else { ":***" }
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(url: &str) -> String {
        open(url, Asked::default()).unwrap_err().to_string()
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
            ("redis://localhost/abc", "no database number"),
            ("redis://localhost/-1", "no database number"),
            (
                "redis://localhost?timeout=5",
                "parameter number 1 is not known",
            ),
            ("redis://localhost?timeout=5", "?replicas=1"),
            ("redis://h1:1,h2:2", "several hosts"),
            ("redis://user:a,b@h1,h2/0", "redis+cluster://"),
            ("redis://localhost#tls", "a # part"),
            ("redis+sentinel://localhost", "which master"),
            ("redis+sentinel://h1,h2:x/mm", "host number 2"),
            ("localhost:6379", "no scheme"),
            ("dir:", "no directory"),
            ("dir:locks", "not absolute"),
            ("dir:~/locks", "not absolute"),
            ("dir:$HOME/locks", "not absolute"),
            ("dir://locks", "not absolute"),
            ("dir:./locks", "not absolute"),
            ("unix:run/redis.sock", "whole path"),
            ("unix://run/redis.sock", "whole path"),
            ("", "no scheme"),
        ] {
            let text = refusal(url);
            assert!(text.contains(part), "{url}: {text}");
            assert!(text.contains("; "), "{text}");
        }
    }

    /// A secret at every place of a URL that can't be used, or that can.
    const SECRETS: [&str; 45] = [
        "hunter2",
        "hunter2@host:6379",
        "hunter2:@host:6379",
        "user:hunter2@host",
        "user:hunter2@host:6379/0?protocol=resp3",
        "user:hunter2",
        "//user:hunter2@host",
        "foo://user:hunter2@host",
        "foo:user:hunter2@host",
        "http://user:hunter2@host",
        "redis+sentinel://user:hunter2@host/name",
        "redis+cluster://:hunter2@host,hunter2@other",
        "redis:user:hunter2@host",
        "redis://user:hunter2@host:99999",
        "redis://user:hunter2@host:0",
        "redis://user:hunter2@",
        "redis://user:hunter2@h1,h2,hunter2@h3",
        "redis://:hunter2@host/abc",
        "redis://hunter2@host/abc",
        "redis://hunter2:@host/abc",
        "redis://hunter2:word@host/abc",
        "redis://user:hunter2",
        "redis://user:hunter2host:6379",
        "redis://user:hunter2:host",
        "redis://user:hun:ter@2hunter2@host/abc",
        "redis://user:hunter2@hunter2@host/abc",
        "redis://user:%hunter2@host/abc",
        "redis://user%3Ahunter2%40host",
        "redis://user:12/hunter2@host:6379/0",
        "redis://user:12?hunter2@host",
        "redis://user:12#hunter2@host",
        "redis://host/hunter2",
        "redis://host/0/hunter2",
        "redis://host?hunter2",
        "redis://host?hunter2=1",
        "redis://host?password=hunter2",
        "redis://host?protocol=hunter2",
        "redis://host?protocol=resp3&%68unter2",
        "redis://host?protocol=a@hunter2",
        "redis://host/0#hunter2",
        "unix:///run/redis.sock?pass=hunter2&bad=1",
        "unix:///run/redis.sock?db=hunter2",
        "unix://user:hunter2@/run/redis.sock",
        "dir:user:hunter2@host/locks",
        "memory:user:hunter2@host",
    ];

    #[test]
    fn no_message_shows_a_secret_wherever_it_stands() {
        for url in SECRETS {
            let shown = match open(url, Asked::default()) {
                Ok(store) => format!("{store:?} {}", store.describe()),
                Err(error) => format!("{error} {error:?}"),
            };
            assert!(!shown.contains("hunter2"), "{url}: {shown}");
            assert!(!masked(url).contains("hunter2"), "{url}: {}", masked(url));
        }
        // What TLS adds.
        for url in [
            "rediss://host#hunter2",
            "valkeys://hunter2:@host/0#insecure",
        ] {
            assert!(
                open(url, Asked::default())
                    .map_or_else(
                        |error| error.to_string(),
                        |store| store.describe().to_string()
                    )
                    .find("hunter2")
                    .is_none()
            );
        }
    }

    #[test]
    fn what_is_no_secret_is_shown() {
        for (url, expected) in [
            ("", ""),
            ("redis://host", "redis://host"),
            ("redis://user:secret@host:1/2", "redis://***@host:1/2"),
            ("redis://[::1]:6379/0", "redis://[::1]:6379/0"),
            ("redis://h:99999", "redis://h:99999"),
            (
                "unix:///run/redis.sock?pass=x",
                "unix:///run/redis.sock?***",
            ),
            ("dir:~/locks", "dir:~/locks"),
            ("mysql://u:p@db.example/x", "mysql://***@db.example/***"),
        ] {
            assert_eq!(masked(url), expected);
        }
        for (url, expected) in [
            ("redis://user:secret@host:1/2", "redis://user:***@host:1/2"),
            ("redis://:secret@host", "redis://:***@host"),
            ("redis://secret@host", "redis://***@host"),
        ] {
            assert_eq!(&*open(url, Asked::default()).unwrap().describe(), expected);
        }
    }

    #[test]
    fn of_several_hosts_the_masters_name_is_shown_and_no_secret() {
        for (url, expected) in [
            ("redis+sentinel://h1,h2:1/mm", "redis+sentinel://h1,h2:1/mm"),
            (
                "redis+sentinel://:hunter2@h1,h2/mm?sentinel_password=hunter2",
                "redis+sentinel://***@h1,h2/mm?***",
            ),
            (
                "redis+sentinel://u:hunter2@h1/0?sentinelMasterId=mm&sentinel_password=hunter2",
                "redis+sentinel://***@h1/0?***",
            ),
            (
                "redis+sentinel://hunter2@h1?sentinelMasterId=mm",
                "redis+sentinel://***@h1?***",
            ),
            (
                "redis+cluster://u:hun%2Fter2@h1,[::1]:7000",
                "redis+cluster://***@h1,[::1]:7000",
            ),
        ] {
            assert_eq!(&*open(url, Asked::default()).unwrap().describe(), expected);
        }
    }

    #[test]
    fn a_comma_elsewhere_than_between_hosts_is_no_second_host() {
        assert!(open("redis://user:a,b@host/0", Asked::default()).is_ok());
        assert!(!names_several_hosts("redis://host/0?a=b,c#d,e"));
    }

    #[test]
    fn one_memory_url_is_one_store() {
        assert!(open("memory:", Asked::default()).is_ok());
        assert!(open("memory:one", Asked::default()).is_ok());
    }
}
