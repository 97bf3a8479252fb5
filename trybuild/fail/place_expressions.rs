//! Closures and statements.

use applock::singleton;

fn outer() {
    let closure = #[singleton(app = "a")]
    || {};

    #[singleton(app = "a")]
    let other = || {};
}

fn main() {}
