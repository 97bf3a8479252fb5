//! An `on_busy` of another type than the function's.

use applock::singleton;

#[singleton(app = "a", on_busy = "busy")]
async fn text() -> u32 {
    1
}

#[singleton(app = "a", on_busy = 0)]
fn number() -> Option<u32> {
    Some(1)
}

fn main() {}
