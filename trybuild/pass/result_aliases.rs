//! `Result` under its aliases, and `?` in the body.

#![deny(warnings)]

use std::sync::LazyLock;

use applock::{AppLocker, singleton};

static LOCKER: LazyLock<AppLocker> = LazyLock::new(AppLocker::in_memory);

use std::io::Read as _;

type Mine<T = (), E = applock::Error> = Result<T, E>;

#[singleton(app = "a", locker = LOCKER)]
async fn any(text: &str) -> anyhow::Result<u32> {
    let number: u32 = text.parse()?;
    anyhow::ensure!(number < 10, "too large");
    Ok(number)
}

#[singleton(app = "b", locker = LOCKER)]
fn io(mut from: &[u8]) -> std::io::Result<String> {
    let mut text = String::new();
    from.read_to_string(&mut text)?;
    Ok(text)
}

#[singleton(app = "c", locker = LOCKER)]
async fn mine() -> Mine {
    Ok(())
}

#[singleton(app = "d", locker = LOCKER)]
fn ours() -> applock::Result<u8> {
    Ok(1)
}

#[singleton(app = "e", locker = LOCKER)]
async fn boxed(text: String) -> Result<f64, Box<dyn std::error::Error + Send + Sync>> {
    Ok(text.parse()?)
}

#[tokio::main]
async fn main() {
    assert_eq!(any("3").await.unwrap(), 3);
    assert!(any("x").await.is_err());
    assert!(any("11").await.is_err());
    assert_eq!(io(b"x").unwrap(), "x");
    mine().await.unwrap();
    assert_eq!(ours().unwrap(), 1);
    assert!((boxed("1.5".to_owned()).await.unwrap() - 1.5).abs() < 0.1);
}
