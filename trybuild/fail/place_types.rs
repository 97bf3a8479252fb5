//! Types, traits, impls and modules.

use applock::singleton;

#[singleton(app = "a")]
struct Struct;

#[singleton(app = "a")]
pub enum Enum {
    A,
}

#[singleton(app = "a")]
union Union {
    a: u32,
}

#[singleton(app = "a")]
trait Trait {}

#[singleton(app = "a")]
impl Struct {}

#[singleton(app = "a")]
unsafe impl Send for Union {}

#[singleton(app = "a")]
mod module {}

#[singleton(app = "a")]
type Alias = Struct;

fn main() {}
