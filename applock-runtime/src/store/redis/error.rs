//! What a Redis error lets us conclude (rule R9), and what a person can do about it.
//!
//! Three questions for each error: was the step carried out (not done, unknown, refused until a
//! person mends it)? Is the connection still good? What should a person do? Sending again and
//! dialling anew are not here: the engine and `connection.rs` do so, by these answers.
//!
//! | the error comes from | outcome |
//! |---|---|
//! | the server, which refused the step before its first write that counts | not done |
//! | a dial that failed: no command has left | not done |
//! | the login, or a right that is missing | denied |
//! | a key beside the lock, the database number, a cluster | misconfigured |
//! | the connection, a deadline, an answer that is not known here | unknown |
//!
//! Danger: 'not done' said of a step that was done. Its caller would ask again under a new owner
//! id while the old holding blocks the lock, or give up and leave it. So an error is 'not done'
//! only if the server says so, or no command can have left; all else is 'unknown'.

use std::fmt;

use redis::{ErrorKind, RedisError, Value};

use crate::shown::{message, shown};
use crate::store::{StoreError, StoreErrorKind};

use super::address::Address;

/// An error by what may be concluded from it, and what it says of the connection.
pub(super) struct Classified {
    pub(super) error: StoreError,
    pub(super) connection: ConnectionState,
    pub(super) hint: Hint,
}

/// What an error says of where a lock is served. What follows from it is the topology's to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Hint {
    None,
    /// Another node serves the slot, from now on.
    Moved(Address),
    /// The slot is on its way to another node: this one command there, behind `ASKING`.
    Ask(Address),
    /// The slot is on its way, and has some of the lock's keys here and some there.
    Migrating,
    /// The cluster has a slot that no node serves, or this node sees too few others.
    ClusterDown,
    /// This server is a replica, or loads its data.
    NotServing,
    /// No connection could be made, so nothing was sent.
    Unreachable,
    /// No answer came, or the connection ended before one did.
    Silent,
}

/// What an error says of the connection that it came over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ConnectionState {
    /// The server answered; the connection is good.
    Good,
    /// The connection leads nowhere, or to a server that can't serve us: dial anew.
    Redial,
}

/// What is said of a call that a cluster's node has refused for its keys: nothing of it was done.
pub(super) const CROSS_SLOT: &str =
    "this Redis is a node of a cluster, and the keys of one call are in several of its slots";

/// What is said of a call for several locks of a slot that moves: nothing of it was done.
pub(super) const SOME_MOVED: &str =
    "of the locks of one call some are on their way to another node of the cluster";

/// The error of such a call.
pub(super) fn some_moved() -> StoreError {
    StoreError::new(
        StoreErrorKind::NotDone,
        SOME_MOVED,
        "wait for the resharding to end",
    )
}

