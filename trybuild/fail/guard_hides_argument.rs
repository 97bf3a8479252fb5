//! A `guard` with an argument's name.

use applock::singleton;

#[singleton(app = "a", guard = tenant)]
async fn hidden(tenant: u32) {}

fn main() {}
