//! Foreign ABIs, and variadic functions.

use applock::singleton;

#[singleton(app = "a")]
extern "C" fn foreign() {}

#[singleton(app = "a")]
unsafe extern "C" fn foreign_and_unsafe() {}

#[singleton(app = "a")]
extern "Rust" fn ours() {}

fn main() {}
