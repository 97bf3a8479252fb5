//! A `guard` that is no name.

use applock::singleton;

#[singleton(app = "a", guard = 5)]
async fn number() {}

#[singleton(app = "a", guard = "guard")]
async fn quoted() {}

#[singleton(app = "a", guard = a.b)]
async fn expression() {}

#[singleton(app = "a", guard = _)]
async fn underscore() {}

fn main() {}
