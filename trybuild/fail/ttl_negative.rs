//! A negative ttl.

use applock::singleton;

#[singleton(app = "a", ttl = -1)]
async fn number() {}

#[singleton(app = "a", ttl = "-1s")]
async fn text() {}

fn main() {}
