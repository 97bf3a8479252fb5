//! Type parameters with bounds and a where clause, one of them the error.

#![deny(warnings)]

use std::sync::LazyLock;

use applock::{AppLocker, singleton};

static LOCKER: LazyLock<AppLocker> = LazyLock::new(AppLocker::in_memory);

use std::fmt::Display;

#[singleton(app = "a", name = "{item}", locker = LOCKER)]
async fn show<T: Display + Send>(item: T) -> Option<String> {
    Some(item.to_string())
}

#[singleton(app = "b", locker = LOCKER)]
fn largest<T, I>(items: I) -> Result<Option<T>, applock::Error>
where
    T: Ord,
    I: IntoIterator<Item = T>,
{
    Ok(items.into_iter().max())
}

#[singleton(app = "c", locker = LOCKER)]
fn generic_error<T, E: From<applock::Error>>(item: Result<T, E>) -> Result<T, E> {
    let item = item?;
    Ok(item)
}

#[tokio::main]
async fn main() {
    assert_eq!(show(5).await.unwrap(), "5");
    assert_eq!(largest([3, 1]).unwrap(), Some(3));
    assert_eq!(generic_error::<_, applock::Error>(Ok(1)).unwrap(), 1);
}