/// Sorts an error by what may be concluded from it.
///
/// An error that the server answers with means 'not done': our scripts do what can fail before
/// the write that counts (rule R3). An error of the connection means 'unknown': the command may
/// have arrived, and only its answer been lost. An answer that is not in this list is unknown too.
pub(super) fn classify(error: RedisError) -> Classified {
    use ConnectionState::{Good, Redial};
    use StoreErrorKind::{Misconfigured, NotDone, Unknown};

    if let Some(Refused { kind, what, remedy }) = Refused::of(&error) {
        return Classified {
            error: StoreError::new(*kind, what, remedy),
            connection: Redial,
            hint: match kind {
                Unknown => Hint::Silent,
                _ => Hint::None,
            },
        };
    }
    let said = Said::of(&error);
    let text = &*said.0;
    let code = code_of(&error, text);
    let hint = hint(&error, code);
    let is_refusal = error.is_connection_refusal();
    let (kind, what, remedy, connection): (_, String, &'static str, _) = match code {
        "NOPERM" => denied_right(text),
        "LOADING" => (
            NotDone,
            "Redis is loading its data".into(),
            "it will answer when that is done",
            Redial,
        ),
        "READONLY" => (
            NotDone,
            "this Redis is a read-only replica".into(),
            "point the URL at the master",
            Redial,
        ),
        "MASTERDOWN" => (
            NotDone,
            "this Redis is a replica that has lost its master".into(),
            "point the URL at the master",
            Redial,
        ),
        "CROSSSLOT" => (
            Misconfigured,
            CROSS_SLOT.to_owned(),
            "use a Redis that is not part of a cluster",
            Good,
        ),
        "MOVED" | "ASK" | "CLUSTERDOWN" | "TRYAGAIN" => (
            Misconfigured,
            "this Redis is a node of a cluster, which redis:// does not speak to".into(),
            "write redis+cluster:// in place of redis://",
            Good,
        ),
        "NOAUTH" => no_password(),
        "WRONGPASS" => wrong_password(),
        "OOM" => (
            NotDone,
            "Redis is out of memory (maxmemory), and refuses to take new locks".into(),
            "give it more memory; locks that are held are kept",
            Good,
        ),
        "MISCONF" => (
            NotDone,
            "Redis can't save its data to disk, and refuses to write".into(),
            "look into its log; often the disk is full",
            Good,
        ),
        "NOREPLICAS" => (
            NotDone,
            "Redis has fewer good replicas than min-replicas-to-write asks for".into(),
            "mend the replicas",
            Good,
        ),
        "BUSY" => (
            NotDone,
            "Redis is busy running a script".into(),
            "end it with SCRIPT KILL",
            Good,
        ),
        "WRONGTYPE" => (
            Misconfigured,
            "a key beside the lock, which keeps its fencing token or who waits for it, holds \
             something else"
                .into(),
            "delete that key (it is named …:fence, …:queue or …:waiters), or give the lock \
             another name",
            Good,
        ),
        "BADFENCE" => (
            Misconfigured,
            error
                .detail()
                .unwrap_or("the fencing token can't be read")
                .to_owned(),
            "delete the key beside the lock that keeps it (…:fence)",
            Good,
        ),
        _ if error.kind() == ErrorKind::AuthenticationFailed => wrong_password(),
        _ if [
            "can't run this command",
            "ACL failure in script",
            "no permissions",
        ]
        .into_iter()
        .any(|words| text.contains(words)) =>
        {
            denied_right(text)
        }
        // A server that asks for a password answers a command as long as ours with this, and
        // hangs up, before it comes to say NOAUTH.
        _ if text.contains("unauthenticated") => no_password(),
        _ if is_refusal => (
            NotDone,
            "nothing answers there (connection refused)".into(),
            START_IT,
            Redial,
        ),
        _ if error.is_timeout() => (
            Unknown,
            "no answer in time".into(),
            "see whether the server is overloaded or the network is cut",
            Redial,
        ),
        _ if error.is_io_error() || error.is_connection_dropped() => (
            Unknown,
            format!("the connection failed ({text})"),
            SEE_WHETHER_UP,
            Redial,
        ),
        _ if text.contains("max number of clients") => {
            let Refused { kind, what, remedy } = too_many_clients();
            (kind, what, remedy, Redial)
        }
        _ if error.kind() == ErrorKind::InvalidClientConfig => (
            Misconfigured,
            format!("the client can't be set up so ({text})"),
            "correct the URL",
            Redial,
        ),
        _ if text.contains("unknown command") => (
            Misconfigured,
            format!("this server does not know what a lock needs ({text})"),
            "write redis+sentinel://host:26379/mymaster where a sentinel answers; some proxies run \
             no scripts",
            Good,
        ),
        _ if text.contains("DB index") || text.contains("invalid DB") => (
            Misconfigured,
            "that database number does not exist on this Redis".into(),
            "correct the number at the end of the URL, or leave it out",
            Redial,
        ),
        _ => (
            Unknown,
            format!("Redis answered with an error ({text})"),
            "",
            Good,
        ),
    };
    let told = StoreError::new(kind, what, remedy);
    Classified {
        // Of these two the message says all that the cause would.
        error: match is_refusal || error.is_timeout() {
            true => told,
            false => told.caused_by(said),
        },
        connection,
        hint,
    }
}

