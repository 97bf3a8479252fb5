//! An expression that is no `Duration`.

use applock::singleton;

const SECONDS: u64 = 60;

#[singleton(app = "a", ttl = SECONDS)]
async fn constant() {}

#[singleton(app = "a", ttl = 60 * 2)]
fn sum() {}

fn main() {}
