//! What is done when the function has returned, though its type is near to one that is not.

#![deny(warnings)]

use std::future::Future;

use applock::{AppLocker, Error, singleton};

/// A type of one's own is not asked.
struct Started(tokio::task::JoinHandle<u8>);

#[singleton(app = "a", locker = AppLocker::in_memory())]
async fn started() -> Result<Started, Error> {
    Ok(Started(tokio::spawn(async { 7 })))
}

#[singleton(app = "b", locker = AppLocker::in_memory())]
async fn generic<F: Future>(future: F) -> Result<F::Output, Error> {
    Ok(future.await)
}

#[singleton(app = "c", locker = AppLocker::in_memory())]
fn plain<T>(value: T) -> Option<Vec<T>> {
    Some(vec![value])
}

#[singleton(app = "d", locker = AppLocker::in_memory())]
fn borrowed<'a>(text: &'a str, _other: &str) -> Result<&'a str, Error> {
    Ok(text)
}

#[singleton(app = "e", locker = AppLocker::in_memory())]
fn iterator(items: &[u8]) -> Result<impl Iterator<Item = &u8>, Error> {
    Ok(items.iter())
}

#[tokio::main]
async fn main() {
    assert_eq!(started().await.unwrap().0.await.unwrap(), 7);
    assert_eq!(generic(async { 1 }).await.unwrap(), 1);
    assert_eq!(plain(2).unwrap(), [2]);
    assert_eq!(borrowed("x", "y").unwrap(), "x");
    assert_eq!(iterator(&[3]).unwrap().count(), 1);
}
