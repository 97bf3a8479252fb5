//! An `at_most` or `at_least` below 100 ms.

use applock::singleton;

#[singleton(app = "a", at_most = "50ms")]
async fn short() {}

#[singleton(app = "a", at_least = "10ms")]
async fn too_short_as_well() {}

fn main() {}
