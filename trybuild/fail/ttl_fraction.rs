//! Fractions of seconds are written as durations.

use applock::singleton;

#[singleton(app = "a", ttl = 1.5)]
async fn seconds() {}

#[singleton(app = "a", ttl = 2.5m)]
async fn minutes() {}

fn main() {}
