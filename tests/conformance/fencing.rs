//! 2.15: fencing tokens.

use std::collections::HashSet;
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, SystemTime};

use applock::clock::{Clock, ManualClock, Moment, Sleep};
use applock::{AppLocker, Error, MemoryStore};

use crate::asking::{force_release, is_free, take, take_soon, verified};
use crate::children::{Child, Part};
use crate::store::{LONG, Place, RedisPlace, SHORT, SOON};
use crate::support::redis::fence_text;

/// 174
pub(crate) fn tokens_only_grow_however_a_holding_ends(place: &dyn Place) {
    let operator = place.locker().lock("app");
    let mut before = 0;
    for _ in 0..2 {
        let mut grows = |token: u64| {
            assert!(token > before, "{token} after {before}");
            assert!(token < 1 << 53);
            before = token;
        };
        let released = take(&place.locker().lock("app").ttl(LONG));
        grows(released.fencing_token());
        released.release_blocking().unwrap();
        let forced = take(&place.locker().lock("app").ttl(LONG));
        grows(forced.fencing_token());
        force_release(&operator);
        let (frozen, _clock) = place.frozen();
        let expired = take(&frozen.lock("app").ttl(SHORT));
        grows(expired.fencing_token());
        let next = take_soon(&operator);
        grows(next.fencing_token());
        drop(next);
        crate::support::wait::until("it is released", SOON, || is_free(&operator));
    }
}

/// 174, across processes
pub(crate) fn the_token_of_a_later_process_is_larger(place: &dyn Place) {
    let mut before = 0;
    for _ in 0..3 {
        let mut child = Child::start(place, Part::Hold, LONG);
        let token: u64 = child.hear().strip_prefix("held ").unwrap().parse().unwrap();
        assert!(token > before);
        before = token;
        child.say("release");
        child.hears("released");
    }
}

/// 174, where the record of the last token was lost (rule R8)
pub(crate) fn a_token_grows_even_where_the_record_of_the_last_is_gone(place: &dyn Place) {
    let lock = place.locker().lock("app").ttl(LONG);
    let guard = take(&lock);
    let (key, token) = (guard.info().key().to_owned(), guard.fencing_token());
    place.forget(&key);
    place.forget_token(&key);
    let next = take(&place.locker().lock("app").ttl(LONG));
    assert!(next.fencing_token() > token);
}

/// 175
pub(crate) fn a_heartbeat_keeps_the_token_and_an_acquisition_changes_it(place: &dyn Place) {
    let lock = place.locker().lock("app").ttl(LONG);
    let guard = take(&lock);
    let token = guard.fencing_token();
    for _ in 0..5 {
        assert!(verified(&guard));
        assert_eq!(guard.fencing_token(), token);
        let shown = lock.info_blocking().unwrap().unwrap();
        assert_eq!(shown.fencing_token(), Some(token));
    }
    guard.release_blocking().unwrap();
    assert!(take(&lock).fencing_token() > token);
}

/// 176, 182: 200 of the line's 100 000 acquisitions.
pub(crate) fn tokens_are_unique_and_in_the_order_of_the_acquisitions(place: &dyn Place) {
    let history = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..4 {
            let lock = place.locker().lock("app").ttl(LONG);
            let history = &history;
            scope.spawn(move || {
                for _ in 0..50 {
                    let guard = take_soon(&lock);
                    // Inside: what is written here is in the order of the holdings.
                    history.lock().unwrap().push(guard.fencing_token());
                    guard.release_blocking().unwrap();
                }
            });
        }
    });
    let history = history.into_inner().unwrap();
    assert_eq!(history.len(), 200);
    assert!(history.is_sorted_by(|a, b| a < b), "{history:?}");
    assert_eq!(history.iter().collect::<HashSet<_>>().len(), 200);
}

/// 177
pub(crate) fn a_resource_that_keeps_the_largest_token_refuses_an_overtaken_holder(
    place: &dyn Place,
) {
    #[derive(Default)]
    struct Resource {
        newest: (u64, String),
        written: Vec<&'static str>,
    }
    impl Resource {
        fn write(&mut self, token: u64, owner: &str, what: &'static str) -> bool {
            let ours = token == self.newest.0 && owner == self.newest.1;
            if token > self.newest.0 {
                self.newest = (token, owner.to_owned());
            } else if !ours {
                return false;
            }
            self.written.push(what);
            true
        }
    }
    let mut resource = Resource::default();
    let mut write = |guard: &applock::LockGuard, what| {
        resource.write(guard.fencing_token(), guard.info().owner_id(), what)
    };
    let (frozen, _clock) = place.frozen();
    let old = take(&frozen.lock("app").ttl(SHORT));
    assert!(write(&old, "old, in time"));
    let new = take_soon(&place.locker().lock("app").ttl(LONG));
    // By its own clock the old one holds the lock still, and writes.
    assert!(old.is_held());
    assert!(write(&new, "new"));
    assert!(!write(&old, "old, too late"));
    assert!(write(&new, "new, again"));
    let equal = new.fencing_token();
    assert!(!resource.write(equal, old.info().owner_id(), "old, with a stolen token"));
    assert_eq!(resource.written, ["old, in time", "new", "new, again"]);
}

/// A clock whose years are over.
#[derive(Debug)]
struct FarFuture(ManualClock);

impl Clock for FarFuture {
    fn now(&self) -> Moment {
        self.0.now()
    }

    fn sleep_until(&self, at: Moment) -> Sleep {
        self.0.sleep_until(at)
    }

    fn wall(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_micros(1 << 53)
    }
}

#[track_caller]
fn assert_refused(locker: &AppLocker) {
    let lock = locker.lock("app");
    let refused = lock.acquire_blocking();
    assert!(
        matches!(refused, Err(Error::Misconfigured(_))),
        "{refused:?}"
    );
    // And nothing was taken half-way.
    assert!(is_free(&lock));
}

/// 180: A directory's record has a digest of all its fields, so that no test can write one
/// with a token of its own choice; the store's own tests do.
#[test]
fn past_the_largest_token_there_is_an_error_and_no_wrap_in_memory() {
    let store = MemoryStore::with_clock(FarFuture(ManualClock::new()));
    assert_refused(&AppLocker::builder().store(store).build().unwrap());
}

/// 180
#[test]
fn past_the_largest_token_there_is_an_error_and_no_wrap_in_redis() {
    let place = RedisPlace::fresh();
    for last in [
        "9007199254740991",
        "9223372036854775807",
        "1e300",
        "-1",
        "x",
    ] {
        let fence = format!("{{{}app}}:fence", place.prefix());
        place.with(|server| {
            let _: i64 = server.try_run(&["DEL", &fence]).unwrap();
            let () = server.try_run(&["SET", &fence, &fence_text(last)]).unwrap();
        });
        assert_refused(&place.locker());
    }
}
