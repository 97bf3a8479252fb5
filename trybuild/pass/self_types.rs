//! Every other kind of `self`.

#![deny(warnings)]

use std::sync::LazyLock;

use applock::{AppLocker, singleton};

static LOCKER: LazyLock<AppLocker> = LazyLock::new(AppLocker::in_memory);

use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;

struct Job(u32);

impl Job {
    #[singleton(app = "a", locker = LOCKER)]
    async fn boxed(self: Box<Self>) -> Option<u32> {
        Some(self.0)
    }

    #[singleton(app = "b", locker = LOCKER)]
    async fn shared(self: Arc<Self>) -> Option<u32> {
        Some(self.0)
    }

    #[singleton(app = "c", locker = LOCKER)]
    async fn pinned(mut self: Pin<&mut Self>) -> Option<u32> {
        self.0 += 1;
        Some(self.0)
    }

    #[singleton(app = "d", locker = LOCKER)]
    async fn typed(self: &Self) -> Option<&u32> {
        Some(&self.0)
    }

    #[singleton(app = "e", locker = LOCKER)]
    fn sync_boxed(self: Box<Self>) -> Option<Self> {
        Some(*self)
    }

    #[singleton(app = "f", locker = LOCKER)]
    fn sync_counted(self: Rc<Self>) -> Option<u32> {
        Some(self.0)
    }

    #[singleton(app = "g", locker = LOCKER)]
    fn sync_pinned<'a>(mut self: Pin<&'a mut Self>) -> Option<&'a mut u32> {
        self.0 += 1;
        Some(&mut Pin::into_inner(self).0)
    }

    #[singleton(app = "h", locker = LOCKER)]
    fn sync_nested(self: Pin<Box<Self>>, more: &mut u32) -> Option<&mut u32> {
        *more += self.0;
        Some(more)
    }
}

#[tokio::main]
async fn main() {
    assert_eq!(Box::new(Job(1)).boxed().await, Some(1));
    assert_eq!(Arc::new(Job(1)).shared().await, Some(1));
    let mut job = Job(1);
    assert_eq!(Pin::new(&mut job).pinned().await, Some(2));
    assert_eq!(job.typed().await, Some(&2));
    assert_eq!(Pin::new(&mut job).sync_pinned(), Some(&mut 3));
    assert_eq!(Box::new(Job(1)).sync_boxed().unwrap().0, 1);
    assert_eq!(Rc::new(Job(1)).sync_counted(), Some(1));
    assert_eq!(Box::pin(Job(1)).sync_nested(&mut 4), Some(&mut 5));
}
