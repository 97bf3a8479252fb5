//! What is logged of a singleton: once each, with the function's name.

use crate::error::{Error, Loss};

/// Which function runs under the lock, for the log.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Function {
    pub(crate) module: &'static str,
    pub(crate) name: &'static str,
}

impl Function {
    /// The body did not run.
    pub(crate) fn refused(self, error: &Error) {
        let Self { module, name } = self;
        match error {
            Error::Busy(holder) if holder.is_foreign() || holder.is_of_this_call() => {
                tracing::warn!(module, function = name, "not run: {error}");
            }
            // A planned end.
            Error::Busy(_) | Error::Closed { .. } => {
                tracing::info!(module, function = name, "not run: {error}")
            }
            _ => tracing::error!(module, function = name, "not run: {error}"),
        }
    }

    /// The body was cancelled.
    pub(crate) fn lost(self, error: &Error) {
        let Self { module, name } = self;
        if is_planned(error) {
            tracing::info!(module, function = name, "cancelled: {error}");
        } else {
            tracing::error!(module, function = name, "cancelled: {error}");
        }
    }

    /// The body has ended, and its result stands.
    pub(crate) fn release_failed(self, error: &Error) {
        if is_planned(error) {
            // The shutdown has released it.
            return;
        }
        let Self { module, name } = self;
        tracing::warn!(
            module,
            function = name,
            "the function has ended, but its lock was not released: {error}"
        );
    }
}

/// A shutdown, which is no fault.
fn is_planned(error: &Error) -> bool {
    matches!(
        error,
        Error::Closed { .. }
            | Error::Lost {
                reason: Loss::Shutdown,
                ..
            }
    )
}
