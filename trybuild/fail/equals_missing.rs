//! Something else than `=` after the name.

use applock::singleton;

#[singleton(app("a"))]
async fn parentheses() {}

#[singleton(app: "a")]
async fn colon() {}

#[singleton(app = "a", wait)]
async fn word() {}

#[singleton(app == "a")]
async fn two() {}

fn main() {}
