//! All mistakes in one build, and the function still exists.

use applock::singleton;

#[singleton(ap = "a", ttl = 0, name = "{tennant}", on_lost = never, wait = "1 parsec")]
async fn many(tenant: u32) -> u32 {
    tenant
}

async fn caller() {
    let number: String = many(1).await;
}

fn main() {}
