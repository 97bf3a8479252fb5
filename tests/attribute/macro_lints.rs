//! Generated code raises no lint. The compiler checks this file in every build, and
//! `cargo clippy --all-targets` with all of clippy's opinions; that what a user wrote
//! is still linted is for `trybuild/fail/lints_unused.rs`.

#![deny(warnings, clippy::all, clippy::pedantic)]
#![deny(
    let_underscore_drop,
    missing_docs,
    single_use_lifetimes,
    trivial_casts,
    trivial_numeric_casts,
    unreachable_pub,
    unused_import_braces,
    unused_lifetimes,
    unused_qualifications,
    unused_results,
    variant_size_differences,
    clippy::shadow_reuse,
    clippy::shadow_same,
    clippy::shadow_unrelated,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::missing_const_for_fn,
    clippy::option_if_let_else,
    clippy::redundant_clone,
    clippy::use_self,
    clippy::let_underscore_must_use,
    clippy::let_underscore_untyped,
    clippy::pattern_type_mismatch
)]
#![forbid(unsafe_code)]

use std::borrow::Cow;
use std::fmt::Display;
use std::future::pending;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, SystemTime};

use applock::{AppLocker, Error, singleton};

static LOCKER: LazyLock<AppLocker> = LazyLock::new(AppLocker::in_memory);

#[singleton(app = "a", locker = LOCKER)]
async fn unit() {
    tokio::task::yield_now().await;
}

#[singleton(app = "a", locker = LOCKER)]
async fn unit_argument(nothing: ()) {
    tokio::task::yield_now().await;
    assert_eq!(nothing, ());
}

#[singleton(app = "a", locker = LOCKER)]
fn unit_sync() {}

#[singleton(app = "b", locker = LOCKER)]
async fn never() {
    loop {
        pending::<()>().await;
    }
}

#[singleton(app = "b", locker = LOCKER, on_busy = std::process::exit(0))]
fn never_sync() -> ! {
    std::process::exit(1)
}

#[singleton(app = "b", locker = LOCKER, on_busy = std::process::abort())]
async fn never_async() -> ! {
    loop {
        unit().await;
    }
}

#[singleton(app = "b", locker = LOCKER)]
fn ends_the_process(really: bool) {
    if !really {
        return;
    }
    std::process::exit(1)
}

#[singleton(app = "c", locker = LOCKER)]
fn every_way_returns(n: u32) -> Option<u32> {
    if n == 0 {
        return None;
    }
    match n {
        1 => return Some(2),
        _ => return Some(3),
    }
}

#[singleton(app = "d", name = "{tenant}", locker = LOCKER, guard = guard)]
async fn arguments(
    tenant: u32,
    mut items: Vec<u8>,
    _unused: String,
    _: u8,
    (left, mut right): (u8, u8),
) -> Result<usize, Error> {
    guard.ensure_held()?;
    right += left;
    items.push(right);
    unit().await;
    Ok(items.len())
}

#[singleton(app = "d", name = "{tenant}", locker = &*LOCKER, guard = _guard)]
fn arguments_sync(
    tenant: u32,
    mut items: Vec<u8>,
    _unused: String,
    _: u8,
    (left, mut right): (u8, u8),
    nothing: (),
) -> Result<usize, Error> {
    right += left;
    items.push(right);
    assert_eq!(nothing, ());
    Ok(items.len())
}

#[singleton(
    app = "e",
    name = "{text}",
    ttl = Duration::from_secs(u64::from(seconds)),
    wait = Duration::from_millis(1),
    at_least = 0,
    at_most = { Duration::from_secs(60) },
    locker = locker,
    on_busy = seconds + 1,
    on_lost = finish
)]
async fn expressions(text: &str, seconds: u32, locker: &AppLocker) -> u32 {
    unit().await;
    seconds
}

#[singleton(app = "f", locker = LOCKER, on_busy = skip)]
fn skip() -> Result<(), std::num::ParseIntError> {
    let number: i32 = "1".parse()?;
    assert_eq!(number, 1);
    Ok(())
}

