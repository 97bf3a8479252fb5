//! What the attribute costs a caller: a few bytes of its future, and nothing of its
//! `Send`.

use std::cell::Cell;
use std::mem::size_of_val;
use std::rc::Rc;

use applock::{Error, singleton};

/// How much larger an annotated future may be (issue 2).
const MOST: usize = 300;

macro_rules! both {
    ($($(#[$attribute:meta])* async fn $name:ident $arguments:tt $(-> $out:ty)? $body:block)*) => {
        mod plain {
            use super::*;
            $(pub(super) async fn $name $arguments $(-> $out)? $body)*
        }
        mod annotated {
            use super::*;
            $($(#[$attribute])* pub(super) async fn $name $arguments $(-> $out)? $body)*
        }
    };
}

async fn step(n: u8) -> Result<u8, Error> {
    tokio::task::yield_now().await;
    Ok(n)
}

both! {
    #[singleton(app = "a")]
    async fn unit() {}

    #[singleton(app = "a", ttl = 60, wait = "10s", at_least = "1s", at_most = "1h")]
    async fn waits() -> Result<u8, Error> {
        step(1).await?;
        step(2).await
    }

    #[singleton(app = "a", name = "{tenant}-{text}")]
    async fn arguments(tenant: u64, text: String, mut items: Vec<u8>) -> Result<u8, Error> {
        items.push(step(1).await?);
        step(text.len() as u8).await?;
        let _ = tenant;
        Ok(items[0])
    }

    #[singleton(app = "a", on_busy = Ok(0))]
    async fn large_body(at: usize) -> Result<u8, Error> {
        let buffer = [1_u8; 4096];
        step(buffer[0]).await?;
        Ok(buffer[at])
    }

    #[singleton(app = "a", on_busy = [0; 64], on_lost = finish)]
    async fn large_value() -> [u64; 64] {
        let _ = step(1).await;
        [1; 64]
    }
}

#[test]
fn an_annotated_future_is_at_most_300_bytes_larger() {
    let sizes = [
        (
            "unit",
            size_of_val(&plain::unit()),
            size_of_val(&annotated::unit()),
        ),
        (
            "waits",
            size_of_val(&plain::waits()),
            size_of_val(&annotated::waits()),
        ),
        (
            "arguments",
            size_of_val(&plain::arguments(1, String::new(), vec![])),
            size_of_val(&annotated::arguments(1, String::new(), vec![])),
        ),
        (
            "large_body",
            size_of_val(&plain::large_body(1)),
            size_of_val(&annotated::large_body(1)),
        ),
        (
            "large_value",
            size_of_val(&plain::large_value()),
            size_of_val(&annotated::large_value()),
        ),
    ];
    for (shape, plain, annotated) in sizes {
        let more = annotated.saturating_sub(plain);
        println!("{shape}: {plain} bytes, annotated {annotated} ({more} more)");
        assert!(more <= MOST, "{shape}: {more} bytes more");
    }
}

#[singleton(app = "a", name = "{text}", guard = held, on_busy = error)]
async fn sends(text: String, items: &[u8]) -> Result<usize, Error> {
    held.ensure_held()?;
    step(1).await?;
    Ok(text.len() + items.len())
}

#[test]
fn the_future_is_send_when_the_body_is() {
    fn is_send<T: Send>(_: &T) {}
    is_send(&sends(String::new(), &[]));
    is_send(&annotated::arguments(1, String::new(), vec![]));
    is_send(&annotated::large_body(1));
}

#[singleton(app = "not-send", locker = applock::AppLocker::in_memory())]
async fn stays(count: Rc<Cell<u32>>) -> Result<u32, Error> {
    step(1).await?;
    count.set(count.get() + 1);
    Ok(count.get())
}

#[tokio::test]
async fn a_body_that_is_not_send_runs_too() {
    assert_eq!(stays(Rc::new(Cell::new(1))).await.unwrap(), 2);
}
