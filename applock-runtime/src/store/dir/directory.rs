//! The directory itself: how a record is read and written, so that a crash at any
//! moment, also of the machine, leaves the old record or the new one.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::Path;
use std::sync::Arc;
use std::thread;

use super::codec::{Damage, HEARTBEAT, HEARTBEAT_AT, MAX_RECORD, RecordFile};
use super::error::{damaged, io_fault, misplaced};
use super::file_names::{Files, Kind};
use super::threads::CommitPermit;
use crate::store::{StoreError, StoreErrorKind, StoreResult};

/// How often a record is read again whose heartbeat is torn: it was being written.
/// That takes less than a microsecond, so even once again is rare.
const TORN_READS: u32 = 20;

/// A lock directory, by its absolute path.
#[derive(Clone, Debug)]
pub(super) struct Directory {
    path: Arc<Path>,
    /// How many bytes were read and written.
    #[cfg(test)]
    pub(super) traffic: Arc<std::sync::atomic::AtomicUsize>,
}

/// How a record is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Durability {
    /// Replaced, and sure to be there after a failure of power: a fencing token that
    /// was given out must not be given again.
    Durable,
    /// Replaced; after a failure of power the old one may be back, whole. It also
    /// is true then: a restart ends all leases.
    Whole,
    /// Only its heartbeat, in place and without a sync. A disk may take a minute for
    /// a sync when others write much, and no lease shall be lost by that.
    Heartbeat,
}

impl Directory {
    pub(super) fn new(path: &Path) -> Self {
        // A path is meant as it was when it was given: a process that changes its
        // directory later must not begin a second set of locks.
        let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        Self {
            path: path.into(),
            #[cfg(test)]
            traffic: Arc::default(),
        }
    }

