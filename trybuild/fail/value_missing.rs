//! Nothing after `=`.

use applock::singleton;

#[singleton(app =)]
async fn at_the_end() {}

#[singleton(app = "a", ttl = , name = "n")]
async fn in_the_middle() {}

fn main() {}
