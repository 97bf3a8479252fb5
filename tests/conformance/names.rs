//! 2.13: names and keys.

use std::collections::HashSet;

use applock::{AppLocker, Error};

use crate::asking::{is_busy, is_free, take, verified};
use crate::children::{Child, Part};
use crate::store::{LONG, Place, RedisPlace};
use crate::support::redis::RedisServer;

/// 154, 155
pub(crate) fn strange_names_are_locks_of_their_own(place: &dyn Place) {
    let long = "k".repeat(1_000);
    let longer = "k".repeat(1_001);
    let longest = "k".repeat(65_535);
    let nearly = format!("{}j", &longest[1..]);
    let names: Vec<&str> = vec![
        "a", "A", "a ", " a", "a.", "a..", ".", "..", "...", "a\n", "a\r\n", "a\t", "\0", "a\0",
        "a\0b", "/", "//", "///", "a/b", "a_b", "../a", "\\", "a\\b", "%", "%2F", "a%00", "*", "?",
        "[a]", "{", "}", "{}", "{a}", "a:b", "a::b", ":", "CON", "NUL", "nul", "-", "--help", "ä",
        "a\u{308}", "ı", "İ", "i", "I", "ß", "ẞ", "ss", "日本", "🦀", "\u{feff}", "\u{200b}", "'",
        "\"", "$a", "`a`", " ", "  ", &long, &longer, &longest, &nearly,
    ];
    assert_eq!(names.iter().collect::<HashSet<_>>().len(), names.len());
    let (ours, others) = (place.locker(), place.locker());
    let guards: Vec<_> = names
        .iter()
        .map(|name| take(&ours.lock("app").name(*name).ttl(LONG)))
        .collect();
    let keys: HashSet<_> = guards.iter().map(|g| g.info().key().to_owned()).collect();
    assert_eq!(keys.len(), names.len());
    for (name, guard) in names.iter().zip(&guards) {
        let lock = others.lock("app").name(*name);
        let shown = lock.info_blocking().unwrap().expect("held");
        assert_eq!(shown.fencing_token(), Some(guard.fencing_token()));
        assert_eq!(shown.name(), Some(*name));
        assert!(is_busy(&lock));
    }
    for (name, guard) in names.iter().zip(guards) {
        guard.release_blocking().unwrap();
        assert!(is_free(&others.lock("app").name(*name)), "{name:?}");
    }
}

/// 154
pub(crate) fn an_empty_name_is_refused(place: &dyn Place) {
    let locker = place.locker();
    for lock in [
        locker.lock(""),
        locker.lock("app").name(""),
        locker.lock("app").key(""),
    ] {
        let refused = lock.acquire_blocking();
        assert!(matches!(refused, Err(Error::Invalid(_))), "{refused:?}");
        assert!(matches!(lock.info_blocking(), Err(Error::Invalid(_))));
        assert!(lock.force_release_blocking().is_err());
    }
}

/// 156
pub(crate) fn a_name_that_is_too_long_is_refused_and_never_cut_short(place: &dyn Place) {
    let locker = place.locker();
    let fits = "x".repeat(65_535);
    let _guard = take(&locker.lock("app").name(&fits).ttl(LONG));
    for lock in [
        locker.lock("app").name(format!("{fits}x")),
        locker.lock(format!("{fits}x")),
        locker.lock("app").key(format!("{fits}x")),
    ] {
        let refused = lock.acquire_blocking();
        assert!(matches!(refused, Err(Error::Invalid(_))), "{refused:?}");
        let text = refused.unwrap_err().to_string();
        assert!(text.len() < 1_000 && text.contains("65535"), "{text}");
    }
}

/// 157
pub(crate) fn a_prefix_keeps_locks_apart_and_is_a_part_of_the_key(place: &dyn Place) {
    let at = |prefix: &str| -> AppLocker {
        let prefix = format!("{}{prefix}", place.prefix());
        place.builder().key_prefix(prefix).build().unwrap()
    };
    let (staging, live) = (at("staging:"), at("live:"));
    let guard = take(&staging.lock("app").ttl(LONG));
    take(&live.lock("app").ttl(LONG))
        .release_blocking()
        .unwrap();
    let key = format!("{}staging:app", place.prefix());
    assert_eq!(guard.info().key(), key);
    // The whole key is the same lock, whatever the prefix of the locker.
    assert!(is_busy(&live.lock("other").key(key)));
    assert!(is_free(&live.lock("app")));
}

