//! A unit that needs quotes.

use applock::singleton;

#[singleton(app = "a", ttl = 90s)]
async fn seconds() {}

fn main() {}
