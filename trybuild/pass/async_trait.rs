//! What `#[async_trait]` makes of methods, by default and `?Send`.

#![deny(warnings)]

use std::sync::LazyLock;

use applock::{AppLocker, singleton};

static LOCKER: LazyLock<AppLocker> = LazyLock::new(AppLocker::in_memory);

use std::sync::Arc;

use async_trait::async_trait;

#[async_trait]
trait Job: Send + Sync {
    async fn run(&self, tenant: &str, items: Vec<u8>) -> anyhow::Result<usize>;
    async fn count(&mut self, (more, _): (u32, u32), mut times: u32) -> Option<u32>;
    async fn consume(self: Box<Self>) -> Option<u32>;
    async fn shared(self: Arc<Self>);

    #[singleton(app = "defaults", name = "{id}", locker = LOCKER)]
    async fn by_default(&self, id: u32) -> Option<u32> {
        Some(id)
    }
}

struct Mine(u32);

#[async_trait]
impl Job for Mine {
    #[singleton(app = "a", name = "tenant-{tenant}", locker = LOCKER, guard = guard)]
    async fn run(&self, tenant: &str, items: Vec<u8>) -> anyhow::Result<usize> {
        guard.ensure_held()?;
        if tenant.is_empty() {
            return Ok(0);
        }
        let number: usize = tenant.parse()?;
        Ok(number + items.len())
    }

    #[singleton(app = "b", locker = LOCKER)]
    async fn count(&mut self, (more, _): (u32, u32), mut times: u32) -> Option<u32> {
        times += 1;
        self.0 += more * times;
        Some(self.0)
    }

    #[singleton(app = "c", locker = LOCKER)]
    async fn consume(self: Box<Self>) -> Option<u32> {
        Some(self.0)
    }

    #[singleton(app = "d", locker = LOCKER)]
    async fn shared(self: Arc<Self>) {}
}

#[async_trait(?Send)]
trait Local {
    async fn twice<T: Clone>(&self, item: T) -> Option<(T, T)>;
}

#[async_trait(?Send)]
impl Local for Mine {
    #[singleton(app = "e", locker = LOCKER, on_busy = None)]
    async fn twice<T: Clone>(&self, item: T) -> Option<(T, T)> {
        let local = std::rc::Rc::new(item);
        tokio::task::yield_now().await;
        Some(((*local).clone(), (*local).clone()))
    }
}

fn is_send<T: Send>(value: T) -> T {
    value
}

#[tokio::main]
async fn main() {
    let mut mine = Mine(1);
    assert_eq!(is_send(mine.run("2", vec![1])).await.unwrap(), 3);
    assert_eq!(mine.run("", vec![1]).await.unwrap(), 0);
    assert!(mine.run("x", vec![1]).await.is_err());
    assert_eq!(mine.count((2, 0), 1).await, Some(5));
    assert_eq!(mine.by_default(3).await, Some(3));
    assert_eq!(mine.twice(1).await, Some((1, 1)));
    Arc::new(Mine(1)).shared().await;
    assert_eq!(Box::new(mine).consume().await, Some(5));
}
