//! An `at_most` below 100 ms.

use applock::singleton;

#[singleton(app = "a", at_most = "50ms")]
async fn short() {}

fn main() {}
