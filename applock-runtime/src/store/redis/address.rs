//! Where a server is: told by a URL, a sentinel, or a cluster.

use std::fmt;
use std::sync::Arc;

/// Where a server is.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Address {
    /// At what the URL says.
    Given,
    /// At a host and a port that a sentinel or a cluster has named.
    Named(Arc<str>, u16),
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Given => f.write_str("the address in the URL"),
            Self::Named(host, port) if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Named(host, port) => write!(f, "{host}:{port}"),
        }
    }
}

impl Address {
    /// What a node at `asked` names: without a host, one beside it.
    pub(super) fn beside(host: Option<&str>, port: u16, asked: &Self) -> Self {
        match (host, asked) {
            (Some(host), _) => Self::Named(host.into(), port),
            (None, Self::Named(host, _)) => Self::Named(Arc::clone(host), port),
            // Nodes are always named.
            (None, Self::Given) => Self::Given,
        }
    }
}
