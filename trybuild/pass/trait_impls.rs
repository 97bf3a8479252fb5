//! Methods of trait impls, and default methods of traits.

#![deny(warnings)]

use std::sync::LazyLock;

use applock::{AppLocker, singleton};

static LOCKER: LazyLock<AppLocker> = LazyLock::new(AppLocker::in_memory);

trait Job {
    fn run(&mut self, n: u32) -> Option<u32>;
    async fn run_async(&self) -> Option<u32>;

    #[singleton(app = "c", locker = LOCKER)]
    fn default_run(&self) -> Option<&Self> {
        Some(self)
    }

    #[singleton(app = "d", locker = LOCKER)]
    fn owned(self) -> Option<Self>
    where
        Self: Sized,
    {
        Some(self)
    }
}

#[derive(Debug, PartialEq)]
struct Mine(u32);

impl Job for Mine {
    #[singleton(app = "a", locker = LOCKER)]
    fn run(&mut self, n: u32) -> Option<u32> {
        self.0 += n;
        Some(self.0)
    }

    #[singleton(app = "b", locker = LOCKER)]
    async fn run_async(&self) -> Option<u32> {
        Some(self.0)
    }
}

#[tokio::main]
async fn main() {
    let mut mine = Mine(1);
    assert_eq!(mine.run(1), Some(2));
    assert_eq!(mine.run_async().await, Some(2));
    assert_eq!(mine.default_run(), Some(&Mine(2)));
    assert_eq!(mine.owned(), Some(Mine(2)));
}
