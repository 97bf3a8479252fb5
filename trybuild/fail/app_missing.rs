//! Neither `app` nor `key`.

use applock::singleton;

#[singleton]
async fn bare() {}

#[singleton()]
fn empty() {}

#[singleton(ttl = 60)]
async fn other_arguments() {}

fn main() {}
