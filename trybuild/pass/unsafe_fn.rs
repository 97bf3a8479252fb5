//! `unsafe fn`, async and not, and with an owned `self`.

#![deny(warnings)]
#![allow(unsafe_op_in_unsafe_fn)]

use std::sync::LazyLock;

use applock::{AppLocker, singleton};

static LOCKER: LazyLock<AppLocker> = LazyLock::new(AppLocker::in_memory);


#[singleton(app = "a", locker = LOCKER)]
unsafe fn raw() -> Option<u32> {
    dangerous();
    Some(1)
}

#[singleton(app = "b", locker = LOCKER)]
async unsafe fn raw_async() -> Option<u32> {
    dangerous();
    Some(1)
}

#[singleton(app = "d", locker = LOCKER)]
unsafe fn raw_early(text: &str) -> Result<u32, anyhow::Error> {
    dangerous();
    Ok(text.parse::<u32>()?)
}

unsafe fn dangerous() {}

struct Job;

impl Job {
    #[singleton(app = "c", locker = LOCKER)]
    unsafe fn raw(self) -> Option<Self> {
        dangerous();
        Some(self)
    }
}

#[tokio::main]
async fn main() {
    assert_eq!(unsafe { raw() }, Some(1));
    assert_eq!(unsafe { raw_async() }.await, Some(1));
    assert_eq!(unsafe { raw_early("7") }.unwrap(), 7);
    assert!(unsafe { Job.raw() }.is_some());
}
