//! Promise: two different lists of captured values never share one lock.

use std::collections::HashSet;

use applock::{AppLocker, singleton};

fn key() -> String {
    applock::current().unwrap().info().key().to_owned()
}

#[singleton(app = "a", name = "{region}:{id}", locker = locker)]
async fn pair(locker: &AppLocker, region: &str, id: &str) -> Option<String> {
    Some(key())
}

#[singleton(key = "{{tag}}{region:?}-{id:>2}/{day}", locker = locker)]
fn whole(locker: &AppLocker, region: &str, id: &str, day: u8) -> Option<String> {
    Some(key())
}

#[singleton(app = "a", name = "t-{tenant}", locker = locker)]
fn alone(locker: &AppLocker, tenant: &str) -> Option<String> {
    Some(key())
}

#[tokio::test]
async fn values_that_hold_what_stands_between_them_make_locks_of_their_own() {
    let locker = AppLocker::in_memory();
    let values = [
        "eu",
        "eu:west",
        "west:1",
        "1",
        "",
        "eu%3Awest",
        ":",
        "%",
        "-",
        "/",
        "1/1",
        "-1",
    ];
    let (mut pairs, mut wholes) = (HashSet::new(), HashSet::new());
    for region in values {
        for id in values {
            pairs.insert(pair(&locker, region, id).await.unwrap());
            wholes.insert(whole(&locker, region, id, 1).unwrap());
        }
    }
    assert_eq!(pairs.len(), values.len() * values.len(), "{pairs:?}");
    assert_eq!(wholes.len(), values.len() * values.len(), "{wholes:?}");
    // What holds nothing of the kind is as it is.
    assert_eq!(pair(&locker, "eu", "1").await.unwrap(), "QUEUE:a:eu:1");
    assert_eq!(whole(&locker, "eu", "1", 2).unwrap(), "{tag}\"eu\"- 1/2");
    assert_eq!(alone(&locker, "eu:west-1").unwrap(), "QUEUE:a:t-eu:west-1");
}
