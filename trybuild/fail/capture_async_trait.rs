//! Parts of patterns that `#[async_trait]` has moved away.

use applock::singleton;

#[async_trait::async_trait]
trait Job {
    #[singleton(app = "a", name = "{left}")]
    async fn run(&self, (left, right): (u32, u32)) {
        let _ = left + right;
    }
}

fn main() {}
