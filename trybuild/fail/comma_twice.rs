//! A comma too many.

use applock::singleton;

#[singleton(app = "a",,)]
async fn trailing() {}

#[singleton(, app = "a")]
async fn leading() {}

fn main() {}
