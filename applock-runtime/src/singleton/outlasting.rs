//! Return types whose work is still to run when the function has returned, and its lock is
//! released: futures, streams, handles of tasks and threads.
//!
//! The macro sees how a type is written, and no more; only the compiler sees through an alias.
//! So expanded code asks it, in a branch that never runs: `Returned::<R>::NEW.kind()` is looked
//! up by autoderef along a chain of types. Each has that method for one kind of `R`, by a bound
//! of its `impl`, and answers [`Outlasting`]; where the bound does not hold, the lookup goes on
//! to the next. The last has it for every `R`, and answers [`Done`]. Only that answer is taken
//! by [`finished`], whose bound says what to do.

use std::future::Future;
use std::marker::PhantomData;
use std::ops::Deref;
use std::thread;

use futures_util::Stream;

/// What is done when the function has returned, as far as can be told.
pub struct Done;

/// What goes on.
pub struct Outlasting;

/// The answer for `R`.
#[diagnostic::on_unimplemented(
    message = "`{R}` is work that goes on when the function has returned, without the lock",
    label = "its work is still to run when the lock is released",
    note = "await or join it in the body, in an `async fn` or a `fn`, and return what comes out",
    note = "if it is not to run under the lock: return it in a type of your own"
)]
pub trait DoneOnReturn<R> {}

#[diagnostic::do_not_recommend]
impl<R> DoneOnReturn<R> for Done {}

/// Never called; the value that the branch which never runs would return.
pub fn finished<R, K: DoneOnReturn<R>>(_kind: K) -> R {
    unreachable!("it stands in a branch that never runs")
}

macro_rules! chain {
    ($($level:ident: <$($parameter:ident $(: $bound:path)?),+> $returns:ty, then $next:ident;)+) => {$(
        #[doc = concat!("For `", stringify!($returns), "`, and on to the next.")]
        pub struct $level<R>(PhantomData<fn() -> R>);

        impl<R> Deref for $level<R> {
            type Target = $next<R>;

            fn deref(&self) -> &$next<R> {
                &$next(PhantomData)
            }
        }

        impl<$($parameter $(: $bound)?),+> $level<$returns> {
            /// It is of this kind.
            pub fn kind(&self) -> Outlasting {
                Outlasting
            }
        }
    )+};
}

chain! {
    Returned: <T: Future> T, then Streams;
    Streams: <T: Stream> T, then Threads;
    Threads: <T> thread::JoinHandle<T>, then FutureResults;
    FutureResults: <T: Future, E> Result<T, E>, then StreamResults;
    StreamResults: <T: Stream, E> Result<T, E>, then ThreadResults;
    ThreadResults: <T, E> Result<thread::JoinHandle<T>, E>, then FutureOptions;
    FutureOptions: <T: Future> Option<T>, then StreamOptions;
    StreamOptions: <T: Stream> Option<T>, then ThreadOptions;
    ThreadOptions: <T> Option<thread::JoinHandle<T>>, then FutureLists;
    FutureLists: <T: Future> Vec<T>, then ThreadLists;
    ThreadLists: <T> Vec<thread::JoinHandle<T>>, then FutureListResults;
    FutureListResults: <T: Future, E> Result<Vec<T>, E>, then ThreadListResults;
    ThreadListResults: <T, E> Result<Vec<thread::JoinHandle<T>>, E>, then FutureOptionResults;
    FutureOptionResults: <T: Future, E> Result<Option<T>, E>, then StreamOptionResults;
    StreamOptionResults: <T: Stream, E> Result<Option<T>, E>, then AnyOther;
}

impl<R> Returned<R> {
    /// The head of the chain.
    pub const NEW: Self = Self(PhantomData);
}

/// The end of the chain.
pub struct AnyOther<R>(PhantomData<fn() -> R>);

impl<R> AnyOther<R> {
    /// It is of no kind before.
    pub fn kind(&self) -> Done {
        Done
    }
}
