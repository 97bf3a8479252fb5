//! What other libraries call it.

use applock::singleton;

#[singleton(app = "a", timeout = "10s")]
async fn timeout() {}

#[singleton(app = "a", lease = 60)]
async fn lease() {}

fn main() {}
