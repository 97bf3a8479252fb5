//! Arguments that are near to nothing.

use applock::singleton;

#[singleton(app = "a", colour = "red")]
async fn colour() {}

#[singleton(app = "a", retry(3))]
async fn call() {}

fn main() {}
