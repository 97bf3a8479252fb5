//! A `crate` that is no path.

use applock::singleton;

#[singleton(app = "a", crate = 5)]
async fn number() {}

#[singleton(app = "a", crate = "applock")]
async fn quoted() {}

#[singleton(app = "a", crate = applock<u8>)]
async fn generic() {}

#[singleton(app = "a", crate = (applock))]
async fn tuple() {}

fn main() {}
