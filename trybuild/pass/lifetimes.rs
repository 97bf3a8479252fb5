//! Lifetimes, written and elided, shared and mutable.

#![deny(warnings)]

use std::sync::LazyLock;

use applock::{AppLocker, singleton};

static LOCKER: LazyLock<AppLocker> = LazyLock::new(AppLocker::in_memory);

struct Words<'t>(&'t str);

impl<'t> Words<'t> {
    #[singleton(app = "a", locker = LOCKER)]
    fn first(&self) -> Option<&'t str> {
        self.0.split(' ').next()
    }

    #[singleton(app = "b", locker = LOCKER)]
    async fn last(&self) -> Option<&'t str> {
        self.0.split(' ').next_back()
    }
}

#[singleton(app = "c", locker = LOCKER)]
fn longer<'a, 'b: 'a>(one: &'a str, two: &'b str) -> Option<&'a str> {
    Some(if one.len() > two.len() { one } else { two })
}

#[singleton(app = "d", locker = LOCKER)]
async fn place<'a>(items: &'a mut [u32], at: usize) -> Result<&'a mut u32, applock::Error> {
    let place = &mut items[at];
    *place += 1;
    Ok(place)
}

#[singleton(app = "e", locker = LOCKER)]
fn elided(text: &mut String) -> Option<Words<'_>> {
    text.push('!');
    Some(Words(text))
}

#[tokio::main]
async fn main() {
    assert_eq!(Words("a b").first(), Some("a"));
    assert_eq!(Words("a b").last().await, Some("b"));
    assert_eq!(longer("a", "bc"), Some("bc"));
    let mut items = [1, 2];
    *place(&mut items, 1).await.unwrap() += 1;
    assert_eq!(items, [1, 4]);
    assert_eq!(elided(&mut String::new()).unwrap().0, "!");
}
