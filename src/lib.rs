//! One attribute on a function, and it runs on one instance at a time across every
//! server.
//!
//! ```
//! use applock::singleton;
//!
//! #[singleton(app = "reports", at_least = "30s", on_busy = skip)]
//! async fn nightly_report(day: &str) -> Result<(), applock::Error> {
//!     // On the whole fleet, one instance at a time runs this body.
//!     println!("the report of {day}");
//!     Ok(())
//! }
//! ```
//!
//! A scheduled job, which every server's scheduler calls: one runs it, and the others leave it
//! to that one. `at_least` is longer than the servers' clocks differ, so that a short job does
//! not run a second time where it is a little later.
//!
//! The lock is a lease in a store: it is renewed by a heartbeat while the body runs, and
//! free within its ttl when the process dies. A caller that does not get it is told who
//! holds it and since when.
//!
//! # Quick start
//!
//! Name the store in the environment variable `APPLOCK_URL`
//! (`redis://127.0.0.1:6379` if it is unset), or choose it in code:
//!
//! ```
//! use applock::{AppLocker, Error, singleton};
//!
//! #[singleton(app = "reports", guard = lock)]
//! async fn nightly_report() -> Result<u64, Error> {
//!     lock.ensure_held()?; // before each effect
//!     Ok(lock.fencing_token())
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Error> {
//! applock::init(AppLocker::connect("memory:").await?);
//! match nightly_report().await {
//!     Ok(token) => println!("ran, with fencing token {token}"),
//!     Err(Error::Busy(holder)) => println!("another instance is at it: {holder}"),
//!     Err(error) => return Err(error),
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # Where to look
//!
//! | for | see |
//! |---|---|
//! | functions and methods, async and sync | [`singleton`] |
//! | a lock taken by hand | [`AppLocker`], [`Lock`], [`LockGuard`] |
//! | who holds a lock, and who held it last | [`LockInfo`], [`LastHolding`] |
//! | what can go wrong | [`Error`] |
//! | the guard of the singleton that code runs under | [`current`] |
//! | probes: is the store there, is the thread alive | [`AppLocker::ping`], [`AppLocker::health`] |
//! | tests without a server, in virtual time | [`MemoryStore`], [`clock::ManualClock`] |
//!
//! # Stores
//!
//! `redis://` and `rediss://` exclude all processes that use one Redis server (6.2 or
//! later, or Valkey); `dir:PATH` those of one machine that use one directory; `memory:`
//! the tasks and threads of one process.
//!
//! # How a process ends
//!
//! For a planned end (`SIGTERM`), call
//! [`drain`], which lets what runs end, or [`shutdown`], which cancels it.
//!
//! When `main` returns, its thread waits up to half a second for the releases that were
//! left behind (a job that Ctrl-C has cancelled in a `select!`), for the default locker too. A lock
//! stays taken for its ttl where no code of its holder runs any more: after `process::exit` or
//! `abort` in the middle of a body, after a signal that kills (`SIGKILL`; `SIGTERM` and Ctrl-C too,
//! if the program does not handle them), and of a guard that is never dropped, be it in a `static`,
//! in a thread that still runs when `main` returns, or given to `mem::forget`. Where the system has
//! no destructors for the main thread's locals (musl, Windows), `main` does not wait: call `drain`
//! or `shutdown` there.
//!
//! # What it does not promise
//!
//! A lease lock makes overlap unlikely and detectable; it can't make it impossible. Pass
//! the [fencing token](LockGuard::fencing_token) to what the lock protects, and let that
//! refuse older ones. `docs/GUARANTEES.md` in the repository has the whole list.
//!
//! # Features
//!
//! - `tls` (off by default): `rediss://`, through rustls.
//! - `serde` (off by default): `Serialize` for [`LockInfo`], [`LastHolding`], [`Ending`], [`Loss`] and
//!   [`ErrorKind`], with names that stay.
//!
//! A facade: everything here is re-exported from `applock-runtime` and
//! `applock-macros`.

pub use applock_macros::singleton;
pub use applock_runtime::{
    AppLocker, Builder, Ending, Error, ErrorKind, Health, InvalidInput, LastHolding, Lock,
    LockGuard, LockInfo, Loss, MemoryStore, Refusal, Result, StoreFault, StoreSource, Tick,
    URL_VARIABLE, clock, current, drain, drain_blocking, init, shutdown, shutdown_blocking,
};

#[doc(hidden)]
pub use applock_runtime::__private;

/// The README's code, compiled and run with the documentation's.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
mod readme {}

/// The code of the guide to migrating.
#[cfg(doctest)]
#[doc = include_str!("../docs/MIGRATING.md")]
mod migrating {}

/// The code of the page on probes.
#[cfg(doctest)]
#[doc = include_str!("../docs/PROBES.md")]
mod probes {}