/// 158
pub(crate) fn names_made_of_parts_never_collide(place: &dyn Place) {
    let locker = place.locker();
    let pairs = [
        ("a", Some("bc")),
        ("ab", Some("c")),
        ("abc", None),
        ("a:bc", None),
        ("a", Some("b:c")),
        ("a:b", Some("c")),
        ("a%3Ab", Some("c")),
        ("a", Some("b%3Ac")),
        ("a", None),
        ("a:", None),
        ("a", Some(":")),
        ("a", Some("1")),
        ("a", Some("01")),
        ("a", Some("1.0")),
    ];
    let guards: Vec<_> = pairs
        .iter()
        .map(|(app, name)| {
            let lock = locker.lock(*app).ttl(LONG);
            take(&match name {
                Some(name) => lock.name(*name),
                None => lock,
            })
        })
        .collect();
    // And the same parts are the same lock.
    assert!(is_busy(&place.locker().lock("a").name("b:c")));
    drop(guards);
}

/// 159: Keys are how versions of this library, and other languages, know the same lock:
/// this list may grow, and nothing in it may change.
pub(crate) fn keys_stay_as_they_are_from_version_to_version(place: &dyn Place) {
    let golden = include_str!("keys.golden");
    let mut lines = 0;
    // No server's prefix here: the keys as users have them.
    let locker = place.builder().key_prefix("QUEUE:").build().unwrap();
    let unquoted = |text: &str| text.replace("\\n", "\n").replace("\\0", "\0");
    for line in golden.lines().filter(|line| !line.starts_with('#')) {
        let fields: Vec<&str> = line.split('|').collect();
        let [app, name, key] = fields[..] else {
            panic!("{line}");
        };
        let lock = locker.lock(unquoted(app));
        let lock = match name {
            "-" => lock,
            name => lock.name(unquoted(name)),
        };
        assert_eq!(take(&lock).info().key(), key, "{line}");
        lines += 1;
    }
    assert!(lines >= 10);
}

/// 160
pub(crate) fn the_locale_does_not_change_a_name(place: &dyn Place) {
    let turkish = [("LC_ALL", "tr_TR.UTF-8"), ("LANG", "tr_TR.UTF-8")];
    let mut child = Child::start_with(place, Part::HoldTitle, LONG, &turkish);
    assert!(child.hear().starts_with("held "));
    let locker = place.locker();
    assert!(is_busy(&locker.lock("app").name("TITLE iıIİ")));
    assert!(is_free(&locker.lock("app").name("title iıIİ")));
    assert!(is_free(&locker.lock("app").name("TITLE iıİI")));
}

/// 161
#[test]
fn a_lock_and_its_fencing_counter_are_of_one_hash_slot() {
    let cluster = RedisServer::with(&["--cluster-enabled", "yes"]);
    let slot = |key: &String| -> u16 { cluster.try_run(&["CLUSTER", "KEYSLOT", key]).unwrap() };
    let names = [
        "{", "}", "{}", "{a}", "a{b}c", "}{", "{{a}}", "{a}{b}", "{a",
    ];
    let tagged = ["{a}", "a{b}c", "{{a}}", "{a}{b}", "a{b}{"];
    let of_names = names.map(|name| (name, false));
    let of_keys = tagged.map(|key| (key, true));
    for (text, is_key) in of_names.into_iter().chain(of_keys) {
        let place = RedisPlace::fresh();
        let lock = place.locker().lock(text).name(text);
        let lock = match is_key {
            true => lock.key(format!("{}{text}", place.prefix())),
            false => lock,
        };
        let _guard = take(&lock.ttl(LONG));
        let keys = place.keys();
        let slots: HashSet<u16> = keys.iter().map(slot).collect();
        assert_eq!((keys.len(), slots.len()), (2, 1), "{keys:?}");
    }
}

/// 163
pub(crate) fn the_keys_of_fencing_counters_are_no_locks(place: &dyn Place) {
    let locker = place.locker();
    let guard = take(&locker.lock("app").ttl(LONG));
    let key = guard.info().key().to_owned();
    for side in [format!("{{{key}}}:fence"), format!("fence:{{{key}}}")] {
        let refused = locker.lock("app").key(side).acquire_blocking();
        assert!(matches!(refused, Err(Error::Invalid(_))), "{refused:?}");
    }
    assert!(verified(&guard));
}
