//! In an async function the arguments have moved into the body.

use applock::singleton;

#[singleton(app = "a", on_busy = text.len())]
async fn moved(text: String) -> usize {
    text.len()
}

fn main() {}
