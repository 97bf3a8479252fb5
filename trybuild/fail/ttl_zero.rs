//! A ttl of nothing.

use applock::singleton;

#[singleton(app = "a", ttl = 0)]
async fn number() {}

#[singleton(app = "a", ttl = "0s")]
async fn text() {}

fn main() {}
