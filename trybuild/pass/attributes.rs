//! Documentation and other attributes stay, also those inside the body.

#![deny(warnings)]

use std::sync::LazyLock;

use applock::{AppLocker, singleton};

static LOCKER: LazyLock<AppLocker> = LazyLock::new(AppLocker::in_memory);

mod jobs {
    #![deny(missing_docs)]

    /// Runs.
    ///
    /// And more about it.
    #[must_use = "the number of runs"]
    #[inline]
    #[doc(alias = "go")]
    #[applock::singleton(app = "a", locker = super::LOCKER)]
    #[track_caller]
    pub(super) fn run() -> Option<u32> {
        #![allow(unused_variables)]
        let unused = 1;
        Some(1)
    }

    #[deprecated = "use run"]
    #[applock::singleton(app = "b", locker = super::LOCKER)]
    pub(crate) async fn old() {}

    #[cfg(any())]
    #[applock::singleton(app = "c")]
    fn absent() -> NoSuchType {}

    #[cfg_attr(all(), applock::singleton(app = "d", locker = super::LOCKER))]
    #[expect(unused_variables)]
    pub(crate) fn conditional(unused: u32) {}
}

#[singleton(app = "e", locker = LOCKER)]
#[tracing::instrument]
async fn instrumented(n: u32) -> Option<u32> {
    Some(n)
}

#[tracing::instrument]
#[singleton(app = "f", locker = LOCKER)]
async fn instrumented_above(n: u32) -> Option<u32> {
    Some(n)
}

#[tokio::main]
async fn main() {
    assert_eq!(jobs::run(), Some(1));
    #[expect(deprecated)]
    jobs::old().await;
    jobs::conditional(1);
    assert_eq!(instrumented(1).await, Some(1));
    assert_eq!(instrumented_above(1).await, Some(1));
}
