//! A URL that names several hosts: sentinels, or nodes of a cluster. It is taken apart into plain
//! URLs, one for each host, for a URL proper has one host.

use super::address::Address;

/// What a URL of several hosts leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Sentinel,
    Cluster,
}

/// The scheme's kind, and the scheme of a plain URL to one of its servers.
pub(crate) fn kind(scheme: &str) -> Option<(Kind, &'static str)> {
    let (server, kind) = scheme.split_once(['+', '-'])?;
    let kind = match kind {
        "sentinel" => Kind::Sentinel,
        "cluster" => Kind::Cluster,
        _ => return None,
    };
    match server {
        "redis" | "valkey" => Some((kind, "redis")),
        "rediss" | "valkeys" => Some((kind, "rediss")),
        _ => None,
    }
}

/// A URL of several hosts, taken apart.
pub(crate) struct Hosts {
    pub(crate) hosts: Vec<Address>,
    /// Of the master, in a sentinel's configuration.
    pub(crate) name: String,
    /// A plain URL to the first of them, as a server: login, database, protocol, TLS.
    pub(crate) server: String,
    /// The same as a sentinel, whose login is its own.
    pub(crate) sentinel: String,
}

/// What is wrong with a URL, and what to write instead. Never a part of the URL: any may be a
/// secret.
pub(crate) type Wrong = (String, &'static str);

const SENTINEL_FORM: &str = "write redis+sentinel://user:password@host:26379,host:26379/mymaster";
const CLUSTER_FORM: &str = "write redis+cluster://user:password@host:6379,host:6379";

/// Takes the part behind `scheme:` apart. `plain` is the scheme of one server.
pub(crate) fn parse(kind: Kind, plain: &str, rest: &str) -> Result<Hosts, Wrong> {
    let (form, default_port) = match kind {
        Kind::Sentinel => (SENTINEL_FORM, 26_379),
        Kind::Cluster => (CLUSTER_FORM, 6_379),
    };
    let wrong = |reason: &str| Err((reason.to_owned(), form));
    let Some(rest) = rest.strip_prefix("//") else {
        return wrong("it has no // before its hosts");
    };
    let (rest, fragment) = cut(rest, '#');
    let (rest, query) = cut(rest, '?');
    let (authority, path) = cut(rest, '/');
    // What stands before an @ may be a password that holds one of these.
    if [path, query, fragment]
        .iter()
        .flatten()
        .any(|part| part.contains('@'))
    {
        return Err((
            "the password or user name holds a /, ? or #, which end that part of a URL".into(),
            "write them as %2F, %3F and %23",
        ));
    }
    // The second host would be taken for a part of the first password.
    if let Some((before, _)) = authority.rsplit_once('@')
        && before
            .split_once('@')
            .is_some_and(|(_, rest)| rest.contains(','))
    {
        return wrong(
            "it has an @ twice: the user name and password stand once, before all hosts (in a password \
             an @ is %40)",
        );
    }
    let (login, hosts) = match authority.rsplit_once('@') {
        Some((login, hosts)) => (format!("{login}@"), hosts),
        None => (String::new(), authority),
    };
    let mut addresses = Vec::new();
    for (number, host) in (1..).zip(hosts.split(',')) {
        match address(host, default_port) {
            Some(address) if !addresses.contains(&address) => addresses.push(address),
            Some(_) => (),
            None => {
                return Err((
                    format!("its host number {number} is none, or its port is none"),
                    form,
                ));
            }
        }
    }
    let Some(first) = addresses.first() else {
        return wrong("it has no host");
    };

    let mut others = Vec::new();
    let (mut user, mut password, mut sentinel_tls, mut id) = (None, None, true, None);
    let query = query.unwrap_or_default();
    for (name, value) in url::form_urlencoded::parse(query.as_bytes()) {
        match (&*name, kind) {
            ("sentinel_user" | "sentinel_username", Kind::Sentinel) => user = Some(value),
            ("sentinel_password", Kind::Sentinel) => password = Some(value),
            ("sentinelMasterId", Kind::Sentinel) => id = Some(value.into_owned()),
            ("sentinel_tls", Kind::Sentinel) if matches!(&*value, "no" | "yes") => {
                sentinel_tls = value == "yes";
            }
            // The rest is a server's, and is checked there, in its order.
            _ => others.push((name, value)),
        }
    }

    let path = path.unwrap_or_default().trim_end_matches('/');
    let (name, database) = match (kind, id) {
        (Kind::Cluster, _) => (String::new(), path),
        (Kind::Sentinel, Some(id)) => (id, path),
        (Kind::Sentinel, None) => {
            let (name, database) = cut(path, '/');
            let name = percent_decoded(name);
            (name, database.unwrap_or_default())
        }
    };
    if kind == Kind::Sentinel && name.is_empty() {
        return Err((
            "it does not say which master the sentinels are to name".into(),
            "end it with the name that sentinel.conf gives it: redis+sentinel://host:26379/mymaster",
        ));
    }
    if !database.is_empty() && database.parse::<u32>().is_err() {
        return wrong("what stands behind the hosts ends in no database number");
    }
    if kind == Kind::Cluster && database.parse::<u32>().is_ok_and(|number| number != 0) {
        return Err((
            "a cluster has no database but number 0".into(),
            "leave the number out",
        ));
    }
    let fragment = fragment.map_or_else(String::new, |part| format!("#{part}"));
    // Of a sentinel only what is about TLS.
    let is_about_tls = |name: &str| matches!(name, "ca" | "cert" | "key");
    let url = |plain: &str, login: &str, database: &str, is_sentinel: bool| {
        let mut query = url::form_urlencoded::Serializer::new(String::new());
        for (name, value) in &others {
            if !is_sentinel || sentinel_tls && is_about_tls(name) {
                query.append_pair(name, value);
            }
        }
        let query = match query.finish() {
            query if query.is_empty() => query,
            query => format!("?{query}"),
        };
        let fragment = if is_sentinel && !sentinel_tls {
            ""
        } else {
            &fragment
        };
        format!("{plain}://{login}{first}/{database}{query}{fragment}")
    };
    let sentinel_plain = if sentinel_tls { plain } else { "redis" };
    let sentinel_login = match (user, password) {
        (None, None) => String::new(),
        (user, password) => {
            let encoded = |text: Option<std::borrow::Cow<'_, str>>| -> String {
                let text = text.unwrap_or_default();
                url::form_urlencoded::byte_serialize(text.as_bytes())
                    .collect::<String>()
                    // A plus is a space in a query, and a plus in a login.
                    .replace('+', "%20")
            };
            format!("{}:{}@", encoded(user), encoded(password))
        }
    };
    Ok(Hosts {
        server: url(plain, &login, database, false),
        sentinel: url(sentinel_plain, &sentinel_login, "", true),
        hosts: addresses,
        name,
    })
}

