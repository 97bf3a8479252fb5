//! The third outcome of a step at a store (rule R9): neither yes nor no.

use std::error::Error as StdError;
use std::sync::Arc;

use crate::error::{Error, FaultKind, StoreFault};
use crate::shown::message;

const LATE: &str = "no answer in time";

/// An answer that is neither yes nor no.
#[derive(Clone, Debug)]
pub(crate) struct StoreError {
    pub(crate) kind: StoreErrorKind,
    pub(crate) what: Arc<str>,
    pub(crate) remedy: &'static str,
    pub(crate) source: Option<Arc<dyn StdError + Send + Sync>>,
    /// Found out at no cost of time (a connection that had died meanwhile): worth one
    /// more try at once.
    pub(crate) worth_another: bool,
}

/// What an error lets us conclude.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StoreErrorKind {
    /// The step was certainly not carried out.
    NotDone,
    /// The step may have been carried out, or may still be.
    Unknown,
    /// Not carried out, and refused until a person mends it: password, rights.
    Denied,
    /// Not carried out, and not possible until a person mends it: a damaged or
    /// foreign file, a database that does not exist.
    Misconfigured,
}

impl StoreError {
    /// `what` is on one line and short from here on, whatever a server or a file brought into it.
    pub(crate) fn new(kind: StoreErrorKind, what: impl AsRef<str>, remedy: &'static str) -> Self {
        Self {
            kind,
            what: message(what.as_ref()).to_string().into(),
            remedy,
            source: None,
            worth_another: false,
        }
    }

    /// No answer in time. The kind says whether the step may have left.
    pub(crate) fn late(kind: StoreErrorKind) -> Self {
        let remedy = match kind {
            // Nothing was sent, for not one answer has come over a connection.
            StoreErrorKind::NotDone => {
                "see whether the server is overloaded, the network is cut, or something that is no \
                 Redis has that port"
            }
            _ => "see whether the server is overloaded or the network is cut",
        };
        Self::new(kind, LATE, remedy)
    }

    /// Whether that is all it says.
    pub(crate) fn is_late(&self) -> bool {
        &*self.what == LATE
    }

    pub(crate) fn caused_by(mut self, source: impl StdError + Send + Sync + 'static) -> Self {
        self.source = Some(Arc::new(source));
        self
    }

    /// Whether trying again may help.
    pub(crate) fn is_passing(&self) -> bool {
        matches!(self.kind, StoreErrorKind::NotDone | StoreErrorKind::Unknown)
    }

    /// What the user reads.
    pub(crate) fn into_error(self, store: Arc<str>, lock: Option<Arc<str>>) -> Error {
        let kind = match self.kind {
            StoreErrorKind::NotDone | StoreErrorKind::Unknown => FaultKind::Unavailable,
            StoreErrorKind::Denied => FaultKind::Denied,
            StoreErrorKind::Misconfigured => FaultKind::Misconfigured,
        };
        let fault = Box::new(StoreFault {
            kind,
            lock,
            store,
            what: self.what,
            remedy: self.remedy,
            source: self.source,
        });
        match kind {
            FaultKind::Unavailable => Error::Unavailable(fault),
            FaultKind::Denied => Error::Denied(fault),
            FaultKind::Misconfigured => Error::Misconfigured(fault),
        }
    }
}
