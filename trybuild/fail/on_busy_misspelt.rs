//! Misspelt words after `on_busy`.

use applock::singleton;

#[singleton(app = "a", on_busy = skp)]
async fn skip() {}

#[singleton(app = "a", on_busy = Error)]
async fn error() -> Result<(), applock::Error> {
    Ok(())
}

fn main() {}
