//! A value without its name.

use applock::singleton;

#[singleton("reports")]
async fn text() {}

#[singleton(60, app = "a")]
async fn number() {}

#[singleton(app = "a", = 5)]
async fn sign() {}

fn main() {}
