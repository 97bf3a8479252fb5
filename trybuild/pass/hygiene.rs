//! Names of ours that the user has too, and names of the standard library taken by the user.

#![deny(warnings)]
#![allow(dead_code, unused_macros, clippy::all)]

use ::std::{sync::LazyLock, time::Duration as Length};

use applock::{AppLocker, singleton};

static LOCKER: LazyLock<AppLocker> = LazyLock::new(AppLocker::in_memory);

mod core {}
mod std {}
struct Some;
struct None;
struct Ok;
struct Err;
struct Option;
struct Result;
macro_rules! format {
    () => {};
}
macro_rules! pin {
    () => {};
}

fn call() -> u32 {
    1
}

#[singleton(app = "a", name = "{body}-{value}", locker = LOCKER, ttl = length, on_busy = 0)]
async fn ours(call: u32, body: u32, value: u32, error: u32, length: Length) -> u32 {
    let frame = call + body + value + error;
    let never = frame;
    never
}

#[singleton(app = "b", locker = LOCKER, on_busy = call + value + told(error))]
fn ours_sync(call: u32, _run: u32, value: u32, error: u32) -> u32 {
    call + value + error
}

#[singleton(app = "c", locker = LOCKER)]
async fn outside() {
    assert_eq!(call(), 1);
}

fn told(n: u32) -> u32 {
    n
}

fn main() {
    drop(ours(1, 1, 1, 1, Length::from_secs(1)));
    drop(outside());
    assert_eq!(ours_sync(1, 1, 1, 1), 3);
    format!();
    pin!();
}
