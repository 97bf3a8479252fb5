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