    /// Counts bytes that are read or written, for a test.
    pub(super) fn count(&self, bytes: usize) {
        #[cfg(test)]
        self.traffic
            .fetch_add(bytes, std::sync::atomic::Ordering::Relaxed);
        let _ = bytes;
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Opens a lock file, and creates it if this is its first use.
    pub(super) fn open_lock_file(&self, path: &Path) -> io::Result<File> {
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

    /// Creates a file that did not exist, for all users of the directory.
    pub(super) fn create(&self, path: &Path) -> io::Result<File> {
        let file = OpenOptions::new().write(true).create_new(true).open(path)?;
        self.share(&file)?;
        Ok(file)
    }

    /// Gives a file the rights of the directory (less the right to execute): users
    /// that share the directory share the locks, whatever the umask.
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

    /// The record of `key`, if it has one. Needs no lock file: a record is only ever
    /// replaced whole.
    pub(super) fn read(&self, files: &Files, key: &str) -> StoreResult<Option<RecordFile>> {
        let Some(found) = self.read_any(files)? else {
            return Ok(None);
        };
        if *found.holding.who.key != *key {
            return Err(misplaced(&files.record));
        }
        Ok(Some(found))
    }

    pub(super) fn read_any(&self, files: &Files) -> StoreResult<Option<RecordFile>> {
        let path = &files.record;
        let mut torn = 0;
        let read = loop {
            let read = read_whole(path, MAX_RECORD).map(|bytes| {
                self.count(bytes.len());
                RecordFile::parse(&bytes)
            });
            let is_torn = matches!(read, Ok(Err(Damage::Broken(HEARTBEAT))));
            if !is_torn || torn == TORN_READS {
                break read;
            }
            torn += 1;
            thread::yield_now();
        };
        match read {
            Ok(Ok(found)) => Ok(Some(found)),
            Ok(Err(damage)) => Err(damaged(path, &damage)),
            Err(ReadError::Foreign) => Err(damaged(path, &Damage::Foreign)),
            Err(ReadError::Io(error)) if error.kind() == ErrorKind::NotFound => {
                // 'No record' must not be read out of 'no directory' (rule R9).
                match fs::metadata(&self.path) {
                    Ok(_) => Ok(None),
                    Err(error) => {
                        let doing = "find the lock directory";
                        Err(io_fault(StoreErrorKind::NotDone, doing, &self.path, error))
                    }
                }
            }
            Err(ReadError::Io(error)) => Err(io_fault(
                StoreErrorKind::NotDone,
                "read the record",
                path,
                error,
            )),
        }
    }

    /// The files of every lock that has a record, in no order.
    pub(super) fn records(&self) -> StoreResult<Vec<Files>> {
        let fault = |error| {
            let doing = "list the lock directory";
            io_fault(StoreErrorKind::NotDone, doing, &self.path, error)
        };
        let mut all = Vec::new();
        for entry in fs::read_dir(&self.path).map_err(fault)? {
            let name = entry.map_err(fault)?.file_name();
            let files = name
                .to_str()
                .and_then(|name| Files::named(&self.path, name));
            all.extend(
                files
                    .filter(|(_, kind)| *kind == Kind::Record)
                    .map(|(files, _)| files),
            );
        }
        Ok(all)
    }

    /// Writes `record` in the place of what stands there. The caller holds the lock file.
    pub(super) fn write(
        &self,
        files: &Files,
        record: &RecordFile,
        durability: Durability,
        permit: &CommitPermit<'_>,
    ) -> StoreResult<()> {
        match durability {
            Durability::Heartbeat => self.beat(files, record, permit),
            Durability::Durable | Durability::Whole => {
                self.replace(files, record, durability, permit)
            }
        }
    }

    fn beat(
        &self,
        files: &Files,
        record: &RecordFile,
        permit: &CommitPermit<'_>,
    ) -> StoreResult<()> {
        let fault =
            |kind| move |error| io_fault(kind, "write the heartbeat to", &files.record, error);
        let mut file = OpenOptions::new()
            .write(true)
            .open(&files.record)
            .map_err(fault(StoreErrorKind::NotDone))?;
        permit.ask()?;
        file.seek(SeekFrom::Start(HEARTBEAT_AT))
            .and_then(|_| file.write_all(record.heartbeat().as_bytes()))
            .map_err(fault(StoreErrorKind::Unknown))
    }

    fn replace(
        &self,
        files: &Files,
        record: &RecordFile,
        durability: Durability,
        permit: &CommitPermit<'_>,
    ) -> StoreResult<()> {
        let text = record.render();
        if text.len() as u64 > MAX_RECORD {
            return Err(StoreError::new(
                StoreErrorKind::Misconfigured,
                format!("the record of this lock would have {} bytes", text.len()),
                "give the instance a shorter name",
            ));
        }
        // Opened beforehand: what can fail comes before what cannot be taken back.
        let directory = if durability == Durability::Durable {
            open_directory(&self.path).map_err(|error| {
                let doing = "open the lock directory";
                io_fault(StoreErrorKind::NotDone, doing, &self.path, error)
            })?
        } else {
            None
        };
        self.put(files, &files.record, text.as_bytes(), true, permit)?;
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

    /// Puts a file in the place of what stands there. One that is `synced` beforehand is
    /// whole after a failure of power; another one may be damaged then.
    pub(super) fn put(
        &self,
        files: &Files,
        path: &Path,
        bytes: &[u8],
        synced: bool,
        permit: &CommitPermit<'_>,
    ) -> StoreResult<()> {
        let written = self
            .write_temporary(&files.temporary, bytes, synced)
            .map_err(|error| io_fault(StoreErrorKind::NotDone, "write", &files.temporary, error))
            .and_then(|()| permit.ask())
            .and_then(|()| {
                fs::rename(&files.temporary, path).map_err(|error| {
                    let doing = "put the new file in the place of";
                    io_fault(StoreErrorKind::Unknown, doing, path, error)
                })
            });
        if written.is_err() {
            // If even that fails, the next writer of this key removes it.
            let _ = fs::remove_file(&files.temporary);
        }
        written
    }

    fn write_temporary(&self, path: &Path, bytes: &[u8], synced: bool) -> io::Result<()> {
        let mut file = match self.create(path) {
            // A crash left it: the process that wrote it has lost the lock file, which we hold.
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                fs::remove_file(path)?;
                self.create(path)?
            }
            other => other?,
        };
        self.count(bytes.len());
        file.write_all(bytes)?;
        if synced {
            // Before the rename, or a failure of power could leave the new name with
            // none of its content.
            file.sync_data()?;
        }
        Ok(())
    }
}

pub(super) enum ReadError {
    Foreign,
    Io(io::Error),
}

impl From<io::Error> for ReadError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// Reads a whole file if it may be a record: opening a pipe would wait for ever,
/// and a file of gigabytes would fill the memory.
fn read_whole(path: &Path, most: u64) -> Result<Vec<u8>, ReadError> {
    if !fs::symlink_metadata(path)?.is_file() {
        return Err(ReadError::Foreign);
    }
    // Room for a record, so that one read takes all of it: a heartbeat may be written between two.
    let mut bytes = Vec::with_capacity(4 << 10);
    File::open(path)?.take(most + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > most {
        return Err(ReadError::Foreign);
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
