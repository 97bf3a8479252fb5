//! Methods with `self`, `mut self`, `&self` and `&mut self`.

#![deny(warnings)]

use std::sync::LazyLock;

use applock::{AppLocker, singleton};

static LOCKER: LazyLock<AppLocker> = LazyLock::new(AppLocker::in_memory);

#[derive(Default)]
struct Job {
    runs: u32,
    tags: Vec<String>,
}

impl Job {
    #[singleton(app = "a", locker = LOCKER)]
    async fn by_ref(&self) -> Option<u32> {
        Some(self.runs)
    }

    #[singleton(app = "b", locker = LOCKER)]
    async fn by_mut(&mut self, by: u32) -> Option<&mut u32> {
        self.runs += by;
        Some(&mut self.runs)
    }

    #[singleton(app = "c", locker = LOCKER)]
    async fn by_value(self) -> Option<Vec<String>> {
        Some(self.tags)
    }

    #[singleton(app = "d", locker = LOCKER)]
    async fn by_mut_value(mut self) -> Option<Self> {
        self.runs += 1;
        Some(self)
    }

    #[singleton(app = "e", locker = LOCKER)]
    fn sync_by_ref(&self) -> Option<&[String]> {
        Some(&self.tags)
    }

    #[singleton(app = "f", locker = LOCKER)]
    fn sync_by_mut(&mut self, by: u32) -> Option<&mut u32> {
        self.runs += by;
        Some(&mut self.runs)
    }

    #[singleton(app = "g", locker = LOCKER)]
    fn sync_by_value(self) -> Option<Vec<String>> {
        if self.runs == 0 {
            return None;
        }
        Some(self.tags)
    }

    #[singleton(app = "h", locker = LOCKER)]
    fn sync_by_mut_value(mut self, by: &mut u32) -> Option<(Self, &mut u32)> {
        self.runs += *by;
        *by += 1;
        Some((self, by))
    }
}

#[tokio::main]
async fn main() {
    let mut job = Job { runs: 1, tags: vec!["x".to_owned()] };
    assert_eq!(job.by_ref().await, Some(1));
    *job.by_mut(2).await.unwrap() += 1;
    assert_eq!(job.sync_by_ref().map(<[String]>::len), Some(1));
    *job.sync_by_mut(1).unwrap() += 1;
    assert_eq!(job.runs, 6);
    let job = job.by_mut_value().await.unwrap();
    let mut by = 1;
    let (job, by) = job.sync_by_mut_value(&mut by).unwrap();
    assert_eq!((job.runs, *by), (8, 2));
    assert_eq!(job.sync_by_value().unwrap(), ["x"]);
    assert_eq!(Job::default().sync_by_value(), None);
    assert_eq!(Job::default().by_value().await, Some(vec![]));
}
