//! The critical section: one process and one thread at a time, by an OS file lock.
//!
//! Each key has its own lock file, so no step waits for another key's disk. A step that
//! has locked it checks whether it is still the file of that name, and begins
//! anew if it is not: so a cleanup, or a person, may delete one that is not locked.
//!
//! The operating system unlocks the file when its holder dies, however it dies. A
//! holder that is stopped (SIGSTOP) inside keeps it: safety before progress, for
//! this one key. So nothing ever blocks on one: a step that finds it taken
//! asks again later (`threads.rs`).

use std::fs::{File, TryLockError};
use std::io;
use std::path::Path;

use super::directory::Directory;
use super::error::io_fault;
use crate::store::{StoreError, StoreErrorKind, StoreResult};

/// Being alone with one key.
#[derive(Debug)]
pub(super) struct LockFile(File);

impl LockFile {
    /// The lock file, if it is free.
    pub(super) fn try_take(directory: &Directory, path: &Path) -> StoreResult<Option<Self>> {
        let fault = |error| {
            let doing = "open the lock file";
            io_fault(StoreErrorKind::NotDone, doing, path, error)
        };
        loop {
            let file = directory.open_lock_file(path).map_err(fault)?;
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => return Ok(None),
                Err(TryLockError::Error(error)) => {
                    let doing = "lock the file";
                    return Err(io_fault(StoreErrorKind::NotDone, doing, path, error));
                }
            }
            if let Some(taken) = Self::of(file, path).map_err(fault)? {
                return Ok(Some(taken));
            }
        }
    }

    /// A locked file, if it is the one that others will find.
    fn of(file: File, path: &Path) -> io::Result<Option<Self>> {
        let taken = Self(file);
        Ok(is_still_there(&taken.0, path)?.then_some(taken))
    }
}

/// What is answered where a lock file stayed taken.
pub(super) fn still_taken(path: &Path) -> StoreError {
    StoreError::new(
        StoreErrorKind::NotDone,
        format!("another process or thread keeps {path:?} locked"),
        "if that lasts, a process is stopped inside it: `fuser` names it; let it go on or end it",
    )
}

impl Drop for LockFile {
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
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
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
    use super::super::file_names::Files;
    use super::super::tests::scratch;
    use super::*;
    use std::fs;
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::thread;

    fn home() -> (tempfile::TempDir, Directory) {
        let home = scratch();
        let directory = Directory::new(home.path());
        (home, directory)
    }

    fn path_of(directory: &Directory, n: u32) -> std::path::PathBuf {
        Files::of(directory.path(), &n.to_string()).lock_file
    }

    #[test]
    fn one_at_a_time_is_inside_and_other_lock_files_are_free() {
        let (_home, directory) = home();
        let inside = LockFile::try_take(&directory, &path_of(&directory, 7)).unwrap();
        assert!(
            LockFile::try_take(&directory, &path_of(&directory, 7))
                .unwrap()
                .is_none()
        );
        assert!(
            LockFile::try_take(&directory, &path_of(&directory, 8))
                .unwrap()
                .is_some()
        );
        drop(inside);
        assert!(
            LockFile::try_take(&directory, &path_of(&directory, 7))
                .unwrap()
                .is_some()
        );
    }

    #[test]
    fn a_lock_file_that_stays_taken_is_named() {
        let (_home, directory) = home();
        let error = still_taken(&path_of(&directory, 7));
        let path = path_of(&directory, 7);
        assert!(error.what.contains(&format!("{path:?}")), "{}", error.what);
        assert_eq!(error.kind, StoreErrorKind::NotDone);
    }

    #[test]
    fn threads_exclude_one_another() {
        let (_home, directory) = home();
        let inside = AtomicU32::new(0);
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..50 {
                        let _taken = loop {
                            match LockFile::try_take(&directory, &path_of(&directory, 0)).unwrap() {
                                Some(taken) => break taken,
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
    fn a_lock_file_deleted_by_hand_while_a_step_waits_does_not_let_two_in() {
        let (_home, directory) = home();
        let path = path_of(&directory, 7);
        let old = directory.open_lock_file(&path).unwrap();
        fs::remove_file(&path).unwrap();
        let inside = LockFile::try_take(&directory, &path_of(&directory, 7))
            .unwrap()
            .unwrap();
        // A step that had opened the old file gets its lock, and sees that it is worthless.
        old.try_lock().unwrap();
        assert!(LockFile::of(old, &path).unwrap().is_none());
        assert!(
            LockFile::try_take(&directory, &path_of(&directory, 7))
                .unwrap()
                .is_none()
        );
        fs::remove_file(&path).unwrap();
        assert!(
            LockFile::of(inside.0.try_clone().unwrap(), &path)
                .unwrap()
                .is_none()
        );
    }

    #[cfg(unix)]
    #[test]
    fn lock_files_have_the_rights_of_the_directory() {
        use std::os::unix::fs::PermissionsExt;
        let (home, directory) = home();
        for (number, mode, expected) in [(1, 0o700, 0o600), (2, 0o770, 0o660), (3, 0o777, 0o666)] {
            fs::set_permissions(home.path(), fs::Permissions::from_mode(mode)).unwrap();
            drop(
                LockFile::try_take(&directory, &path_of(&directory, number))
                    .unwrap()
                    .unwrap(),
            );
            let mode = fs::metadata(path_of(&directory, number))
                .unwrap()
                .permissions()
                .mode();
            assert_eq!(mode & 0o777, expected);
        }
    }

    #[test]
    fn a_directory_that_is_gone_is_not_created_again_by_a_step() {
        let (home, directory) = home();
        drop(home);
        let error = LockFile::try_take(&directory, &path_of(&directory, 7)).unwrap_err();
        assert_eq!(error.kind, StoreErrorKind::Misconfigured);
        assert!(!directory.path().exists());
    }
}
