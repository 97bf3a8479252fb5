//! No comma between two arguments.

use applock::singleton;

#[singleton(app = "a" ttl = 60)]
async fn between() {}

#[singleton(app = "a"; ttl = 60)]
async fn semicolon() {}

fn main() {}
