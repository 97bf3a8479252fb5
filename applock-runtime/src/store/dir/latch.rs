//! The critical section: one process and one thread at a time, by an OS file lock.
//!
//! Each key has its own latch file, so nobody waits for another key's disk. Whoever
//! has locked a latch looks whether it is still the file of that name, and begins
//! anew if it is not: so a sweep, or a person, may delete one that is not locked.
//!
//! The operating system opens the latch when its holder dies, however it dies. A
//! holder that is stopped (SIGSTOP) inside keeps it: safety before progress, for
//! this one key. So nobody ever blocks on one: whoever finds it shut
//! asks again later (patience.rs).

use std::fs::{File, TryLockError};
use std::io::{self, ErrorKind};
use std::path::Path;

use super::fault::io_fault;
use super::place::Directory;
use crate::store::{StoreError, StoreErrorKind, StoreResult};

/// Being alone with one key.
#[derive(Debug)]
pub(super) struct Latch(File);

impl Latch {
    /// The latch, if it is free.
    pub(super) fn try_take(place: &Directory, path: &Path) -> StoreResult<Option<Self>> {
        let fault = |error| {
            let doing = "open the lock file";
            io_fault(StoreErrorKind::NotDone, doing, path, error)
        };
        loop {
            let file = place.open_latch(path).map_err(fault)?;
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => return Ok(None),
                Err(TryLockError::Error(error)) => {
                    let doing = "lock the file";
                    return Err(io_fault(StoreErrorKind::NotDone, doing, path, error));
                }
            }
            if let Some(latch) = Self::of(file, path).map_err(fault)? {
                return Ok(Some(latch));
            }
        }
    }

    /// A locked file as the latch, if it is the one that others will find.
    fn of(file: File, path: &Path) -> io::Result<Option<Self>> {
        let latch = Self(file);
        Ok(is_still_there(&latch.0, path)?.then_some(latch))
    }
}

/// What is told of a latch that stayed shut.
pub(super) fn shut(path: &Path) -> StoreError {
    StoreError::new(
        StoreErrorKind::NotDone,
        format!("another process or thread keeps {path:?} locked"),
        "if that lasts, a process is stopped inside it: `fuser` names it; let it go on or end it",
    )
}

impl Drop for Latch {
    fn drop(&mut self) {
        // Closing would do, but for a process forked at this very moment, which has
        // the same open file until it executes its program.
        let _ = self.0.unlock();
    }
}

/// Whether `file` is what stands at `path`.
#[cfg(unix)]
fn is_still_there(file: &File, path: &Path) -> io::Result<bool> {
    use std::os::unix::fs::MetadataExt;
    let ours = file.metadata()?;
    match std::fs::symlink_metadata(path) {
        Ok(found) => Ok(found.ino() == ours.ino() && found.dev() == ours.dev()),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// A file that is open cannot be replaced here.
#[cfg(not(unix))]
fn is_still_there(_file: &File, _path: &Path) -> io::Result<bool> {
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::super::tests::scratch;
    use super::*;
    use std::fs;
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::thread;

    fn home() -> (tempfile::TempDir, Directory) {
        let home = scratch();
        let place = Directory::new(home.path());
        (home, place)
    }

    fn path_of(place: &Directory, n: u32) -> std::path::PathBuf {
        place.files(&n.to_string()).latch
    }

    #[test]
    fn one_at_a_time_is_inside_and_other_latches_are_free() {
        let (_home, place) = home();
        let inside = Latch::try_take(&place, &path_of(&place, 7)).unwrap();
        assert!(
            Latch::try_take(&place, &path_of(&place, 7))
                .unwrap()
                .is_none()
        );
        assert!(
            Latch::try_take(&place, &path_of(&place, 8))
                .unwrap()
                .is_some()
        );
        drop(inside);
        assert!(
            Latch::try_take(&place, &path_of(&place, 7))
                .unwrap()
                .is_some()
        );
    }

    #[test]
    fn a_latch_that_stays_shut_is_named() {
        let (_home, place) = home();
        let error = shut(&path_of(&place, 7));
        let path = path_of(&place, 7);
        assert!(error.what.contains(&format!("{path:?}")), "{}", error.what);
        assert_eq!(error.kind, StoreErrorKind::NotDone);
    }

    #[test]
    fn threads_exclude_one_another() {
        let (_home, place) = home();
        let inside = AtomicU32::new(0);
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..50 {
                        let _latch = loop {
                            match Latch::try_take(&place, &path_of(&place, 0)).unwrap() {
                                Some(latch) => break latch,
                                None => thread::yield_now(),
                            }
                        };
                        assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0);
                        thread::yield_now();
                        inside.fetch_sub(1, Ordering::SeqCst);
                    }
                });
            }
        });
    }

    #[cfg(unix)]
    #[test]
    fn a_latch_deleted_by_hand_while_somebody_waits_does_not_let_two_in() {
        let (_home, place) = home();
        let path = path_of(&place, 7);
        let old = place.open_latch(&path).unwrap();
        fs::remove_file(&path).unwrap();
        let inside = Latch::try_take(&place, &path_of(&place, 7))
            .unwrap()
            .unwrap();
        // Who had opened the old file gets its lock, and sees that it is worthless.
        old.try_lock().unwrap();
        assert!(Latch::of(old, &path).unwrap().is_none());
        assert!(
            Latch::try_take(&place, &path_of(&place, 7))
                .unwrap()
                .is_none()
        );
        fs::remove_file(&path).unwrap();
        assert!(
            Latch::of(inside.0.try_clone().unwrap(), &path)
                .unwrap()
                .is_none()
        );
    }

    #[cfg(unix)]
    #[test]
    fn latches_have_the_rights_of_the_directory() {
        use std::os::unix::fs::PermissionsExt;
        let (home, place) = home();
        for (latch, directory, expected) in
            [(1, 0o700, 0o600), (2, 0o770, 0o660), (3, 0o777, 0o666)]
        {
            fs::set_permissions(home.path(), fs::Permissions::from_mode(directory)).unwrap();
            drop(
                Latch::try_take(&place, &path_of(&place, latch))
                    .unwrap()
                    .unwrap(),
            );
            let mode = fs::metadata(path_of(&place, latch))
                .unwrap()
                .permissions()
                .mode();
            assert_eq!(mode & 0o777, expected);
        }
    }

    #[test]
    fn a_directory_that_is_gone_is_not_created_again_by_a_step() {
        let (home, place) = home();
        drop(home);
        let error = Latch::try_take(&place, &path_of(&place, 7)).unwrap_err();
        assert_eq!(error.kind, StoreErrorKind::Misconfigured);
        assert!(!place.path().exists());
    }
}
