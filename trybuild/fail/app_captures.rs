//! `app` captures nothing.

use applock::singleton;

#[singleton(app = "tenant-{tenant}")]
async fn capture(tenant: u32) {}

fn main() {}