#[singleton(app = "f", locker = LOCKER, on_busy = error)]
async fn error() -> Result<(), Error> {
    unit().await;
    Ok(())
}

#[singleton(app = "f", locker = LOCKER, on_busy = return Ok(1))]
async fn diverging_value() -> Result<u32, Error> {
    unit().await;
    Ok(2)
}

#[singleton(app = "g", locker = LOCKER, on_busy = Vec::new().into_iter())]
fn opaque<T: Display>(items: Vec<T>) -> impl Iterator<Item = T> {
    items.into_iter()
}

#[singleton(app = "g", locker = LOCKER)]
async fn generic<'a, T, const N: usize>(items: &'a mut [T; N], with: T) -> Option<&'a mut T>
where
    T: Clone + Send,
{
    unit().await;
    items.fill(with);
    items.first_mut()
}

#[singleton(app = "j", name = "{N}-{with}", every = "1h", retry = failed, wait = forever, at_least = "100ms", at_most = "1h", on_busy = skip, locker = LOCKER)]
fn each_hour<T: Display + Clone, const N: usize>(
    items: &mut Vec<T>,
    with: T,
) -> anyhow::Result<()> {
    items.extend(std::iter::repeat_n(with, N));
    Ok(())
}

#[singleton(app = "j", name = "number", tick = u64::from(*number) + 1, on_busy = false, locker = LOCKER)]
async fn by_number(number: &u32) -> bool {
    unit().await;
    *number > 0
}

#[singleton(app = "j", name = "time", tick = at.0, wait = "1s", at_least = "100ms", locker = LOCKER)]
async fn by_time(at: (SystemTime, u8)) -> Option<u8> {
    unit().await;
    Some(at.1)
}

/// Left early in each way, with what a closure around it would make hard.
#[singleton(app = "k", name = "{label}", locker = LOCKER)]
fn leaves<'a, T, const N: usize>(
    items: &'a mut [T; N],
    (mut at, label): (usize, &str),
    with: Option<T>,
) -> anyhow::Result<&'a mut T>
where
    T: Clone + Display,
{
    let Some(new) = with else {
        anyhow::bail!("nothing, {label}");
    };
    let found = 'search: {
        for (place, item) in items.iter().enumerate().skip(at) {
            anyhow::ensure!(!item.to_string().is_empty(), "an empty one");
            if place > 0 && at < 9 {
                break 'search place;
            }
            at += 1;
        }
        return items.first_mut().ok_or_else(|| anyhow::anyhow!("none"));
    };
    let item = items
        .get_mut(found)
        .ok_or_else(|| anyhow::anyhow!("gone"))?;
    *item = new;
    Ok(item)
}

#[singleton(app = "k", locker = LOCKER)]
fn leaves_opaque(text: &[u8]) -> anyhow::Result<impl Iterator<Item = char>> {
    let read = std::str::from_utf8(text)?;
    Ok(read.chars().rev())
}

struct Job {
    name: String,
}

impl Job {
    #[singleton(app = "k", locker = LOCKER)]
    fn leaves(&mut self, text: Vec<u8>) -> anyhow::Result<&mut String> {
        self.name = String::from_utf8(text)?;
        self.name.push('!');
        Ok(&mut self.name)
    }

    #[singleton(app = "k", locker = LOCKER)]
    fn leaves_by_ref(&self, text: &[u8]) -> anyhow::Result<Cow<'_, str>> {
        if text.is_empty() {
            return Ok(Cow::Borrowed(&self.name));
        }
        Ok(Cow::Owned(std::str::from_utf8(text)?.to_owned()))
    }

    #[singleton(app = "h", locker = LOCKER)]
    async fn by_ref(&self) -> Option<&str> {
        unit().await;
        Some(&self.name)
    }

    #[singleton(app = "h", locker = LOCKER)]
    fn by_mut(&mut self) -> Option<&mut String> {
        self.name.push('x');
        Some(&mut self.name)
    }

    #[singleton(app = "h", locker = LOCKER)]
    async fn owned(mut self) -> Option<Self> {
        unit().await;
        self.name.push('x');
        Some(self)
    }

    #[singleton(app = "h", locker = LOCKER)]
    fn owned_sync(mut self, with: &mut u32) -> Option<(Self, &mut u32)> {
        self.name.push('x');
        *with += 1;
        Some((self, with))
    }

    #[singleton(app = "h", locker = LOCKER)]
    fn owned_unit(self) {
        drop(self.name);
    }

    #[singleton(app = "h", locker = LOCKER)]
    async fn shared(self: Arc<Self>) -> Result<(), Error> {
        unit().await;
        drop(self);
        Ok(())
    }
}

