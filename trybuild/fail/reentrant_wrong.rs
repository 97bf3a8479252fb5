use applock::singleton;

#[singleton(app = "a", reentrant = true)]
fn with_a_value() {}

#[singleton(app = "a", reentrant("yes"))]
fn with_parentheses() {}

#[singleton(app = "a", reentrant, reentrant)]
fn twice() {}

#[singleton(app = "a", reentrant wait = 5)]
fn without_a_comma() {}

#[singleton(app = "a", reentrant =)]
fn with_half_a_value() {}

#[singleton(app = "a", reentrent)]
fn misspelt() {}

#[singleton(app = "a", recursive)]
fn by_another_word() {}

fn main() {}
