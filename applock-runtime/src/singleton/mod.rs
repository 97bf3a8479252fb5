//! What expanded code calls: run a body under a lock, and turn a refusal into the
//! function's return type.
//!
//! | file | what it does |
//! |---|---|
//! | `call` | one call of a `#[singleton]` function, as the macro builds it |
//! | `default` | the process's default locker |
//! | `scope` | `AppLocker::scope`: a default for the code inside |
//! | `scoped` | `Lock::run` and `Lock::run_blocking` |
//! | `run` | an async body: take the lock, drive the body, release the lock |
//! | `blocking_run` | a sync body: the lock is taken before it, and released after it |
//! | `start` | what both begin with: is this code under that lock already, and may it run there? |
//! | `refusal` | what the caller of a function gets when the body did not run |
//! | `outlasting` | return types whose work would outlast the lock, refused while compiling |
//! | `log` | what is logged of a function |
//!
//! Two rules are kept here. The body ends before its lock is released, on return, error,
//! panic and cancellation (R5). A body's own result is never replaced, and a body never runs
//! where the lock may not be held (R9).

mod blocking_run;
mod call;
mod default;
mod log;
mod outlasting;
mod refusal;
mod run;
mod scope;
mod scoped;
mod start;
#[cfg(test)]
mod tests;

pub use blocking_run::BlockingRun;
pub use call::Call;
pub use default::{drain, drain_blocking, init, shutdown, shutdown_blocking};
pub use outlasting::{Returned, finished};
pub use refusal::{
    AutorefDispatch, CarriesError, CarriesNothing, Refusal, RefuseWithError, Returns, Skip,
    call_once,
};
pub use run::Run;
