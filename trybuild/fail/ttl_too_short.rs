//! A ttl below 100 ms.

use applock::singleton;

#[singleton(app = "a", ttl = "99ms")]
async fn short() {}

fn main() {}
