//! The directory itself: how a record is read, replaced and removed, so that a crash at any moment, also of the machine, leaves the old
//! record or the new one.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::path::Path;
use std::sync::Arc;

use super::fault::{damaged, io_fault, misplaced};
use super::names::Files;
use super::patience::Leave;
use super::record::{Damage, Holding, MAX_RECORD};
use crate::store::{Outcome, StoreError, StoreErrorKind};

/// A lock directory, by its absolute path.
#[derive(Clone, Debug)]
pub(super) struct Place {
    path: Arc<Path>,
}

/// What must survive a failure of power right after the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Survives {
    /// One of the two records, whole: enough where the old one also tells the
    /// truth, since after a restart all leases are over.
    Either,
    /// The new one: a fencing token that was given out must not be given again.
    New,
}

impl Place {
    pub(super) fn new(path: &Path) -> Self {
        // A path is meant as it was when it was given: a process that changes its
        // directory later must not begin a second set of locks.
        let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        Self { path: path.into() }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Opens a latch file, and creates it if this is its first use.
    pub(super) fn open_latch(&self, path: &Path) -> io::Result<File> {
        let mut options = OpenOptions::new();
        options.read(true).write(true);
        match options.open(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            other => return other,
        }
        match options.clone().create_new(true).open(path) {
            Ok(file) => self.share(&file).map(|()| file),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => options.open(path),
            Err(error) => Err(error),
        }
    }

    /// Creates a file that did not exist, for those who may use the directory.
    pub(super) fn create(&self, path: &Path) -> io::Result<File> {
        let file = OpenOptions::new().write(true).create_new(true).open(path)?;
        self.share(&file)?;
        Ok(file)
    }

    /// Gives a file the rights of the directory (less the right to execute): who
    /// shares the directory shares the locks, whatever the umask.
    #[cfg(unix)]
    fn share(&self, file: &File) -> io::Result<()> {
        use std::os::unix::fs::PermissionsExt;
        let wanted = fs::metadata(&self.path)?.permissions().mode() & 0o666;
        let mut rights = file.metadata()?.permissions();
        if rights.mode() & 0o777 != wanted {
            rights.set_mode(wanted);
            file.set_permissions(rights)?;
        }
        Ok(())
    }

    #[cfg(not(unix))]
    fn share(&self, _file: &File) -> io::Result<()> {
        Ok(())
    }

    /// The record of `key`, if it has one. Needs no latch: a record is only ever
    /// replaced whole.
    pub(super) fn read(&self, files: &Files, key: &str) -> Outcome<Option<Holding>> {
        let Some(found) = self.read_any(files)? else {
            return Ok(None);
        };
        if *found.key != *key {
            return Err(misplaced(&files.record));
        }
        Ok(Some(found))
    }

    pub(super) fn read_any(&self, files: &Files) -> Outcome<Option<Holding>> {
        let path = &files.record;
        match slurp(path) {
            Ok(bytes) => match Holding::parse(&bytes) {
                Ok(found) => Ok(Some(found)),
                Err(damage) => Err(damaged(path, &damage)),
            },
            Err(Slurp::Foreign) => Err(damaged(path, &Damage::Foreign)),
            Err(Slurp::Io(error)) if error.kind() == ErrorKind::NotFound => {
                // 'No record' must not be read out of 'no directory' (rule R9).
                match fs::metadata(&self.path) {
                    Ok(_) => Ok(None),
                    Err(error) => {
                        let doing = "find the lock directory";
                        Err(io_fault(StoreErrorKind::NotDone, doing, &self.path, error))
                    }
                }
            }
            Err(Slurp::Io(error)) => Err(io_fault(
                StoreErrorKind::NotDone,
                "read the record",
                path,
                error,
            )),
        }
    }

    /// Puts `holding` in the place of what stands there. The caller holds the latch.
    pub(super) fn replace(
        &self,
        files: &Files,
        holding: &Holding,
        survives: Survives,
        leave: &Leave<'_>,
    ) -> Outcome<()> {
        let text = holding.render();
        if text.len() as u64 > MAX_RECORD {
            return Err(StoreError::new(
                StoreErrorKind::Misconfigured,
                format!("the record of this lock would have {} bytes", text.len()),
                "give the instance a shorter name",
            ));
        }
        let not_done = |doing: &'static str, path: &Path| {
            let path = path.to_owned();
            move |error| io_fault(StoreErrorKind::NotDone, doing, &path, error)
        };
        // Opened beforehand: what can fail comes before what cannot be taken back.
        let directory = match survives {
            Survives::New => open_directory(&self.path)
                .map_err(not_done("open the lock directory", &self.path))?,
            Survives::Either => None,
        };
        let written = self
            .write_temporary(&files.temporary, text.as_bytes())
            .map_err(not_done("write the record", &files.temporary))
            .and_then(|()| leave.ask())
            .and_then(|()| {
                fs::rename(&files.temporary, &files.record).map_err(|error| {
                    let doing = "put the new record in the place of";
                    io_fault(StoreErrorKind::Unknown, doing, &files.record, error)
                })
            });
        if let Err(error) = written {
            // If even that fails, the next writer of this key removes it.
            let _ = fs::remove_file(&files.temporary);
            return Err(error);
        }
        if let Some(directory) = directory {
            directory.sync_all().map_err(|error| StoreError {
                // Whatever the reason: it has been carried out.
                kind: StoreErrorKind::Unknown,
                ..io_fault(
                    StoreErrorKind::Unknown,
                    "sync the lock directory",
                    &self.path,
                    error,
                )
            })?;
        }
        Ok(())
    }

