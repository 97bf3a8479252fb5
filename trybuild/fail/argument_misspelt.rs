//! Misspelt arguments, with the nearest name.

use applock::singleton;

#[singleton(app = "a", tll = 60)]
async fn ttl() {}

#[singleton(appp = "a")]
async fn app() {}

#[singleton(app = "a", onbusy = skip)]
async fn on_busy() {}

#[singleton(app = "a", atleast = "1s")]
async fn at_least() {}

#[singleton(app = "a", Guard = guard)]
async fn guard() {}

fn main() {}
