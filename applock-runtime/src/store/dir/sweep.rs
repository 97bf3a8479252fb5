//! Removing what nobody needs any more: records unused for a week, latches without a
//! record, lines of the dead, and what a crash left half-written. Without it a directory of locks named
//! after days or tenants would grow for ever.
//!
//! A file is removed only under its key's latch, after it was read again there, so
//! an acquisition finds it or does not, but never loses it.

use std::fs::{self, DirEntry};
use std::time::{Duration, Instant, SystemTime};

use super::latch::Latch;
use super::lease::{is_taken, last_use_ms};
use super::names::{Kind, PROBE};
use super::place::Directory;
use super::time::{Now, system_time};

/// How long a released lock's record answers 'who held it last?' and keeps its
/// fencing counter, as on Redis.
const KEPT_FOR: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// A file half-written for so long is nobody's, nor is a line in which nobody moved:
/// who stands in it says so every second.
const ABANDONED: Duration = Duration::from_secs(24 * 60 * 60);

/// Goes through the directory for at most `spend`. Whatever is unclear stays.
pub(super) fn sweep(place: &Directory, now: impl Fn() -> Now, spend: Duration) {
    let began = Instant::now();
    let Ok(entries) = fs::read_dir(place.path()) else {
        return;
    };
    for entry in entries.filter_map(Result::ok) {
        if began.elapsed() >= spend {
            return;
        }
        remove_if_unused(place, &entry, &now);
    }
}

/// `None`: it is none of ours, or somebody is at it.
fn remove_if_unused(place: &Directory, entry: &DirEntry, now: &impl Fn() -> Now) -> Option<bool> {
    let name = entry.file_name();
    let name = name.to_str()?;
    let age = |now: &Now| {
        let written = entry.metadata().ok()?.modified().ok()?;
        system_time(now.wall_ms()).duration_since(written).ok()
    };
    if name.starts_with(PROBE) {
        let old = age(&now())? > ABANDONED;
        return Some(old && fs::remove_file(entry.path()).is_ok());
    }
    let (files, kind) = place.files_named(name)?;
    let limit = match kind {
        Kind::Temporary | Kind::Line => ABANDONED,
        Kind::Record | Kind::Latch => KEPT_FOR,
    };
    // By the file's date first: that costs no latch and no reading.
    if age(&now())? <= limit {
        return Some(false);
    }
    if kind == Kind::Latch && (files.record.exists() || cfg!(not(unix))) {
        return Some(false);
    }
    let _latch = Latch::try_take(place, &files.latch).ok()??;
    let now = now();
    let unused = match kind {
        Kind::Temporary | Kind::Line => age(&now)? > limit,
        // Whoever waits for it finds that it is gone, and makes a new one.
        Kind::Latch => !files.record.exists(),
        Kind::Record => {
            let found = place.read_any(&files).ok()??;
            // Not a copy that somebody made of it under another name.
            let ours = place.files(&found.key) == files;
            ours && !is_taken(&found, &now) && is_before(last_use_ms(&found), limit, &now)
        }
    };
    Some(unused && fs::remove_file(entry.path()).is_ok())
}

fn is_before(used_ms: u64, limit: Duration, now: &Now) -> bool {
    let used: SystemTime = system_time(used_ms);
    system_time(now.wall_ms())
        .duration_since(used)
        .is_ok_and(|age| age > limit)
}

#[cfg(test)]
mod tests {
    use super::super::lease;
    use super::super::patience::Leave;
    use super::super::place::Manner;
    use super::super::record::{Holding, Phase, tests::sample};
    use super::super::tests::scratch;
    use super::super::time;
    use super::*;
    use std::collections::BTreeSet;

    const DAY: Duration = Duration::from_secs(24 * 60 * 60);
    const MINUTE: Duration = Duration::from_secs(60);

    fn later(length: Duration) -> Now {
        let now = time::now();
        Now {
            up_ns: now.up_ns + time::nanos(length),
            wall_us: now.wall_us + time::nanos(length) / 1_000,
            ..now
        }
    }

    fn put(place: &Directory, key: &str, phase: Phase, ttl: Duration) -> String {
        let now = time::now();
        let holding = Holding {
            key: key.into(),
            phase,
            beat_ns: now.up_ns,
            end_ns: now.up_ns + time::nanos(ttl),
            boot: now.boot(),
            ..sample()
        };
        let files = place.files(key);
        let leave = Leave(&|| true);
        place
            .write(&files, &holding, Manner::Whole, &leave)
            .unwrap();
        files
            .record
            .file_name()
            .unwrap()
            .to_str()
            .unwrap()
            .to_owned()
    }