    fn write_temporary(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let mut file = match self.create(path) {
            // A crash left it: whoever wrote it has lost the latch, which we hold.
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                fs::remove_file(path)?;
                self.create(path)?
            }
            other => other?,
        };
        file.write_all(bytes)?;
        // Before the rename, or a failure of power could leave the new name with
        // none of its content.
        file.sync_data()
    }

    /// Removes the record. The caller holds the latch.
    pub(super) fn remove(&self, files: &Files) -> io::Result<()> {
        fs::remove_file(&files.record)
    }
}

enum Slurp {
    Foreign,
    Io(io::Error),
}

impl From<io::Error> for Slurp {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// Reads a whole file if it may be a record: opening a pipe would wait for ever,
/// and a file of gigabytes would fill the memory.
fn slurp(path: &Path) -> Result<Vec<u8>, Slurp> {
    if !fs::symlink_metadata(path)?.is_file() {
        return Err(Slurp::Foreign);
    }
    let mut bytes = Vec::new();
    File::open(path)?
        .take(MAX_RECORD + 1)
        .read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_RECORD {
        return Err(Slurp::Foreign);
    }
    Ok(bytes)
}

/// A directory opened for syncing, where the system has such a thing.
pub(super) fn open_directory(path: &Path) -> io::Result<Option<File>> {
    if cfg!(unix) {
        File::open(path).map(Some)
    } else {
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::super::record::tests::sample;
    use super::*;

    fn home() -> (tempfile::TempDir, Place) {
        let home = tempfile::tempdir().unwrap();
        let place = Place::new(home.path());
        (home, place)
    }

    fn replace(place: &Place, holding: &Holding, leave: bool) -> Outcome<()> {
        let files = place.files(&holding.key);
        place.replace(&files, holding, Survives::New, &Leave(&|| leave))
    }

    fn read(place: &Place) -> Outcome<Option<Holding>> {
        let key = sample().key;
        place.read(&place.files(&key), &key)
    }

    fn names(place: &Place) -> Vec<String> {
        let entries = fs::read_dir(place.path()).unwrap();
        entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect()
    }

    #[test]
    fn a_relative_path_means_what_it_meant_when_it_was_given() {
        let place = Place::new(Path::new("locks"));
        assert_eq!(place.path(), std::env::current_dir().unwrap().join("locks"));
    }

    #[test]
    fn a_record_is_read_back_and_leaves_nothing_beside_it() {
        let (_home, place) = home();
        assert_eq!(read(&place).unwrap(), None);
        for token in [1, 2] {
            let holding = Holding { token, ..sample() };
            replace(&place, &holding, true).unwrap();
            assert_eq!(read(&place).unwrap(), Some(holding));
            assert_eq!(names(&place).len(), 1);
        }
    }

    #[test]
    fn a_step_without_leave_leaves_the_old_record_and_nothing_beside_it() {
        let (_home, place) = home();
        replace(&place, &sample(), true).unwrap();
        let error = replace(
            &place,
            &Holding {
                token: 1,
                ..sample()
            },
            false,
        )
        .unwrap_err();
        assert_eq!(error.kind, StoreErrorKind::NotDone);
        assert_eq!(read(&place).unwrap(), Some(sample()));
        assert_eq!(names(&place).len(), 1);
    }

    #[test]
    fn a_crash_while_writing_harms_neither_the_old_record_nor_the_next_writer() {
        let (_home, place) = home();
        let temporary = place.files(&sample().key).temporary;
        let text = sample().render();
        for length in (0..=text.len()).step_by(7) {
            fs::write(&temporary, &text[..length]).unwrap();
            assert_eq!(read(&place).unwrap(), None);
        }
        replace(&place, &sample(), true).unwrap();
        fs::write(&temporary, "half").unwrap();
        assert_eq!(read(&place).unwrap(), Some(sample()));
        let next = Holding {
            token: 9,
            ..sample()
        };
        replace(&place, &next, true).unwrap();
        assert_eq!(read(&place).unwrap(), Some(next));
        assert_eq!(names(&place).len(), 1);
    }

    #[test]
    fn damaged_and_foreign_files_are_named_and_never_changed() {
        let (_home, place) = home();
        let path = place.files(&sample().key).record;
        let text = sample().render();
        let mut contents: Vec<Vec<u8>> = (0..text.len())
            .map(|length| text.as_bytes()[..length].to_vec())
            .collect();
        contents.push(b"applock 2\n".to_vec());
        contents.push(vec![b'a'; 2 << 20]);
        contents.push(
            Holding {
                key: "QUEUE:other".into(),
                ..sample()
            }
            .render()
            .into_bytes(),
        );
        for content in contents {
            fs::write(&path, &content).unwrap();
            let error = read(&place).unwrap_err();
            assert_eq!(error.kind, StoreErrorKind::Misconfigured);
            assert!(error.what.contains(&format!("{path:?}")), "{}", error.what);
            assert!(error.remedy.contains("move it away") || error.remedy.contains("same version"));
            assert_eq!(fs::read(&path).unwrap(), content);
        }
    }

    #[cfg(unix)]
    #[test]
    fn what_is_no_file_is_refused_without_opening_it() {
        let (_home, place) = home();
        let path = place.files(&sample().key).record;
        let pipe = |path: &Path| {
            assert!(
                std::process::Command::new("mkfifo")
                    .arg(path)
                    .status()
                    .unwrap()
                    .success()
            );
        };
        type Make<'a> = &'a dyn Fn(&Path);
        let kinds: [(&str, Make<'_>); 3] = [
            ("directory", &|path| fs::create_dir(path).unwrap()),
            ("link", &|path| {
                std::os::unix::fs::symlink("/nowhere", path).unwrap()
            }),
            ("pipe", &pipe),
        ];
        for (kind, make) in kinds {
            make(&path);
            assert_eq!(
                read(&place).unwrap_err().kind,
                StoreErrorKind::Misconfigured,
                "{kind}"
            );
            assert!(path.symlink_metadata().is_ok());
            fs::remove_file(&path)
                .or_else(|_| fs::remove_dir(&path))
                .unwrap();
        }
    }

    #[cfg(unix)]
    #[test]
    fn a_link_in_the_place_of_the_temporary_file_is_not_followed() {
        let (home, place) = home();
        let target = home.path().join("precious");
        fs::write(&target, "mine").unwrap();
        std::os::unix::fs::symlink(&target, place.files(&sample().key).temporary).unwrap();
        replace(&place, &sample(), true).unwrap();
        assert_eq!(fs::read_to_string(&target).unwrap(), "mine");
        assert_eq!(read(&place).unwrap(), Some(sample()));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_write_that_fails_is_not_done_and_leaves_nothing() {
        let (home, place) = home();
        replace(&place, &sample(), true).unwrap();
        // A directory with something inside: it can't be removed as a left-over.
        let temporary = place.files(&sample().key).temporary;
        fs::create_dir(&temporary).unwrap();
        let error = replace(
            &place,
            &Holding {
                token: 1,
                ..sample()
            },
            true,
        )
        .unwrap_err();
        assert_ne!(error.kind, StoreErrorKind::Unknown);
        assert_eq!(read(&place).unwrap(), Some(sample()));
        drop(home);
    }

    #[test]
    fn a_record_too_long_to_be_read_again_is_not_written() {
        let (_home, place) = home();
        let holding = Holding {
            instance: "x".repeat(1 << 20),
            ..sample()
        };
        assert_eq!(
            replace(&place, &holding, true).unwrap_err().kind,
            StoreErrorKind::Misconfigured
        );
        assert!(names(&place).is_empty());
    }

    #[test]
    fn no_directory_is_an_error_and_not_a_free_lock() {
        let (home, place) = home();
        drop(home);
        let error = read(&place).unwrap_err();
        assert_eq!(error.kind, StoreErrorKind::Misconfigured);
        assert!(error.what.contains(&format!("{:?}", place.path())));
    }
}
