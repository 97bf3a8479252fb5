//! `impl Trait` and `dyn Trait` arguments.

#![deny(warnings)]

use std::sync::LazyLock;

use applock::{AppLocker, singleton};

static LOCKER: LazyLock<AppLocker> = LazyLock::new(AppLocker::in_memory);

use std::fmt::Display;

#[singleton(app = "a", locker = LOCKER)]
async fn all(items: impl IntoIterator<Item = impl Display>, end: &dyn Display) -> Option<String> {
    Some(items.into_iter().map(|item| item.to_string()).collect::<String>() + &end.to_string())
}

#[singleton(app = "b", locker = LOCKER)]
fn twice(work: impl Fn() -> u32, mut more: impl FnMut(u32)) -> Option<u32> {
    more(work());
    Some(work() + work())
}

#[tokio::main]
async fn main() {
    assert_eq!(all([1, 2], &"!").await.unwrap(), "12!");
    let mut seen = 0;
    assert_eq!(twice(|| 2, |n| seen = n), Some(4));
    assert_eq!(seen, 2);
}
