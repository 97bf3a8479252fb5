//! The `#[singleton]` attribute of `applock`. Use it through that crate.
//!
//! Syntax only: attribute text in, tokens out. What happens at run time is in
//! `applock-runtime`.

use proc_macro2::TokenStream;

mod args;
mod async_trait;
mod capture;
mod duration;
mod expand;
mod item;
mod mistakes;
mod output;
#[cfg(test)]
mod snapshots;
mod suggest;
mod validate;
mod value;

/// Runs a function on one instance at a time, across every server.
///
/// The function's lock is taken before its body runs, renewed while it runs, and
/// released after it: on return, on an error, on a panic, and when the future of an
/// `async fn` is dropped. When another instance holds the lock, the body does not run,
/// and the caller is told in the function's own return type.
///
/// ```
/// use applock::{Error, singleton};
///
/// #[singleton(app = "reports", ttl = 60)]
/// async fn nightly_report(day: &str) -> Result<(), Error> {
///     // On the whole fleet, one instance at a time runs this body.
///     println!("the report of {day}");
///     Ok(())
/// }
/// ```
///
/// # Arguments
///
/// Each at most once, in any order.
///
/// | argument | meaning | default |
/// |---|---|---|
/// | `app = "billing"` | the application; every function with the same `app` (and `name`) shares one lock; or a constant of type `&str` (`app = APP`, `env!("SERVICE")`, `concat!(…)`) | required, unless `key` is given |
/// | `name = "tenant-{tenant}"` | a lock inside the application; `{…}` captures the function's arguments as `format!` does | none |
/// | `key = "…"` | the whole key in the store, in place of `app` and `name`; captures too | `QUEUE:{app}[:{name}]` |
/// | `ttl = 60` | how soon the lock of a crashed instance is free: seconds, or `"90s"`, `"5m"`, `"500ms"`, or an expression of type `Duration`; at least 100 ms | the locker's, 60 s |
/// | `wait = "10s"` | how long to wait for a busy lock; `forever` | do not wait |
/// | `every = "1h"` | once per tick: not again if the last run began less than nine tenths of it ago, by the store's clock (see below) | none |
/// | `tick = EXPR` | once per tick: the run's own number (`u64`) or fire time (`SystemTime`); not unless it is larger than the last one that began | none |
/// | `retry = failed` | with `every` or `tick`: a run that failed does not count, and another may take its tick up | every run counts |
/// | `at_least = "30s"` | keep the lock at least so long after it was taken, against clock skew between schedulers | none |
/// | `at_most = "1h"` | stop renewing after so long, so that a hung body can't hold the lock for ever | none |
/// | `remember = "30d"` | for how long the store remembers a holding after its end | a week; an hour where the name or key captures arguments; twice `every` at least |
/// | `reentrant` | a call made under this very lock runs under it (see below) | refused |
/// | `on_busy = …` | what a caller gets when the lock is busy: `error`, `skip` or an expression (see below) | by the return type |
/// | `on_lost = …` | what becomes of a body whose lease is lost: `cancel` or `finish` | `cancel` (async), `finish` (sync) |
/// | `locker = expr` | the `AppLocker` to use: a static, an argument, a field of `self` | the process's default |
/// | `guard = ident` | a name by which the body can use its `LockGuard` | none |
/// | `crate = path` | where to find `applock`, if it is re-exported or renamed | `::applock` |
///
/// `name` and `key` may capture arguments (`{tenant}`, `{id:04}`, `{date:?}`), `self`
/// where it can be displayed, and const parameters; `{{` and `}}` are braces. Of several values
/// (`"{region}:{id}"`) each is escaped first: what stands between them is percent-encoded where it
/// occurs in a value, and so is `%`, so that two lists of values never share a lock. `ttl`,
/// `wait`, `every`, `tick`, `at_least`, `at_most`, `remember` and `locker` may be expressions of the arguments; they
/// are evaluated at each call, before the lock is asked for.
///
/// # Once per tick
///
/// A job that is scheduled on every server is to run once, and a short one is over on one server
/// before the clock of the next has come to its time. With `every = "1h"` the store refuses a run
/// while the last one began less than nine tenths of that ago. Where the scheduler says which run
/// it is (its number, or when it fired), `tick = EXPR` refuses it unless it is later than the last
/// one: a process that comes late does not run an old tick.
///
/// ```
/// use std::time::SystemTime;
/// use applock::{Result, singleton};
///
/// #[singleton(app = "reports", every = "1h", on_busy = skip)]
/// async fn report() -> Result<()> {
///     Ok(())
/// }
///
/// #[singleton(app = "invoices", tick = fired_at, retry = failed, on_busy = skip)]
/// async fn invoices(fired_at: SystemTime) -> Result<()> {
///     Ok(())
/// }
/// ```
///
/// A run counts from when it began. With `retry = failed` one that returned an `Err`, panicked, was
/// cancelled, lost its lease or crashed does not count. Nothing runs again by itself: each call runs once
/// at most. So a job that fails everywhere runs once on each server that is asked in that tick, with `wait`
/// one right after the other; code that calls again in a loop has to pause. The refusal is `Error::AlreadyRan`, which says
/// who ran it, when, how it ended, and when the next may begin; `skip` covers it, as does
/// `on_busy = EXPR`.
///
/// What counts are the runs of the lock, whichever function had them: two jobs of one `app` need a
/// `name` each.
///
/// # When the body does not run
///
/// | return type | busy, already ran | unavailable, denied, invalid |
/// |---|---|---|
/// | `Result<T, E>` with `E: From<applock::Error>` (`anyhow::Result`, `std::io::Result`…) | `Err(Error::Busy)`, `Err(Error::AlreadyRan)` | `Err` |
/// | `()` | returns | returns |
/// | `Option<T>` | `None` | `None` |
/// | your own type with `applock::Refusal` | as you say | as you say |
/// | anything else | a compile error, unless `on_busy = EXPR` | |
///
/// - `on_busy = error` insists on a `Result` that can carry the error.
/// - `on_busy = skip` gives `()`, `None`, `Ok(())` or `Ok(None)` when the lock is busy, or the tick
///   has had its run; every other error is still an `Err` where the type can carry one.
/// - `on_busy = EXPR` gives the expression, which is evaluated only then; what is not
///   'busy' is still an `Err` where the type can carry one, and else gives the
///   expression too. It may `return`, `panic!` and, in an `async fn`, `.await`. In an
///   `async fn` the arguments have moved into the body by then: only those that are
///   `Copy` (references are) can be used.
///
/// # A call under its own lock
///
/// A call that is made by code which runs under that very lock would wait for itself. It is
/// refused at once, whatever `wait` says: `Error::Busy`, whose text says so. With `reentrant`
/// on the function that is called, it runs under the lock that is held already, which is
/// released at the end of the outermost call.
///
/// Of several such calls in one body (`join!`, `FuturesUnordered`, `select!`) one runs at a
/// time, and what it calls itself goes before its siblings. The others wait for their turn, in
/// order, as `wait` says, or are busy; a `fn` never waits for its turn, for it would block the
/// call that has it.
///
/// AppLock knows a call by the holder by its tokio task, and outside of tasks by its thread. Other
/// tasks that a body's own runtime or `LocalSet` polls are other callers: they take the lock if it
/// is free, or wait, or are refused. Sync code that merely runs on the holder's thread,
/// such as work that rayon has stolen, can't be told from a call. It is refused like one, and
/// would run under the lock with `reentrant`.
///
/// # Which functions
///
/// `fn`, `async fn` and `unsafe fn`; methods with every kind of `self`; associated
/// functions; methods of trait impls and default methods of traits; generic functions;
/// functions that return `impl Trait` (with `on_busy = EXPR`, if it is the whole return
/// type). What `#[async_trait]` has made of a method works as well.
///
/// Attributes are expanded from top to bottom. Below `#[tokio::main]` or
/// `#[tokio::test]`, this attribute sees the synchronous function that they make, so
/// the lock goes around the whole runtime; above them it sees the `async fn`, whose
/// body it can cancel. Both work; above is better.
///
/// A `const fn`, a function of a foreign ABI, and a declaration without a body are
/// refused. So is a function that returns a future without being an `async fn`: it is
/// over before the future runs. Likewise, by the type and not by how it is written, what
/// returns a future, a stream, or the handle of a task or thread, alone or in a `Result`,
/// `Option` or `Vec`: its work would go on when the lock is released. Await or join it in the
/// body. Types of your own and `impl Trait` are not checked: do not hand out in them what is to run
/// under the lock.
///
/// # What it expands to
///
/// One call into the runtime around the body. The arguments belong to the body: they
/// are dropped before the lock is released. (What a pattern leaves behind, the `_` in
/// `(a, _): (A, B)`, is dropped after it.) The future of an `async fn` grows by some
/// tens of bytes and by one more copy of its arguments, and stays `Send` if the body is.
#[proc_macro_attribute]
pub fn singleton(
    args: proc_macro::TokenStream,
    item: proc_macro::TokenStream,
) -> proc_macro::TokenStream {
    expand(args.into(), item.into()).into()
}

fn expand(args: TokenStream, item: TokenStream) -> TokenStream {
    let mut mistakes = mistakes::Mistakes::default();
    let args = args::Args::read(args, &mut mistakes);
    validate::arguments(&args, &mut mistakes);
    let function = item::Function::read(item.clone(), &mut mistakes);
    if let Some(function) = &function {
        validate::function(function, &args, &mut mistakes);
    }
    match (mistakes.into_tokens(), function) {
        (None, Some(function)) => expand::function(&args, &function),
        // The item still stands as it was written, so that an editor keeps working
        // inside it and its callers are not told that it does not exist.
        (Some(mut errors), _) => {
            errors.extend(item);
            errors
        }
        (None, None) => item,
    }
}
