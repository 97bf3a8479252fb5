//! `app` and `key` exclude each other.

use applock::singleton;

#[singleton(app = "a", key = "b")]
async fn both() {}

fn main() {}
