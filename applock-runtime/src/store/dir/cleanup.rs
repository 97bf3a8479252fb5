//! Removing files that are out of use: records that need not be remembered, lock files without one,
//! queues in which no waiter polls, and what a crash left half-written. Without it a directory of
//! locks named after days or tenants would grow for ever.
//!
//! A file is removed only under its key's lock file, after it was read again there, so
//! an acquisition finds it or does not, but never loses it.
//!
//! A cleanup has little time, and a directory may have more files than can be looked at in it. So
//! the next one goes on where the last one has stopped, and the first one of a process begins
//! anywhere: otherwise the files at one end would be looked at again and again, and those at the
//! other end never removed.

use std::fs::{self, DirEntry, ReadDir};
use std::time::{Duration, Instant, SystemTime};

use super::boot_clock::{BootTime, system_time};
use super::codec::{RecordFile, store_time, up_ns};
use super::directory::Directory;
use super::file_names::{Files, Kind, PROBE};
use super::lock_file::LockFile;
use crate::protocol::Phase;

/// A record is looked into when it is so old; so none is removed sooner, however short it is to be
/// remembered.
const KEPT_FOR: Duration = Duration::from_secs(60 * 60);

/// A file half-written for so long was left by a crash, and the waiters of a queue that did not
/// change for so long are dead: a process polls every second.
const ABANDONED: Duration = Duration::from_secs(24 * 60 * 60);

/// The cleanups of one process.
#[derive(Debug, Default)]
pub(super) struct Cleanup {
    has_run: bool,
    /// The files that the last one did not get to.
    rest: Option<ReadDir>,
}

impl Cleanup {
    /// Goes through the directory for at most `spend`. Whatever is unclear stays.
    pub(super) fn run(
        &mut self,
        directory: &Directory,
        now: impl Fn() -> BootTime,
        spend: Duration,
    ) {
        let began = Instant::now();
        // To read a name takes a tenth of what it takes to look at its file.
        let skipping = match self.has_run {
            true => Duration::ZERO,
            false => spend.mul_f64(fastrand::f64()),
        };
        self.has_run = true;
        let passes_over = || began.elapsed() < skipping;
        self.go_on(directory, now, passes_over, || began.elapsed() < spend);
    }

    /// Passes over the first files, looks at those that follow, and having come to the end of the
    /// directory begins at its beginning, once.
    fn go_on(
        &mut self,
        directory: &Directory,
        now: impl Fn() -> BootTime,
        mut passes_over: impl FnMut() -> bool,
        mut has_time: impl FnMut() -> bool,
    ) {
        let mut rest = self.rest.take();
        let mut is_whole = rest.is_none();
        let mut has_turned = false;
        while has_time() {
            let entries = match &mut rest {
                Some(entries) => entries,
                None => match fs::read_dir(directory.path()) {
                    Ok(entries) => rest.insert(entries),
                    Err(_) => return,
                },
            };
            match entries.next() {
                Some(_) if !has_turned && passes_over() => is_whole = false,
                Some(Ok(entry)) => drop(remove_if_unused(directory, &entry, &now)),
                Some(Err(_)) => {}
                None if is_whole || has_turned => return,
                None => {
                    rest = None;
                    has_turned = true;
                }
            }
        }
        self.rest = rest;
    }
}

/// `None`: it is not a file of this store, or a step holds its lock file.
fn remove_if_unused(
    directory: &Directory,
    entry: &DirEntry,
    now: &impl Fn() -> BootTime,
) -> Option<bool> {
    let name = entry.file_name();
    let name = name.to_str()?;
    let age = |now: &BootTime| {
        let written = entry.metadata().ok()?.modified().ok()?;
        system_time(now.wall_ms()).duration_since(written).ok()
    };
    if name.starts_with(PROBE) {
        let old = age(&now())? > ABANDONED;
        return Some(old && fs::remove_file(entry.path()).is_ok());
    }
    let (files, kind) = Files::named(directory.path(), name)?;
    let limit = match kind {
        Kind::Temporary | Kind::Queue => ABANDONED,
        Kind::Record | Kind::LockFile => KEPT_FOR,
    };
    // By the file's date first: that costs no lock file and no reading.
    if age(&now())? <= limit {
        return Some(false);
    }
    if kind == Kind::LockFile && (files.record.exists() || cfg!(not(unix))) {
        return Some(false);
    }
    let _lock_file = LockFile::try_take(directory, &files.lock_file).ok()??;
    let now = now();
    let unused = match kind {
        Kind::Temporary | Kind::Queue => age(&now)? > limit,
        // A step that waits for it finds that it is gone, and makes a new one.
        Kind::LockFile => !files.record.exists(),
        Kind::Record => {
            let found = directory.read_any(&files).ok()??;
            // Not a copy under another name, made by hand.
            let ours = Files::of(directory.path(), &found.holding.who.key) == files;
            let used = last_use_ms(&found);
            let remember = Duration::from_nanos(found.holding.remember);
            let is_taken = found.into_holding(&now).is_taken(store_time(&now));
            ours && !is_taken && is_before(used, remember.max(limit), &now)
        }
    };
    Some(unused && fs::remove_file(entry.path()).is_ok())
}

