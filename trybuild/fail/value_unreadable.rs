//! A value that is no expression.

use applock::singleton;

#[singleton(app = "a", ttl = * 5)]
async fn ttl() {}

#[singleton(app = "a", on_busy = else, name = "")]
async fn on_busy() {}

fn main() {}
