//! `on_busy = error` on types that carry none.

use applock::singleton;

#[singleton(app = "a", on_busy = error)]
async fn unit() {}

#[singleton(app = "a", on_busy = error)]
fn option() -> Option<u32> {
    None
}

fn main() {}
