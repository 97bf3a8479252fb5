//! A `crate` that does not exist.

use applock::singleton;

#[singleton(app = "a", crate = no_such_crate)]
async fn absent() {}

fn main() {}
