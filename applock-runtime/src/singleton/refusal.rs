//! Turning a lock that was not taken into the function's return type.
//!
//! The return type decides by trait, and not by its spelling, so that aliases such
//! as `anyhow::Result` work.

use std::marker::PhantomData;

use crate::error::Error;

/// How a return type of a `#[singleton]` function tells its caller that the body did
/// not run: the lock is busy, its tick has had its run, or it could not be had.
///
/// `Result` tells the [`Error`]; `()` and `Option` are silent (`None`). Implement it
/// for a return type of your own:
///
/// ```
/// use applock::{Error, Refusal};
///
/// enum Outcome {
///     Done,
///     Skipped(Error),
/// }
///
/// impl Refusal for Outcome {
///     fn refused(error: Error) -> Self {
///         Self::Skipped(error)
///     }
/// }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` can't tell the caller that the lock is busy",
    label = "this return type has no way to say 'busy'",
    note = "return a `Result` whose error is `From<applock::Error>` (`anyhow::Result` will do)",
    note = "or return `()` or an `Option`: nothing, or `None`, then means that the body did not run",
    note = "or say what to return: `#[singleton(…, on_busy = EXPR)]`"
)]
pub trait Refusal: Sized {
    /// The value that tells of `error`.
    fn refused(error: Error) -> Self;
}

impl Refusal for () {
    fn refused(_: Error) {}
}

impl<T> Refusal for Option<T> {
    fn refused(_: Error) -> Self {
        None
    }
}

// Not recommended in errors: 'MyError: From<applock::Error> is missing' is one of
// three ways out, and the trait's own text names all of them.
#[diagnostic::do_not_recommend]
impl<T, E: From<Error>> Refusal for Result<T, E> {
    fn refused(error: Error) -> Self {
        Err(error.into())
    }
}

/// `on_busy = error`: only what can carry the error.
#[diagnostic::on_unimplemented(
    message = "`on_busy = error`, but `{Self}` can't carry an `applock::Error`",
    label = "no place for an error in this return type",
    note = "return a `Result` whose error is `From<applock::Error>` (`anyhow::Result` will do)",
    note = "or say what to return instead: `on_busy = EXPR`, or `on_busy = skip` where the type \
            has an empty value"
)]
pub trait RefuseWithError: Sized {
    /// The value that carries `error`.
    fn refused_with_error(error: Error) -> Self;
}

#[diagnostic::do_not_recommend]
impl<T, E: From<Error>> RefuseWithError for Result<T, E> {
    fn refused_with_error(error: Error) -> Self {
        Err(error.into())
    }
}

/// `on_busy = skip`: only what has an empty value.
#[diagnostic::on_unimplemented(
    message = "`on_busy = skip`, but `{Self}` has no empty value to return",
    label = "nothing to return when the lock is busy",
    note = "`skip` gives `()`, `None`, `Ok(())` or `Ok(None)`",
    note = "say what to return instead: `on_busy = EXPR`, or `on_busy = error` for a `Result`"
)]
pub trait Skip: Sized {
    /// The empty value.
    fn skipped() -> Self;
}

impl Skip for () {
    fn skipped() {}
}

impl<T> Skip for Option<T> {
    fn skipped() -> Self {
        None
    }
}

#[diagnostic::do_not_recommend]
impl<T: Skip, E> Skip for Result<T, E> {
    fn skipped() -> Self {
        Ok(T::skipped())
    }
}

/// Asks the return type `R`, while compiling, whether it can carry an error.
///
/// `(&AutorefDispatch::<R>::NEW).carry(error)` calls [`CarriesError`] where `R` is a result
/// whose error is `From<Error>`, and [`CarriesNothing`] for every other type: method lookup
/// tries the implementation for the value itself before the one that is a reference further
/// away. (David Tolnay's 'autoref-based stable specialization', 2019:
/// <https://github.com/dtolnay/case-studies/tree/master/autoref-specialization>.)
pub struct AutorefDispatch<R>(PhantomData<fn() -> R>);

impl<R> AutorefDispatch<R> {
    /// The only one.
    pub const NEW: Self = Self(PhantomData);
}

/// See [`AutorefDispatch`].
pub trait CarriesError {
    /// The function's return type.
    type Returns;

    /// The error in the return type; `None` where the lock is only busy, or the tick has had its
    /// run.
    fn carry(&self, error: Error) -> Option<Self::Returns>;
}

impl<T, E: From<Error>> CarriesError for AutorefDispatch<Result<T, E>> {
    type Returns = Result<T, E>;

    fn carry(&self, error: Error) -> Option<Result<T, E>> {
        match error {
            // R9: 'unavailable' is never passed off as 'busy' where the return type can carry the difference.
            Error::Busy(_) | Error::AlreadyRan(_) => None,
            other => Some(Err(other.into())),
        }
    }
}

/// See [`AutorefDispatch`].
pub trait CarriesNothing {
    /// The function's return type.
    type Returns;

    /// Always `None`.
    fn carry(&self, error: Error) -> Option<Self::Returns>;
}

impl<R> CarriesNothing for &AutorefDispatch<R> {
    type Returns = R;

    fn carry(&self, _: Error) -> Option<R> {
        None
    }
}

/// `<fn() -> ! as Returns>::Value` is how stable Rust lets us write `!` as the type of
/// a binding.
pub trait Returns {
    /// What the function returns.
    type Value;
}

impl<R> Returns for fn() -> R {
    type Value = R;
}

/// Runs a synchronous body that owns its `self`. The bound makes the closure one that
/// is called once, so that it may give away what it has taken.
pub fn call_once<R>(body: impl FnOnce() -> R) -> R {
    body()
}
