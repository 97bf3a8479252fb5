//! Captures of more than a name.

use applock::singleton;

struct User {
    id: u32,
}

#[singleton(app = "a", name = "{user.id}")]
async fn field(user: User) {}

#[singleton(app = "a", name = "{user.id()}")]
async fn call(user: User) {}

fn main() {}