/// The error of a step that was tried until its time was over, and that nothing was done of. What
/// redirects is an error for a person only where no cluster was expected; here one was. `at` is the node
/// that has refused.
pub(super) fn not_done(error: StoreError, hint: &Hint, slot: u16, at: &Address) -> StoreError {
    let (what, remedy) = match hint {
        Hint::Migrating | Hint::Ask(_) => (
            format!("the slot of this lock ({slot}) is on its way to another node"),
            "wait for the resharding to end; if it was broken off: redis-cli --cluster fix",
        ),
        Hint::Moved(to) => (
            format!(
                "the nodes of the cluster do not agree who has the slot of this lock ({slot}): {at} \
                 names {}",
                shown(to)
            ),
            "see redis-cli --cluster check",
        ),
        Hint::ClusterDown => (
            "the cluster is down (CLUSTERDOWN)".to_owned(),
            CLUSTER_DOWN_REMEDY,
        ),
        _ => {
            return StoreError {
                kind: StoreErrorKind::NotDone,
                ..error
            };
        }
    };
    let source = error.source.clone();
    StoreError {
        source,
        ..StoreError::new(StoreErrorKind::NotDone, what, remedy)
    }
}

/// Names the server in an error, where the user has not: what befalls a node of a cluster, or the
/// master of sentinels, is its own, and often it is the address that is wrong.
pub(super) fn naming(address: &Address, error: StoreError) -> StoreError {
    let Address::Named(..) = address else {
        return error;
    };
    let is_unsent = error.kind == StoreErrorKind::NotDone;
    let remedy = match error.remedy {
        // It was never reached.
        START_IT | SEE_WHETHER_UP if is_unsent => ANNOUNCED,
        OTHER_NAME => {
            "have it announce a name that is in the certificate (cluster-announce-hostname and \
             cluster-preferred-endpoint-type hostname; for sentinels announce-hostnames and \
             resolve-hostnames)"
        }
        NO_TLS | SILENT_TO_TLS => {
            "see whether it is up, and announces the port where it speaks TLS (tls-cluster yes, \
             tls-replication yes)"
        }
        _ if is_unsent && error.is_late() => ANNOUNCED,
        other => other,
    };
    let what = format!("{} (at {address})", error.what);
    let named = StoreError::new(error.kind, what, remedy);
    StoreError {
        what: named.what,
        remedy,
        ..error
    }
}

/// What to do where nothing answers: at the address that the URL names, and at one that was announced.
const START_IT: &str = "start Redis, or put its address into the URL";
const SEE_WHETHER_UP: &str =
    "see whether the server and the network are up, and whether it is a Redis";
const ANNOUNCED: &str = "see whether it is up, and can be reached from here at that address, which it \
                         announces (cluster-announce-ip, replica-announce-ip)";

/// What to do about a certificate that is for another name.
pub(super) const OTHER_NAME: &str = "write one of the certificate's names as the host in the URL, or \
                                     issue the certificate for this one";

/// What to do where TLS is not spoken.
pub(super) const NO_TLS: &str =
    "write redis:// in place of rediss://, or the port where the server speaks TLS";

/// What to do where nothing answers to TLS: a Redis without it says nothing.
pub(super) const SILENT_TO_TLS: &str = "see whether the server is overloaded, the network is cut, or what listens there speaks no TLS: \
     then write redis in place of rediss in the URL";

/// What to do about a cluster that is down.
pub(super) const CLUSTER_DOWN_REMEDY: &str = "see CLUSTER INFO; a slot that no node serves takes all others \
                                              with it, unless cluster-require-full-coverage is no";

/// What the error says of where the lock is served.
fn hint(error: &RedisError, code: &str) -> Hint {
    let target = || {
        // The crate gives the slot's number beside it.
        let (address, _slot) = error.redirect_node()?;
        let (host, port) = address.rsplit_once(':')?;
        Some(Address::Named(host.into(), port.parse().ok()?))
    };
    match code {
        "MOVED" => target().map_or(Hint::NotServing, Hint::Moved),
        "ASK" => target().map_or(Hint::Migrating, Hint::Ask),
        "TRYAGAIN" => Hint::Migrating,
        "CLUSTERDOWN" => Hint::ClusterDown,
        "READONLY" | "MASTERDOWN" | "LOADING" => Hint::NotServing,
        _ if error.is_connection_refusal() => Hint::Unreachable,
        _ if error.is_timeout() || error.is_io_error() || error.is_connection_dropped() => {
            Hint::Silent
        }
        _ => Hint::None,
    }
}

