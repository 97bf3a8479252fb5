//! The future is `Send` when the body is; when it is not, that is no error.

#![deny(warnings)]

use std::sync::LazyLock;

use applock::{AppLocker, singleton};

static LOCKER: LazyLock<AppLocker> = LazyLock::new(AppLocker::in_memory);

use std::cell::Cell;
use std::rc::Rc;

#[singleton(app = "a", name = "{text}", locker = LOCKER, guard = guard)]
async fn sends(text: String, items: &[u32]) -> anyhow::Result<usize> {
    guard.ensure_held()?;
    tokio::task::yield_now().await;
    Ok(text.len() + items.len())
}

#[singleton(app = "b", locker = LOCKER)]
async fn stays(count: Rc<Cell<u32>>) -> Option<u32> {
    tokio::task::yield_now().await;
    count.set(count.get() + 1);
    Some(count.get())
}

#[singleton(app = "c", locker = LOCKER, on_busy = Rc::new(0))]
async fn value_stays() -> Rc<u32> {
    Rc::new(1)
}

fn is_send<T: Send>(value: T) -> T {
    value
}

#[tokio::main]
async fn main() {
    assert_eq!(is_send(sends("x".to_owned(), &[1])).await.unwrap(), 2);
    assert_eq!(stays(Rc::default()).await, Some(1));
    assert_eq!(*value_stays().await, 1);
}