    fn names(place: &Directory) -> BTreeSet<String> {
        let entries = fs::read_dir(place.path()).unwrap();
        entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| !name.ends_with(".latch"))
            .collect()
    }

    #[test]
    fn only_what_was_unused_for_a_week_and_is_ours_goes() {
        let home = scratch();
        let place = Directory::new(home.path());
        let released = Phase::Released {
            wall_ms: time::now().wall_ms(),
        };
        let lately = Phase::Forced {
            wall_ms: later(DAY * 5).wall_ms(),
        };
        put(&place, "released", released, MINUTE);
        put(&place, "expired", Phase::Held, MINUTE);
        put(&place, "kept and over", Phase::Kept, MINUTE);
        let mut stays: BTreeSet<String> = [
            put(&place, "held for long", Phase::Held, DAY * 30),
            put(&place, "kept for long", Phase::Kept, DAY * 30),
            put(&place, "expired lately", Phase::Held, DAY * 5),
            put(&place, "forced lately", lately, MINUTE),
            put(&place, "damaged", released, MINUTE),
        ]
        .into();
        fs::write(place.files("damaged").record, "4711").unwrap();
        for foreign in ["notes.txt", ".hidden", "a.lock", ".x.new", "x.0.lock"] {
            fs::write(home.path().join(foreign), "mine").unwrap();
            stays.insert(foreign.into());
        }
        for left in [
            ".x.0b7e0000000000000000000000000000.new",
            ".x.0b7e0000000000000000000000000000.line",
            ".probe-0b7e",
        ] {
            fs::write(home.path().join(left), "half").unwrap();
        }
        let copy = "x.0b7e0000000000000000000000000000.lock";
        fs::copy(place.files("released").record, home.path().join(copy)).unwrap();
        stays.insert(copy.into());
        let before = names(&place);
        let swept_after = |length| {
            let old = names(&place);
            sweep(&place, || later(length), MINUTE);
            old.len() - names(&place).len()
        };
        assert_eq!(swept_after(Duration::ZERO), 0);
        assert_eq!(swept_after(DAY - MINUTE), 0);
        assert_eq!(names(&place), before);
        assert_eq!(swept_after(DAY + MINUTE), 3);
        assert_eq!(swept_after(DAY * 7 - MINUTE), 0);
        assert_eq!(swept_after(DAY * 8), 3);
        assert_eq!(names(&place), stays);
    }

    #[cfg(unix)]
    #[test]
    fn a_latch_goes_once_it_has_no_record_and_nobody_is_inside() {
        let home = scratch();
        let place = Directory::new(home.path());
        let [held, gone, inside] = ["held", "gone", "inside"].map(|key| place.files(key).latch);
        for latch in [&held, &gone] {
            drop(Latch::try_take(&place, latch).unwrap());
        }
        put(&place, "held", Phase::Held, DAY * 30);
        let taken = Latch::try_take(&place, &inside).unwrap();
        sweep(&place, || later(DAY * 7 - MINUTE), MINUTE);
        assert!(gone.exists());
        sweep(&place, || later(DAY * 8), MINUTE);
        assert_eq!(
            [&held, &gone, &inside].map(|latch| latch.exists()),
            [true, false, true]
        );
        drop(taken);
    }

    #[test]
    fn a_wall_clock_that_jumps_ahead_sweeps_no_lock_that_is_held() {
        let home = scratch();
        let place = Directory::new(home.path());
        put(&place, "held", Phase::Held, MINUTE);
        let jumped = || Now {
            wall_us: later(DAY * 30).wall_us,
            ..time::now()
        };
        sweep(&place, jumped, MINUTE);
        assert_eq!(names(&place).len(), 1);
        sweep(&place, || later(DAY * 30), MINUTE);
        assert!(names(&place).is_empty());
    }

    #[test]
    fn a_sweep_waits_for_nobody_and_keeps_to_its_time() {
        let home = scratch();
        let place = Directory::new(home.path());
        put(&place, "old", Phase::Held, MINUTE);
        let latch = Latch::try_take(&place, &place.files("old").latch).unwrap();
        sweep(&place, || later(DAY * 8), MINUTE);
        drop(latch);
        sweep(&place, || later(DAY * 8), Duration::ZERO);
        assert_eq!(names(&place).len(), 1);
        sweep(&place, || later(DAY * 8), MINUTE);
        assert!(names(&place).is_empty());
        drop(home);
        sweep(&place, || later(DAY * 8), MINUTE);
    }

    #[test]
    fn a_lock_taken_between_the_look_and_the_latch_is_not_swept() {
        let home = scratch();
        let place = Directory::new(home.path());
        put(&place, "old", Phase::Held, MINUTE);
        let entry = fs::read_dir(home.path()).unwrap().next().unwrap().unwrap();
        // The first question is the date of the file; then somebody takes the lock.
        let asked = std::cell::Cell::new(0);
        let removed = remove_if_unused(&place, &entry, &|| {
            asked.set(asked.get() + 1);
            if asked.get() == 1 {
                put(&place, "old", Phase::Held, DAY * 30);
            }
            later(DAY * 8)
        });
        assert_eq!((removed, asked.get()), (Some(false), 2));
        let found = place.read(&place.files("old"), "old").unwrap().unwrap();
        assert!(lease::is_taken(&found, &later(DAY * 8)));
    }
}
