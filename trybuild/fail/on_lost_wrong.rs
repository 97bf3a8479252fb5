//! `on_lost` is one of two words.

use applock::singleton;

#[singleton(app = "a", on_lost = abort)]
async fn other() {}

#[singleton(app = "a", on_lost = cancle)]
async fn misspelt() {}

#[singleton(app = "a", on_lost = "finish")]
async fn quoted() {}

fn main() {}
