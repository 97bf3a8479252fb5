//! Strings that are no durations.

use applock::singleton;

#[singleton(app = "a", ttl = "")]
async fn empty() {}

#[singleton(app = "a", ttl = "90")]
async fn without_unit() {}

#[singleton(app = "a", ttl = "90 parsecs")]
async fn unknown_unit() {}

#[singleton(app = "a", ttl = "soon")]
async fn word() {}

#[singleton(app = "a", ttl = "1:30")]
async fn clock() {}

fn main() {}
