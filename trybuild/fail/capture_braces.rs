//! Braces without their partners.

use applock::singleton;

#[singleton(app = "a", name = "t-{tenant")]
async fn open(tenant: u32) {}

#[singleton(app = "a", name = "t-tenant}")]
async fn close(tenant: u32) {}

fn main() {}
