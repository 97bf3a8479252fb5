//! A ttl that is no length of time.

use applock::singleton;

#[singleton(app = "a", ttl = true)]
async fn boolean() {}

#[singleton(app = "a", ttl = 'x')]
async fn letter() {}

#[singleton(app = "a", ttl = forever)]
async fn word() {}

fn main() {}
