//! `{self}` without a `self`.

use applock::singleton;

#[singleton(app = "a", name = "{self}")]
async fn free() {}

fn main() {}
