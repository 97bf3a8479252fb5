//! A wrong type in the body is an error in the body.

use applock::singleton;

#[singleton(app = "a")]
async fn last_expression() -> Option<u32> {
    Some("one")
}

#[singleton(app = "a")]
async fn early_return(n: u32) -> Result<u32, applock::Error> {
    if n == 0 {
        return Some(1);
    }
    Ok(n)
}

#[singleton(app = "a")]
fn sync() -> Option<u32> {
    5
}

#[singleton(app = "a")]
async fn unit() {
    5
}

#[singleton(app = "a")]
async fn nothing() -> Option<u32> {}

fn main() {}
