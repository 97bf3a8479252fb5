//! An `at_least` longer than `at_most`.

use applock::singleton;

#[singleton(app = "a", at_least = "2h", at_most = "1h")]
async fn crossed() {}

fn main() {}