/// When the lock was last in use, in milliseconds of the wall clock.
fn last_use_ms(found: &RecordFile) -> u64 {
    match found.holding.phase {
        Phase::Released(at) | Phase::Forced(at) => at.micros / 1_000,
        _ => found
            .boot
            .began_ms
            .saturating_add(up_ns(found.holding.expires_at) / 1_000_000),
    }
}

fn is_before(used_ms: u64, limit: Duration, now: &BootTime) -> bool {
    let used: SystemTime = system_time(used_ms);
    system_time(now.wall_ms())
        .duration_since(used)
        .is_ok_and(|age| age > limit)
}

#[cfg(test)]
mod tests {
    use super::super::boot_clock;
    use super::super::codec::tests::sample;
    use super::super::directory::Durability;
    use super::super::tests::scratch;
    use super::super::threads::CommitPermit;
    use super::*;
    use crate::store::view::nanos;
    use std::collections::BTreeSet;

    const DAY: Duration = Duration::from_secs(24 * 60 * 60);
    const MINUTE: Duration = Duration::from_secs(60);

    fn later(length: Duration) -> BootTime {
        let now = boot_clock::now();
        BootTime {
            up_ns: now.up_ns + nanos(length),
            wall_us: now.wall_us + nanos(length) / 1_000,
            ..now
        }
    }

    fn put(directory: &Directory, key: &str, phase: Phase, ttl: Duration) -> String {
        let now = boot_clock::now();
        let mut record = sample();
        record.holding.who.key = key.into();
        record.holding.phase = phase;
        record.holding.heartbeat_at = store_time(&now).at;
        record.holding.expires_at = store_time(&now).at + nanos(ttl);
        record.boot = now.boot();
        let files = Files::of(directory.path(), key);
        let permit = CommitPermit(&|| true);
        directory
            .write(&files, &record, Durability::Whole, &permit)
            .unwrap();
        files
            .record
            .file_name()
            .unwrap()
            .to_str()
            .unwrap()
            .to_owned()
    }