/// What stands before the first such character, and what behind it.
fn cut(text: &str, at: char) -> (&str, Option<&str>) {
    match text.split_once(at) {
        Some((before, behind)) => (before, Some(behind)),
        None => (text, None),
    }
}

fn address(host: &str, default_port: u16) -> Option<Address> {
    let (name, port) = match host.strip_prefix('[') {
        Some(inside) => {
            let (name, behind) = inside.split_once(']')?;
            name.parse::<std::net::Ipv6Addr>().ok()?;
            (
                name,
                behind
                    .strip_prefix(':')
                    .or((behind.is_empty()).then_some(""))?,
            )
        }
        None => {
            let (name, port) = cut(host, ':');
            (name, port.unwrap_or_default())
        }
    };
    let is_name = |c: char| c.is_alphanumeric() || matches!(c, '.' | '-' | '_' | ':');
    if name.is_empty() || !name.chars().all(is_name) {
        return None;
    }
    let port = match port {
        "" => default_port,
        port => port.parse().ok().filter(|port| *port != 0)?,
    };
    Some(Address::Named(name.into(), port))
}

fn percent_decoded(text: &str) -> String {
    // As a query's value, in which a plus is no space.
    let text = text.replace('+', "%2B");
    let value = format!("v={text}");
    url::form_urlencoded::parse(value.as_bytes())
        .next()
        .map(|(_, value)| value.into_owned())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(url: &str) -> Result<Hosts, Wrong> {
        let (scheme, rest) = url.split_once(':').unwrap();
        let (kind, plain) = kind(scheme).unwrap();
        parse(kind, plain, rest)
    }

    #[test]
    fn the_forms_that_others_write_are_understood() {
        for (url, hosts, name, server, sentinel) in [
            (
                "redis+sentinel://h1/mymaster",
                "h1:26379",
                "mymaster",
                "redis://h1:26379/",
                "redis://h1:26379/",
            ),
            (
                "redis-sentinel://u:p%2F@h1:1,h2,[::1]:3/my%20master/2?protocol=resp3",
                "h1:1 h2:26379 [::1]:3",
                "my master",
                "redis://u:p%2F@h1:1/2?protocol=resp3",
                "redis://h1:1/",
            ),
            (
                "rediss+sentinel://h1,h2/0?sentinelMasterId=mm&sentinel_user=s+s&sentinel_password=%40a/b&sentinel_tls=no",
                "h1:26379 h2:26379",
                "mm",
                "rediss://h1:26379/0",
                "redis://s%20s:%40a%2Fb@h1:26379/",
            ),
            (
                "valkeys+cluster://:p@h1,h2:7000",
                "h1:6379 h2:7000",
                "",
                "rediss://:p@h1:6379/",
                "rediss://h1:6379/",
            ),
        ] {
            let parsed = parsed(url).unwrap_or_else(|wrong| panic!("{url}: {wrong:?}"));
            let shown: Vec<String> = parsed.hosts.iter().map(Address::to_string).collect();
            assert_eq!(shown.join(" "), hosts, "{url}");
            assert_eq!(parsed.name, name, "{url}");
            assert_eq!(parsed.server, server, "{url}");
            assert_eq!(parsed.sentinel, sentinel, "{url}");
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (url, part) in [
            ("redis+sentinel://h1:26379", "which master"),
            ("redis+sentinel://h1:26379/", "which master"),
            ("redis+sentinel:h1/mm", "no //"),
            ("redis+sentinel:///mm", "host number 1"),
            ("redis+sentinel://h1,,h2/mm", "host number 2"),
            ("redis+sentinel://h1:0/mm", "host number 1"),
            ("redis+sentinel://h1:hunter2/mm", "host number 1"),
            ("redis+sentinel://h1/mm/x", "database number"),
            ("redis+sentinel://u:a/b@h1/mm", "holds a /"),
            ("redis+cluster://u:p@h1,u:p@h2", "once, before all hosts"),
            ("redis+sentinel://:hunter2@h1,:hunter2@h2/mm", "once"),
            ("redis+cluster://h1/3", "number 0"),
            ("redis+cluster://h1/x", "database number"),
            ("redis+cluster://[::1/0", "host number 1"),
        ] {
            let (reason, remedy) = parsed(url).err().unwrap_or_else(|| panic!("{url}"));
            assert!(reason.contains(part), "{url}: {reason}");
            assert!(!remedy.is_empty() && !reason.contains("hunter2"));
        }
    }
}
