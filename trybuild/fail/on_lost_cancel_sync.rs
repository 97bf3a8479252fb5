//! A function that is not async can't be cancelled.

use applock::singleton;

#[singleton(app = "a", on_lost = cancel)]
fn sync() {}

#[tokio::main]
#[singleton(app = "a", on_lost = cancel)]
async fn made_sync_above() {}

fn main() {}
