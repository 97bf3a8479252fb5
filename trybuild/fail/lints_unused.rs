//! Unused code is warned about as without the attribute.

#![deny(warnings)]

use applock::singleton;

#[singleton(app = "a")]
async fn results(unused: u32) {
    std::fs::remove_file("x");
}

#[singleton(app = "a")]
fn sync_results(unused: u32, (left, right): (u32, u32)) -> Option<u32> {
    let local = 1;
    std::fs::remove_file("x");
    Some(left)
}

#[singleton(app = "a")]
async fn mutable(mut n: u32) -> Option<u32> {
    Some(n)
}

#[singleton(app = "a")]
fn sync_mutable(mut n: u32) -> Option<u32> {
    Some(n)
}

#[singleton(app = "a")]
fn dead_code() {
    return;
    println!("never");
}

#[singleton(app = "a")]
async fn dead_code_async() -> Option<u32> {
    loop {}
    Some(1)
}

#[singleton(app = "a", name = "{captured}")]
async fn captured_is_used(captured: u32) {}

#[singleton(app = "a", guard = unused_guard)]
async fn guard() {}

#[singleton(app = "a")]
async fn never_called() {
    assigned(1);
}

#[singleton(app = "a")]
#[must_use]
fn assigned(mut n: u32) -> Option<u32> {
    n = 5;
    None
}

struct Job;

impl Job {
    #[singleton(app = "a")]
    fn owned(mut self, unused: u32) {
        std::fs::remove_file("x");
    }
}

fn main() {}
