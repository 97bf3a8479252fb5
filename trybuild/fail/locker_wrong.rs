//! A `locker` that is none.

use applock::singleton;

#[singleton(app = "a", locker = "redis://localhost")]
async fn url() {}

#[singleton(app = "a", locker = 5 + 5)]
async fn number() {}

fn main() {}
