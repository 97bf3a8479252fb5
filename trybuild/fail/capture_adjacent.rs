//! Two values with nothing between them.

use applock::singleton;

#[singleton(app = "a", name = "{year}{month:02}")]
async fn monthly(year: u32, month: u32) {}

fn main() {}
