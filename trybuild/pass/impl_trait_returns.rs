//! `impl Trait` returns: whole with `on_busy = EXPR`, and inside other types.

#![deny(warnings)]

use std::sync::LazyLock;

use applock::{AppLocker, singleton};

static LOCKER: LazyLock<AppLocker> = LazyLock::new(AppLocker::in_memory);

#[singleton(app = "a", locker = LOCKER, on_busy = vec![].into_iter())]
fn whole(upto: u32) -> impl Iterator<Item = u32> {
    if upto > 100 {
        return vec![1].into_iter();
    }
    (0..upto).collect::<Vec<_>>().into_iter()
}

#[singleton(app = "b", locker = LOCKER, on_busy = vec![].into_iter())]
async fn whole_async(upto: u32) -> impl Iterator<Item = u32> {
    (0..upto).collect::<Vec<_>>().into_iter()
}

#[singleton(app = "c", locker = LOCKER)]
async fn inside(upto: u32) -> Result<impl Iterator<Item = u32>, applock::Error> {
    if upto == 0 {
        return Ok(5..6);
    }
    Ok(0..upto)
}

#[singleton(app = "d", locker = LOCKER)]
fn inside_sync(upto: u32) -> Option<impl Iterator<Item = u32>> {
    Some(0..upto)
}

fn same(text: &str) -> &str {
    text
}

#[singleton(app = "e", locker = LOCKER, on_busy = same)]
fn closure() -> impl Fn(&str) -> &str {
    same
}

#[singleton(app = "f", locker = LOCKER, on_busy = panic!("busy"))]
fn deduced() -> impl Fn(&str) -> &str {
    |text| text
}

#[rustfmt::skip]
#[singleton(app = "g", locker = LOCKER, on_busy = same)]
fn one_line() -> impl Fn(&str) -> &str { same }

#[rustfmt::skip]
#[singleton(app = "h", locker = LOCKER, on_busy = (upto))]
fn one_line_path(upto: u32) -> u32 { upto }

#[tokio::main]
async fn main() {
    assert_eq!(whole(3).count(), 3);
    assert_eq!(whole_async(3).await.count(), 3);
    assert_eq!(inside(0).await.unwrap().count(), 1);
    assert_eq!(inside_sync(3).unwrap().count(), 3);
    assert_eq!(closure()("x"), "x");
    assert_eq!(deduced()("x"), "x");
    assert_eq!(one_line()("x"), "x");
    assert_eq!(one_line_path(1), 1);
}
