//! A ttl that overflows.

use applock::singleton;

#[singleton(app = "a", ttl = 18446744073709551615)]
async fn seconds() {}

#[singleton(app = "a", ttl = 99999999999999999999999999)]
async fn digits() {}

#[singleton(app = "a", ttl = "18446744073709551615s 1000ms")]
async fn text() {}

#[singleton(app = "a", ttl = "101years")]
async fn years() {}

fn main() {}
