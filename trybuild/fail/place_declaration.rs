//! Declarations without a body.

use applock::singleton;

trait Job {
    #[singleton(app = "a")]
    async fn run(&self);

    #[singleton(app = "a")]
    fn run_sync(&self) -> Option<u32>;
}

unsafe extern "C" {
    #[singleton(app = "a")]
    fn foreign();
}

fn main() {}
