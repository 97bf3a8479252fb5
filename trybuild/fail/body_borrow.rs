//! Errors of the borrow checker land in the body.

use applock::singleton;

#[singleton(app = "a")]
async fn moved(text: String) -> Option<String> {
    drop(text);
    Some(text)
}

#[singleton(app = "a")]
fn not_mutable(n: u32) {
    n += 1;
}

fn main() {}
