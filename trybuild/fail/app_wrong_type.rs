//! `app` is a string literal.

use applock::singleton;

const APP: &str = "a";

#[singleton(app = 5)]
async fn number() {}

#[singleton(app = APP)]
async fn constant() {}

#[singleton(app = b"a")]
async fn bytes() {}

#[singleton(app = concat!("a", "b"))]
async fn macro_call() {}

fn main() {}
