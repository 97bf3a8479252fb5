//! Functions of a type that take no `self`.

#![deny(warnings)]

use std::sync::LazyLock;

use applock::{AppLocker, singleton};

static LOCKER: LazyLock<AppLocker> = LazyLock::new(AppLocker::in_memory);

struct Job<T>(T);

impl<T: Default + Clone> Job<T> {
    const START: u32 = 7;

    #[singleton(app = "a", locker = LOCKER)]
    async fn create() -> Option<Self> {
        Some(Self(T::default()))
    }

    #[singleton(app = "b", locker = LOCKER)]
    fn start(from: &Self) -> Option<(T, u32)> {
        Some((from.0.clone(), Self::START))
    }
}

#[tokio::main]
async fn main() {
    let job = Job::<u8>::create().await.unwrap();
    assert_eq!(Job::start(&job), Some((0, 7)));
}
