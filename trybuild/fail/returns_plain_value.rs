//! Return types that can't say 'busy'.

use applock::singleton;

#[singleton(app = "a")]
async fn number() -> u32 {
    1
}

#[singleton(app = "a")]
fn text() -> String {
    String::new()
}

struct Mine;

#[singleton(app = "a")]
async fn foreign_error() -> Result<u32, Mine> {
    Ok(1)
}

#[singleton(app = "a")]
fn generic_error<E>() -> Result<u32, E> {
    Ok(1)
}

#[async_trait::async_trait]
trait Job {
    #[singleton(app = "a")]
    async fn run(&self) -> u32 {
        1
    }
}

fn main() {}
