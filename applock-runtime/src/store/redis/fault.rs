//! What a Redis error lets us conclude (rule R9), and what to tell a person.

use redis::{ErrorKind, RedisError, ServerErrorKind};

use crate::store::{StoreError, StoreErrorKind};

/// A classified error, and what it says of the connection.
pub(super) struct Fault {
    pub(super) error: StoreError,
    pub(super) link: LinkState,
}

/// What an error says of the connection that it came over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LinkState {
    /// The server answered; the connection is good.
    Good,
    /// It leads nowhere, or to a server that can't serve us: dial anew.
    Redial,
}

/// Sorts an error by what may be concluded from it.
///
/// The answers of a server that was asked to do something and did not: our scripts do
/// whatever can fail before the write that counts (rule R3), so an error of the
/// server's means 'not done'. An error of the connection's means 'unknown'.
pub(super) fn classify(error: RedisError) -> Fault {
    use LinkState::{Good, Redial};
    use StoreErrorKind::{Denied, Misconfigured, NotDone, Unknown};

    let code = error.code().unwrap_or_default().to_owned();
    let text = error.to_string();
    let (kind, what, remedy, link): (_, String, &'static str, _) = match error.kind() {
        ErrorKind::AuthenticationFailed => (
            Denied,
            "Redis refused the user name or password".into(),
            "put the right ones into the URL: redis://user:password@host:6379",
            Redial,
        ),
        ErrorKind::Server(ServerErrorKind::NoPerm) => denied_right(&text),
        ErrorKind::Server(ServerErrorKind::BusyLoading) => (
            NotDone,
            "Redis is loading its data".into(),
            "it will answer when that is done",
            Redial,
        ),
        ErrorKind::Server(ServerErrorKind::ReadOnly) => (
            NotDone,
            "this Redis is a read-only replica".into(),
            "point the URL at the master",
            Redial,
        ),
        ErrorKind::Server(ServerErrorKind::MasterDown) => (
            NotDone,
            "this Redis is a replica that has lost its master".into(),
            "point the URL at the master",
            Redial,
        ),
        ErrorKind::Server(
            ServerErrorKind::Moved
            | ServerErrorKind::Ask
            | ServerErrorKind::CrossSlot
            | ServerErrorKind::ClusterDown
            | ServerErrorKind::TryAgain,
        ) => (
            Misconfigured,
            "this Redis is a node of a cluster, which redis:// does not speak to".into(),
            "use a Redis that is not part of a cluster",
            Good,
        ),
        _ if text.contains("can't run this command") || text.contains("ACL failure in script") => {
            denied_right(&text)
        }
        _ => match code.as_str() {
            "NOAUTH" => (
                Denied,
                "Redis asks for a password, and the URL has none".into(),
                "write it into the URL: redis://user:password@host:6379",
                Redial,
            ),
            "WRONGPASS" => (
                Denied,
                "Redis refused the user name or password".into(),
                "put the right ones into the URL: redis://user:password@host:6379",
                Redial,
            ),
            "NOPERM" => denied_right(&text),
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
                "Redis is busy running somebody's script".into(),
                "end it with SCRIPT KILL",
                Good,
            ),
            "WRONGTYPE" => (
                Misconfigured,
                "the key beside the lock that keeps its fencing token holds something else".into(),
                "delete that key (it is named …:fence), or give the lock another name",
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
            _ if error.is_connection_refusal() => (
                NotDone,
                "nothing answers there (connection refused)".into(),
                "start Redis, or put its address into the URL",
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
                format!("the connection failed ({error})"),
                "see whether the server and the network are up",
                Redial,
            ),
            // To a command as long as ours, a server that was given no password says so
            // (and hangs up) before it says NOAUTH.
            _ if text.contains("unauthenticated") => (
                Denied,
                "Redis asks for a password, and the URL has none".into(),
                "write it into the URL: redis://user:password@host:6379",
                Redial,
            ),
            _ if text.contains("max number of clients") => (
                NotDone,
                "Redis has as many clients as maxclients allows".into(),
                "raise maxclients, or close connections",
                Redial,
            ),
            _ if error.kind() == ErrorKind::InvalidClientConfig => (
                Misconfigured,
                format!("the client can't be set up so ({error})"),
                "correct the URL",
                Redial,
            ),
            _ if text.contains("DB index") || text.contains("invalid DB") => (
                Misconfigured,
                "that database number does not exist on this Redis".into(),
                "correct the number at the end of the URL, or leave it out",
                Redial,
            ),
            _ => (
                Unknown,
                format!("Redis answered with an error ({error})"),
                "",
                Good,
            ),
        },
    };
    Fault {
        error: StoreError::new(kind, what, remedy).caused_by(error),
        link,
    }
}

fn denied_right(text: &str) -> (StoreErrorKind, String, &'static str, LinkState) {
    (
        StoreErrorKind::Denied,
        format!("this Redis user lacks a right ({text})"),
        "give it the commands and keys that the README lists under 'Rights'",
        LinkState::Good,
    )
}
