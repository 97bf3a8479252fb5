//! The end of a thread, and so of `main`: it waits a moment for the releases that this thread
//! has asked for and that nobody waits for.
//!
//! A future that is dropped lets its lock go in the background. If `main` ends right after (a
//! `select!` with Ctrl-C, the end of a runtime), the process is gone before the release has
//! left, and the next start finds the lock taken for the rest of the ttl. Dropping the last
//! handle of a locker waits for that, but the process's default locker is never dropped. So the
//! thread itself waits: by a destructor of a thread local, which runs also at the end of the
//! main thread, while the engine's thread still lives. (Not on systems without thread locals
//! that the linker knows, such as musl; on Windows the other threads are dead by then.)
//!
//! The dangers: an executor that is blocked for each release (nothing waits here but the end of
//! a thread), and a thread that never ends because a store is silent ([`FAREWELL`] bounds it).

use std::cell::{Cell, RefCell};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::unfinished::Unfinished;

/// How long a release that is on its way is waited for: a round trip or two, so that a program
/// that ends right after it has let go leaves nothing behind.
pub(super) const FAREWELL: Duration = Duration::from_millis(500);

/// What a thread has left behind. Dropped, it waits for that.
struct Behind {
    releases: RefCell<Arc<Unfinished>>,
    /// When the last one was asked for.
    last: Cell<Option<Instant>>,
    /// Where it was: a process that is forked off has its parent's thread locals.
    process: Cell<u32>,
}

thread_local! {
    static BEHIND: Behind = Behind::new();
}

impl Behind {
    fn new() -> Self {
        Self {
            releases: RefCell::default(),
            last: Cell::new(None),
            process: Cell::new(0),
        }
    }

    fn leave(&self, process: u32) -> Leaving {
        if self.process.replace(process) != process {
            // The parent's releases are none of the child's.
            self.releases.take();
        }
        self.last.set(Some(Instant::now()));
        let releases = Arc::clone(&self.releases.borrow());
        releases.add();
        Leaving(releases)
    }
}

impl Drop for Behind {
    fn drop(&mut self) {
        if let Some(last) = self.last.get()
            && self.process.get() == std::process::id()
            && !cfg!(windows)
        {
            self.releases
                .borrow()
                .wait(FAREWELL.saturating_sub(last.elapsed()));
        }
    }
}

/// A release that a thread has asked for, until it is done: dropped then.
pub(super) struct Leaving(Arc<Unfinished>);

impl Drop for Leaving {
    fn drop(&mut self) {
        self.0.done();
    }
}

/// Sends a release, or the news of a caller that has gone, in the name of this thread. Where the
/// thread's locals are gone already, it waits at once: nothing would later.
///
/// `process`: the one that this thread is of, which the caller has asked for already (a system
/// call).
pub(super) fn leave<T>(process: u32, send: impl FnOnce(Leaving) -> T) -> T {
    match BEHIND.try_with(|behind| behind.leave(process)) {
        Ok(leaving) => send(leaving),
        Err(_) => {
            let behind = Behind::new();
            send(behind.leave(process))
        }
    }
}
