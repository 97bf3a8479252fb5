//! Constants, statics, imports and macros.

use applock::singleton;

#[singleton(app = "a")]
const CONST: u32 = 1;

#[singleton(app = "a")]
pub static STATIC: u32 = 1;

#[singleton(app = "a")]
use std::fmt;

#[singleton(app = "a")]
extern crate std as other;

#[singleton(app = "a")]
unsafe extern "C" {}

#[singleton(app = "a")]
thread_local!(static LOCAL: u32 = 1);

#[singleton(app = "a")]
macro_rules! rules {
    () => {};
}

fn main() {}
