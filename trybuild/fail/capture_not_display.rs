//! A captured argument that can't be shown.

use applock::singleton;

struct Tenant;

#[singleton(app = "a", name = "{tenant}")]
async fn capture(tenant: Tenant) {}

fn main() {}
