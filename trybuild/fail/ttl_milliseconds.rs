//! Seconds that look like milliseconds.

use applock::singleton;

#[singleton(app = "a", ttl = 60_000)]
async fn a_minute() {}

#[singleton(app = "a", wait = 30000u64, at_least = 10_000)]
async fn others() {}

#[singleton(app = "a", ttl = 86_400, remember = "60000s", at_most = 9_000)]
async fn meant() {}

fn main() {}
