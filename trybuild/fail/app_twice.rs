//! An argument given twice.

use applock::singleton;

#[singleton(app = "a", app = "b")]
async fn app() {}

#[singleton(app = "a", ttl = 60, name = "n", ttl = "60s")]
async fn ttl() {}

fn main() {}
