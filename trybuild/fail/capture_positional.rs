//! Captures by position.

use applock::singleton;

#[singleton(app = "a", name = "t-{}")]
async fn empty(tenant: u32) {}

#[singleton(app = "a", name = "t-{0}")]
async fn number(tenant: u32) {}

#[singleton(app = "a", name = "{tenant:1$}")]
async fn width(tenant: u32) {}

#[singleton(app = "a", name = "{tenant:.*}")]
async fn precision(tenant: u32) {}

fn main() {}
