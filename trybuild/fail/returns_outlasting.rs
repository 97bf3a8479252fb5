//! Work that is still to run when the function has returned, under whatever name.

use std::future::Future;
use std::pin::Pin;
use std::thread;

use applock::{Error, singleton};
use futures_util::stream::BoxStream;
use tokio::task::JoinHandle;

type Work = Pin<Box<dyn Future<Output = ()> + Send>>;

#[singleton(app = "a")]
fn future_in_a_result() -> Result<Pin<Box<dyn Future<Output = ()>>>, Error> {
    Ok(Box::pin(async {}))
}

#[singleton(app = "a")]
async fn stream_in_an_option() -> Option<BoxStream<'static, u8>> {
    None
}

#[singleton(app = "a")]
async fn task_in_a_result() -> Result<JoinHandle<()>, Error> {
    Ok(tokio::spawn(async {}))
}

#[singleton(app = "a")]
fn thread_in_a_result() -> Result<thread::JoinHandle<()>, Error> {
    Ok(thread::spawn(|| ()))
}

#[singleton(app = "a", on_busy = Box::pin(async {}))]
fn alias() -> Work {
    Box::pin(async {})
}

#[singleton(app = "a")]
fn aliases_in_a_list() -> Result<Vec<Work>, Error> {
    Ok(vec![])
}

#[singleton(app = "a")]
async fn generic<F: Future>(future: F) -> Result<F, Error> {
    Ok(future)
}

struct Methods;

impl Methods {
    #[singleton(app = "a")]
    fn method(self) -> Option<Work> {
        None
    }
}

fn main() {}
