//! A `wait` that can't be read.

use applock::singleton;

#[singleton(app = "a", wait = "forever")]
async fn quoted() {}

#[singleton(app = "a", wait = forevr)]
async fn misspelt() {}

#[singleton(app = "a", wait = "ten seconds")]
async fn words() {}

#[singleton(app = "a", wait = "11years")]
async fn too_long() {}

fn main() {}