#[async_trait::async_trait]
trait Work {
    async fn work(&self, items: Vec<u8>) -> Result<usize, Error>;
}

#[async_trait::async_trait]
impl Work for Job {
    #[singleton(app = "i", locker = LOCKER, guard = guard)]
    async fn work(&self, items: Vec<u8>) -> Result<usize, Error> {
        guard.ensure_held()?;
        unit().await;
        Ok(items.len())
    }
}

#[tokio::test]
async fn all_of_it_runs_too() -> Result<(), Error> {
    unit().await;
    unit_argument(()).await;
    unit_sync();
    ends_the_process(false);
    let leader: fn() -> ! = never_sync;
    drop((never(), never_async(), leader));
    assert_eq!(every_way_returns(1), Some(2));
    let pair = (1, 2);
    assert_eq!(arguments(1, vec![], String::new(), 0, pair).await?, 1);
    assert_eq!(arguments_sync(1, vec![], String::new(), 0, pair, ())?, 1);
    assert_eq!(expressions("x", 5, &LOCKER).await, 5);
    assert_eq!(skip(), Ok(()));
    error().await?;
    assert_eq!(diverging_value().await?, 2);
    assert_eq!(opaque(vec![1]).count(), 1);
    let mut items = vec!["a"];
    for _ in 0..2 {
        assert!(each_hour::<_, 2>(&mut items, "b").is_ok());
    }
    assert_eq!(items, ["a", "b", "b"]);
    assert_eq!(
        (
            by_number(&1).await,
            by_number(&1).await,
            by_number(&2).await
        ),
        (true, false, true)
    );
    assert_eq!(by_time((SystemTime::UNIX_EPOCH, 7)).await, Some(7));
    assert_eq!(by_time((SystemTime::UNIX_EPOCH, 7)).await, None);
    let mut numbers = [1, 2];
    assert!(leaves(&mut numbers, (0, "none"), None).is_err());
    assert_eq!(
        leaves(&mut numbers, (0, "second"), Some(5)).ok(),
        Some(&mut 5)
    );
    assert_eq!(
        leaves(&mut numbers, (2, "first"), Some(6)).ok(),
        Some(&mut 1)
    );
    assert_eq!(
        leaves_opaque(b"ab").map(Iterator::collect).ok(),
        Some("ba".to_owned())
    );
    assert!(leaves_opaque(b"\xff").is_err());
    assert_eq!(generic(&mut [1, 2], 3).await, Some(&mut 3));
    let mut job = Job {
        name: "x".to_owned(),
    };
    assert_eq!(job.by_ref().await, Some("x"));
    assert!(job.leaves(vec![255]).is_err());
    assert_eq!(job.leaves_by_ref(b"").ok().as_deref(), Some("x"));
    assert_eq!(
        job.leaves(b"y".to_vec()).ok().map(|name| name.len()),
        Some(2)
    );
    job.name.truncate(1);
    assert_eq!(job.by_mut().map(|name| name.len()), Some(2));
    assert_eq!(job.work(vec![1]).await?, 1);
    let mut number = 1;
    let owned = job.owned().await;
    if let Some((twice, _)) = owned.and_then(|once| once.owned_sync(&mut number)) {
        assert_eq!(twice.name.len(), 4);
        twice.owned_unit();
    }
    Arc::new(Job {
        name: String::new(),
    })
    .shared()
    .await
}
