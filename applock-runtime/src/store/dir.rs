//! To come.

use std::path::PathBuf;
use std::sync::Arc;
use super::*;

#[derive(Debug)]
pub(crate) struct DirStore;
impl DirStore { pub(crate) fn new(_: PathBuf) -> Self { DirStore } }
fn no<T>() -> Outcome<T> { Err(StoreError::new(StoreErrorKind::Misconfigured, "to come", "")) }
impl Store for DirStore {
    fn open(self: Arc<Self>, _: Duration) -> Answer<Outcome<()>> { Box::pin(async { no() }) }
    fn acquire(self: Arc<Self>, b: Vec<Acquire>, _: Duration) -> Answer<Vec<Outcome<Acquired>>> { Box::pin(async move { b.iter().map(|_| no()).collect() }) }
    fn renew(self: Arc<Self>, b: Vec<Renew>, _: Duration) -> Answer<Vec<Outcome<bool>>> { Box::pin(async move { b.iter().map(|_| no()).collect() }) }
    fn release(self: Arc<Self>, b: Vec<Release>, _: Duration) -> Answer<Vec<Outcome<bool>>> { Box::pin(async move { b.iter().map(|_| no()).collect() }) }
    fn inspect(self: Arc<Self>, _: Key, _: Duration) -> Answer<Outcome<Inspection>> { Box::pin(async { no() }) }
    fn force_release(self: Arc<Self>, _: Key, _: Option<Duration>, _: Duration) -> Answer<Outcome<bool>> { Box::pin(async { no() }) }
    fn describe(&self) -> Arc<str> { "dir:".into() }
}