    fn names(directory: &Directory) -> BTreeSet<String> {
        let entries = fs::read_dir(directory.path()).unwrap();
        entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| !name.ends_with(".latch"))
            .collect()
    }

    #[test]
    fn only_what_need_not_be_remembered_and_is_ours_goes() {
        let home = scratch();
        let directory = Directory::new(home.path());
        let released = Phase::Released(store_time(&boot_clock::now()));
        let lately = Phase::Forced(store_time(&later(DAY * 5)));
        put(&directory, "released", released, MINUTE);
        put(&directory, "expired", Phase::Held, MINUTE);
        put(&directory, "kept and over", Phase::Kept, MINUTE);
        let mut stays: BTreeSet<String> = [
            put(&directory, "held for long", Phase::Held, DAY * 30),
            put(&directory, "kept for long", Phase::Kept, DAY * 30),
            put(&directory, "expired lately", Phase::Held, DAY * 5),
            put(&directory, "forced lately", lately, MINUTE),
            put(&directory, "damaged", released, MINUTE),
        ]
        .into();
        fs::write(Files::of(home.path(), "damaged").record, "4711").unwrap();
        for foreign in ["notes.txt", ".hidden", "a.lock", ".x.new", "x.0.lock"] {
            fs::write(home.path().join(foreign), "mine").unwrap();
            stays.insert(foreign.into());
        }
        for left in [
            ".x.0b7e0000000000000000000000000000.new",
            ".x.0b7e0000000000000000000000000000.queue",
            ".x.0b7e0000000000000000000000000000.line",
            ".probe-0b7e",
        ] {
            fs::write(home.path().join(left), "half").unwrap();
        }
        let copy = "x.0b7e0000000000000000000000000000.lock";
        fs::copy(
            Files::of(directory.path(), "released").record,
            home.path().join(copy),
        )
        .unwrap();
        stays.insert(copy.into());
        let before = names(&directory);
        let removed_after = |length| {
            let old = names(&directory);
            Cleanup::default().run(&directory, || later(length), MINUTE);
            old.len() - names(&directory).len()
        };
        assert_eq!(removed_after(Duration::ZERO), 0);
        assert_eq!(removed_after(DAY - MINUTE), 0);
        assert_eq!(names(&directory), before);
        assert_eq!(removed_after(DAY + MINUTE), 4);
        assert_eq!(removed_after(DAY * 7 - MINUTE), 0);
        assert_eq!(removed_after(DAY * 8), 3);
        assert_eq!(names(&directory), stays);
    }

    #[cfg(unix)]
    #[test]
    fn a_lock_file_goes_once_it_has_no_record_and_no_step_is_inside() {
        let home = scratch();
        let directory = Directory::new(home.path());
        let [held, gone, inside] =
            ["held", "gone", "inside"].map(|key| Files::of(directory.path(), key).lock_file);
        for file in [&held, &gone] {
            drop(LockFile::try_take(&directory, file).unwrap());
        }
        put(&directory, "held", Phase::Held, DAY * 30);
        let taken = LockFile::try_take(&directory, &inside).unwrap();
        Cleanup::default().run(&directory, || later(KEPT_FOR - MINUTE), MINUTE);
        assert!(gone.exists());
        Cleanup::default().run(&directory, || later(KEPT_FOR + MINUTE), MINUTE);
        assert_eq!(
            [&held, &gone, &inside].map(|file| file.exists()),
            [true, false, true]
        );
        drop(taken);
    }

    #[test]
    fn a_wall_clock_that_jumps_ahead_removes_no_lock_that_is_held() {
        let home = scratch();
        let directory = Directory::new(home.path());
        put(&directory, "held", Phase::Held, MINUTE);
        let jumped = || BootTime {
            wall_us: later(DAY * 30).wall_us,
            ..boot_clock::now()
        };
        Cleanup::default().run(&directory, jumped, MINUTE);
        assert_eq!(names(&directory).len(), 1);
        Cleanup::default().run(&directory, || later(DAY * 30), MINUTE);
        assert!(names(&directory).is_empty());
    }

    #[test]
    fn a_cleanup_waits_for_no_step_and_keeps_to_its_time() {
        let home = scratch();
        let directory = Directory::new(home.path());
        put(&directory, "old", Phase::Held, MINUTE);
        let taken =
            LockFile::try_take(&directory, &Files::of(directory.path(), "old").lock_file).unwrap();
        Cleanup::default().run(&directory, || later(DAY * 8), MINUTE);
        drop(taken);
        Cleanup::default().run(&directory, || later(DAY * 8), Duration::ZERO);
        assert_eq!(names(&directory).len(), 1);
        Cleanup::default().run(&directory, || later(DAY * 8), MINUTE);
        assert!(names(&directory).is_empty());
        drop(home);
        Cleanup::default().run(&directory, || later(DAY * 8), MINUTE);
    }

    #[test]
    fn a_lock_taken_between_the_check_and_the_lock_file_is_not_removed() {
        let home = scratch();
        let directory = Directory::new(home.path());
        put(&directory, "old", Phase::Held, MINUTE);
        let entry = fs::read_dir(home.path()).unwrap().next().unwrap().unwrap();
        // The clock is first read for the file's age; then another process takes the lock.
        let asked = std::cell::Cell::new(0);
        let removed = remove_if_unused(&directory, &entry, &|| {
            asked.set(asked.get() + 1);
            if asked.get() == 1 {
                put(&directory, "old", Phase::Held, DAY * 30);
            }
            later(DAY * 8)
        });
        assert_eq!((removed, asked.get()), (Some(false), 2));
        let found = directory
            .read(&Files::of(directory.path(), "old"), "old")
            .unwrap()
            .unwrap();
        let now = later(DAY * 8);
        assert!(found.into_holding(&now).is_taken(store_time(&now)));
    }

    #[test]
    fn a_directory_that_is_too_large_for_one_cleanup_is_gone_through_in_several() {
        let home = scratch();
        let directory = Directory::new(home.path());
        // One at each end, whichever that is, and more in between than one cleanup looks at.
        let mut old = vec![put(&directory, "first", Phase::Held, MINUTE)];
        for number in 0..100 {
            put(&directory, &number.to_string(), Phase::Held, DAY * 30);
        }
        old.push(put(&directory, "last", Phase::Held, MINUTE));
        let mut cleanup = Cleanup::default();
        // Each entry once, with the lock files, and some on the way around.
        for _ in 0..20 {
            let mut left = 10;
            let has_time = || {
                left -= 1;
                left >= 0
            };
            cleanup.go_on(&directory, || later(DAY * 8), || false, has_time);
        }
        let names = names(&directory);
        assert_eq!(names.len(), 100);
        assert!(old.iter().all(|name| !names.contains(name)));
    }

    #[test]
    fn a_process_that_begins_in_the_middle_comes_to_the_beginning() {
        let home = scratch();
        let directory = Directory::new(home.path());
        for number in 0..20 {
            put(&directory, &number.to_string(), Phase::Held, MINUTE);
        }
        for skipped in [0, 1, 7, 19, 20, 100] {
            let mut left = skipped;
            let passes_over = || {
                left -= 1;
                left >= 0
            };
            put(&directory, "one", Phase::Held, MINUTE);
            Cleanup::default().go_on(&directory, || later(DAY * 8), passes_over, || true);
            assert_eq!(names(&directory).len(), 0, "{skipped}");
        }
    }
}
