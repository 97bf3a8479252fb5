//! `name` belongs to `app`.

use applock::singleton;

#[singleton(key = "b", name = "n")]
async fn both() {}

fn main() {}
