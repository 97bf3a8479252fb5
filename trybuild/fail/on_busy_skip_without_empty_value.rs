//! `on_busy = skip` on types without an empty value.

use applock::singleton;

#[singleton(app = "a", on_busy = skip)]
async fn number() -> u32 {
    1
}

#[singleton(app = "a", on_busy = skip)]
fn result() -> Result<u32, applock::Error> {
    Ok(1)
}

fn main() {}
