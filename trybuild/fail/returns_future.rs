//! Functions that return a future, and are over before it runs.

use applock::singleton;

use std::future::Future;
use std::pin::Pin;

#[singleton(app = "a")]
fn opaque(n: u32) -> impl Future<Output = u32> + Send {
    async move { n }
}

#[singleton(app = "a")]
fn boxed() -> Pin<Box<dyn Future<Output = Result<u32, applock::Error>> + Send>> {
    Box::pin(async move { Ok(1) })
}

type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

#[singleton(app = "a")]
fn aliased<'a>() -> BoxFuture<'a, ()> {
    Box::pin(async move {})
}

fn main() {}
