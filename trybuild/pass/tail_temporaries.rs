//! The last expression's temporaries borrow from the arguments.

#![deny(warnings)]

use std::sync::LazyLock;

use applock::{AppLocker, singleton};

static LOCKER: LazyLock<AppLocker> = LazyLock::new(AppLocker::in_memory);

use std::cell::RefCell;
use std::sync::{Arc, Mutex};

#[singleton(app = "a", locker = LOCKER)]
async fn locked(items: Arc<Mutex<Vec<u32>>>) -> Option<u32> {
    items.lock().unwrap().first().copied()
}

#[singleton(app = "b", locker = LOCKER)]
fn borrowed(items: RefCell<Vec<u32>>) -> Option<u32> {
    items.borrow().first().copied()
}

struct Job(RefCell<u32>);

impl Job {
    #[singleton(app = "c", locker = LOCKER)]
    fn owned(self) -> Option<u32> {
        Some(*self.0.borrow())
    }
}

#[tokio::main]
async fn main() {
    assert_eq!(locked(Arc::new(Mutex::new(vec![1]))).await, Some(1));
    assert_eq!(borrowed(RefCell::new(vec![1])), Some(1));
    assert_eq!(Job(RefCell::new(1)).owned(), Some(1));
}
