//! Return types that no trait can be asked about.

use applock::singleton;

#[singleton(app = "a")]
fn iterator() -> impl Iterator<Item = u32> {
    0..1
}

#[singleton(app = "a")]
async fn opaque_async() -> impl Send {
    1
}

#[singleton(app = "a")]
fn never() -> ! {
    loop {}
}

fn main() {}
