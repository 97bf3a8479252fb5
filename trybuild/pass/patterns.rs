//! Patterns and `mut` in arguments.

#![deny(warnings)]

use std::sync::LazyLock;

use applock::{AppLocker, singleton};

static LOCKER: LazyLock<AppLocker> = LazyLock::new(AppLocker::in_memory);

struct Pair {
    one: u32,
    two: String,
}
struct Wrapper(u32);
struct Marker;

#[singleton(app = "a", name = "{one}-{inner}-{tail}", locker = LOCKER)]
async fn patterns(
    Pair { one, two: mut renamed }: Pair,
    Wrapper(inner): Wrapper,
    (mut head, [_, tail, ..]): (u32, [u8; 4]),
    &by_ref: &u32,
    whole @ (_, _): (u8, u8),
    Marker: Marker,
    _: Vec<u8>,
    _ignored: Vec<u8>,
    mut last: Vec<u8>,
) -> Option<String> {
    renamed.push('x');
    head += 1;
    last.push(whole.0);
    tokio::task::yield_now().await;
    Some(format!("{one} {renamed} {inner} {head} {tail} {by_ref} {}", last.len()))
}

#[singleton(app = "b", locker = LOCKER)]
fn sync_patterns(
    Pair { one, two: mut renamed }: Pair,
    ref shared: String,
    ref mut changed: Vec<u8>,
    (Ok(either) | Err(either)): Result<u32, u32>,
    _: Vec<u8>,
    mut last: Vec<u8>,
) -> Option<String> {
    renamed.push('y');
    changed.push(1);
    last.clear();
    Some(format!("{one} {renamed} {shared} {} {either} {}", changed.len(), last.len()))
}

#[singleton(app = "c", name = "{type}", locker = LOCKER)]
fn raw_identifier(r#type: u32) -> Option<u32> {
    Some(r#type)
}

#[tokio::main]
async fn main() {
    let pair = || Pair { one: 1, two: String::new() };
    let text = patterns(
        pair(), Wrapper(2), (3, [0, 4, 0, 0]), &5, (6, 6), Marker, vec![], vec![], vec![],
    );
    assert_eq!(text.await.unwrap(), "1 x 2 4 4 5 1");
    let text = sync_patterns(pair(), "s".to_owned(), vec![], Err(3), vec![], vec![1]);
    assert_eq!(text.unwrap(), "1 y s 1 3 0");
    assert_eq!(raw_identifier(1), Some(1));
}
