//! Functions in functions, in modules, in impls of generic types; recursion.

#![deny(warnings)]

use std::sync::LazyLock;

use applock::{AppLocker, singleton};

static LOCKER: LazyLock<AppLocker> = LazyLock::new(AppLocker::in_memory);

mod inner {
    pub(crate) struct Tree<T>(pub(crate) Vec<T>);

    impl<T> Tree<T>
    where
        T: Send + Sync + 'static,
    {
        #[applock::singleton(app = "a", locker = crate::LOCKER)]
        pub(crate) async fn len(&self) -> Option<usize> {
            Some(self.0.len())
        }
    }
}

fn outer() -> Option<u32> {
    #[singleton(app = "b", reentrant, locker = LOCKER)]
    fn within(n: u32) -> Option<u32> {
        if n == 0 { Some(0) } else { within(n - 1).map(|m| m + 1) }
    }
    within(3)
}

#[singleton(app = "c", locker = LOCKER)]
async fn with_items() -> Option<u32> {
    const STEP: u32 = 2;
    fn helper(n: u32) -> u32 {
        n * STEP
    }
    Some(helper(2))
}

#[tokio::main]
async fn main() {
    assert_eq!(inner::Tree(vec![1]).len().await, Some(1));
    assert_eq!(outer(), Some(3));
    assert_eq!(with_items().await, Some(4));
}
