//! `name` and `key` are string literals.

use applock::singleton;

#[singleton(app = "a", name = tenant)]
async fn variable(tenant: u32) {}

#[singleton(key = 'k')]
async fn letter() {}

fn main() {}
