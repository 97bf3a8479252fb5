//! `const fn`.

use applock::singleton;

#[singleton(app = "a")]
const fn constant() {}

fn main() {}
