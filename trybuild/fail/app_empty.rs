//! Empty strings.

use applock::singleton;

#[singleton(app = "")]
async fn app() {}

#[singleton(key = "")]
async fn key() {}

#[singleton(app = "a", name = "")]
async fn name() {}

fn main() {}