/// What our own end of a connection found out, as an I/O error passes it through the redis crate:
/// what answers is no Redis, or a certificate is wrong.
#[derive(Clone, Debug)]
pub(super) struct Refused {
    pub(super) kind: StoreErrorKind,
    pub(super) what: String,
    pub(super) remedy: &'static str,
}

impl Refused {
    /// What can't mend itself, found before any command was carried out.
    pub(super) fn misconfigured(what: String, remedy: &'static str) -> Self {
        Self {
            kind: StoreErrorKind::Misconfigured,
            what,
            remedy,
        }
    }

    /// What is in an error of that kind.
    pub(super) fn of(error: &RedisError) -> Option<&Self> {
        io_error(error)?.get_ref()?.downcast_ref()
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

impl std::error::Error for Refused {}

/// Of a kind that makes the redis crate give the connection up.
impl From<Refused> for std::io::Error {
    fn from(refused: Refused) -> Self {
        Self::new(std::io::ErrorKind::ConnectionAborted, refused)
    }
}

/// The I/O error in an error. The crate's source of an error is its own pointer to it.
fn io_error(error: &RedisError) -> Option<&std::io::Error> {
    type Shared = std::sync::Arc<dyn std::error::Error + Send + Sync>;
    let source = std::error::Error::source(error)?;
    source.downcast_ref().or_else(|| {
        let shared = source.downcast_ref::<Shared>()?;
        shared.downcast_ref()
    })
}

/// A server that has as many clients as it may have. It may take one later.
pub(super) fn too_many_clients() -> Refused {
    Refused {
        kind: StoreErrorKind::NotDone,
        what: "Redis has as many clients as maxclients allows".to_owned(),
        remedy: "raise maxclients, or close connections",
    }
}

/// Whether the server has turned the client away, or its first answer was none of Redis's: what was
/// asked had no part in that.
pub(super) fn is_turned_away(error: &RedisError) -> bool {
    Refused::of(error).is_some_and(|refused| refused.kind != StoreErrorKind::Unknown)
}

/// Whether an error is certain to come again: what answers is no Redis that we can use.
pub(super) fn is_final(error: &RedisError) -> bool {
    let refused = Refused::of(error).map(|refused| refused.kind);
    refused == Some(StoreErrorKind::Misconfigured) || is_unreadable(error)
}

/// Whether an answer was none of Redis's protocol.
pub(super) fn is_unreadable(error: &RedisError) -> bool {
    let is_odd = |error: &std::io::Error| error.kind() == std::io::ErrorKind::InvalidData;
    error.kind() == ErrorKind::Parse || io_error(error).is_some_and(is_odd)
}

/// The error where the first answer of a connection was none of Redis's: nothing was done.
pub(super) fn no_redis(error: &RedisError) -> StoreError {
    StoreError::new(
        StoreErrorKind::Misconfigured,
        "what answers there is no Redis: it does not speak its protocol",
        "see whether host and port are right, and write rediss:// where the server wants TLS",
    )
    .caused_by(Said::of(error))
}

/// What a server said, or the connection, as the source of an error: in place of the crate's own
/// error, whose text is the server's as it came.
#[derive(Debug)]
struct Said(String);

impl Said {
    /// Danger: a server that does not know a command repeats its arguments, and those of a login
    /// (`HELLO 3 AUTH …`, `AUTH …`) are the password.
    fn of(error: &RedisError) -> Self {
        let text = error.to_string();
        let end = text.find("with args beginning with").unwrap_or(text.len());
        let text = text[..end].trim_end_matches([' ', ',']);
        Self(message(text).to_string())
    }
}

impl fmt::Display for Said {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Said {}

/// The error that one lock of several met inside a script, from the text that the script
/// answers it with.
pub(super) fn of_text(said: &str) -> StoreError {
    let line = said.replace(['\r', '\n'], " ");
    let parsed = redis::parse_redis_value(format!("-{line}\r\n").as_bytes());
    match parsed.and_then(Value::extract_error) {
        Err(error) => classify(error).error,
        // Not reached: a line that begins with a dash is an error.
        Ok(_) => StoreError::new(StoreErrorKind::Unknown, line, ""),
    }
}

/// The codes that a command inside a script may answer with.
const INSIDE_SCRIPTS: [&str; 8] = [
    "READONLY",
    "MASTERDOWN",
    "OOM",
    "MISCONF",
    "NOREPLICAS",
    "WRONGTYPE",
    "NOPERM",
    "NOAUTH",
];

/// The error's code. Redis 6.2 wraps the error of a command inside a script into an
/// `ERR` of its own ('Error running script (call to f_…): @user_script:22:
/// @user_script: 22: -READONLY You can't write …'): there, the one inside.
fn code_of<'a>(error: &'a RedisError, text: &str) -> &'a str {
    if text.contains("Error running script")
        && let Some(inside) = INSIDE_SCRIPTS.into_iter().find(|code| {
            text.contains(&format!(": -{code} ")) || text.contains(&format!(": {code} "))
        })
    {
        return inside;
    }
    error.code().unwrap_or_default()
}

/// The server asks for a password, and none was sent. Dialling anew logs in anew, which may
/// succeed once the server was set up otherwise.
fn no_password() -> (StoreErrorKind, String, &'static str, ConnectionState) {
    (
        StoreErrorKind::Denied,
        "Redis asks for a password, and the URL has none".into(),
        ADD_LOGIN,
        ConnectionState::Redial,
    )
}

/// The same, for a name or password that the server does not accept.
fn wrong_password() -> (StoreErrorKind, String, &'static str, ConnectionState) {
    (
        StoreErrorKind::Denied,
        "Redis refused the user name or password".into(),
        CORRECT_LOGIN,
        ConnectionState::Redial,
    )
}

/// What to do about a login.
const ADD_LOGIN: &str = "write it into the URL: redis://user:password@host:6379";
const CORRECT_LOGIN: &str = "put the right ones into the URL: redis://user:password@host:6379";

/// Whether a refusal is one of the user name and password, and not of a right.
pub(super) fn is_about_login(error: &StoreError) -> bool {
    matches!(error.remedy, ADD_LOGIN | CORRECT_LOGIN)
}

/// A right that is missing says nothing of the connection. The server's own text names the
/// command or the key.
fn denied_right(text: &str) -> (StoreErrorKind, String, &'static str, ConnectionState) {
    (
        StoreErrorKind::Denied,
        format!("this Redis user lacks a right ({text})"),
        "give it the commands and keys that the README lists under 'Rights'",
        ConnectionState::Good,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(text: &str) -> Classified {
        let value = redis::parse_redis_value(format!("-{text}\r\n").as_bytes()).unwrap();
        classify(value.extract_error().unwrap_err())
    }

    #[test]
    fn an_error_inside_a_script_is_known_on_old_and_new_servers() {
        for (text, kind, connection) in [
            (
                "READONLY You can't write against a read only replica. script: 5a, on @user_script:22.",
                StoreErrorKind::NotDone,
                ConnectionState::Redial,
            ),
            (
                "ERR Error running script (call to f_5a): @user_script:22: @user_script: 22: -READONLY You can't write against a read only replica.",
                StoreErrorKind::NotDone,
                ConnectionState::Redial,
            ),
            (
                "ERR Error running script (call to f_5a): @user_script:43: -OOM command not allowed when used memory > 'maxmemory'.",
                StoreErrorKind::NotDone,
                ConnectionState::Good,
            ),
            (
                "ERR Error running script (call to f_5a): @user_script:43: WRONGTYPE Operation against a key holding the wrong kind of value",
                StoreErrorKind::Misconfigured,
                ConnectionState::Good,
            ),
            (
                "ERR Error running script (call to f_5a): @user_script:3: @user_script: 3: The user executing the script can't run this command or subcommand",
                StoreErrorKind::Denied,
                ConnectionState::Good,
            ),
            (
                "LOADING Redis is loading the dataset in memory",
                StoreErrorKind::NotDone,
                ConnectionState::Redial,
            ),
            (
                "NOAUTH Authentication required.",
                StoreErrorKind::Denied,
                ConnectionState::Redial,
            ),
            (
                "MOVED 1 127.0.0.1:1",
                StoreErrorKind::Misconfigured,
                ConnectionState::Good,
            ),
            (
                "ERR something new",
                StoreErrorKind::Unknown,
                ConnectionState::Good,
            ),
        ] {
            let classified = answered(text);
            assert_eq!(
                (classified.error.kind, classified.connection),
                (kind, connection),
                "{text}"
            );
        }
    }
}
