//! What the operating system refused, as an error that names the path and the way
//! out.

use std::io::{self, ErrorKind};
use std::path::Path;

use super::codec::Damage;
use crate::store::{StoreError, StoreErrorKind};

/// What `error` means for a step. `passing` says which of the two passing kinds it
/// is: whether the step was certainly not carried out.
pub(super) fn io_fault(
    passing: StoreErrorKind,
    doing: &str,
    path: &Path,
    error: io::Error,
) -> StoreError {
    let (kind, remedy) = match error.kind() {
        ErrorKind::PermissionDenied => (
            StoreErrorKind::Denied,
            "give this process's user the right to read and write there, or name another directory",
        ),
        ErrorKind::ReadOnlyFilesystem => (
            StoreErrorKind::Misconfigured,
            "the lock directory must be on a file system that can be written to: name another one",
        ),
        ErrorKind::NotADirectory | ErrorKind::AlreadyExists | ErrorKind::IsADirectory => (
            StoreErrorKind::Misconfigured,
            "something else stands in the way: move it, or name another directory",
        ),
        ErrorKind::NotFound => (
            StoreErrorKind::Misconfigured,
            "if the lock directory was deleted, create it again; else name one where files can be created",
        ),
        ErrorKind::InvalidFilename | ErrorKind::InvalidInput => (
            StoreErrorKind::Misconfigured,
            "name a directory with a shorter path, without NUL characters",
        ),
        ErrorKind::Unsupported => (
            StoreErrorKind::Misconfigured,
            "this file system lacks what a lock directory needs: name one on a local disk",
        ),
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
            (passing, "free some space on that file system")
        }
        _ => (
            passing,
            "if it does not pass, see the operating system's log for this disk",
        ),
    };
    StoreError::new(kind, format!("could not {doing} {path:?}: {error}"), remedy).caused_by(error)
}

/// A file stands where a record or a queue belongs, and this version can't use it.
pub(super) fn damaged(path: &Path, damage: &Damage) -> StoreError {
    StoreError::new(
        StoreErrorKind::Misconfigured,
        format!("the file {path:?} {damage}; it was not changed"),
        match damage {
            Damage::Older => {
                "end the processes of the older version, which do not know the locks of this one, then \
                 move the file away"
            }
            Damage::Newer => "run the same version of applock in all processes of this directory",
            Damage::Foreign | Damage::Broken(_) => {
                "look at it, then move it away; the holder of that lock must have ended before"
            }
        },
    )
}

/// The record of one key in the file of another: a copy made by hand.
pub(super) fn misplaced(path: &Path) -> StoreError {
    StoreError::new(
        StoreErrorKind::Misconfigured,
        format!("the file {path:?} holds the record of another lock; it was not changed"),
        "move it away: it was copied or renamed by hand",
    )
}

/// The fencing tokens of a lock are used up.
pub(super) fn tokens_used_up(path: &Path) -> StoreError {
    StoreError::new(
        StoreErrorKind::Misconfigured,
        format!("the fencing tokens of the lock in {path:?} are used up, or the clock is wrong"),
        "set the machine's clock, then move that file away: tokens begin anew at the present time",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_passes_and_a_refusal_does_not() {
        let fault_of = |kind| {
            let error = io::Error::from(kind);
            io_fault(StoreErrorKind::NotDone, "write", Path::new("/x/y"), error)
        };
        for (given, expected) in [
            (ErrorKind::StorageFull, StoreErrorKind::NotDone),
            (ErrorKind::QuotaExceeded, StoreErrorKind::NotDone),
            (ErrorKind::Other, StoreErrorKind::NotDone),
            (ErrorKind::PermissionDenied, StoreErrorKind::Denied),
            (ErrorKind::ReadOnlyFilesystem, StoreErrorKind::Misconfigured),
            (ErrorKind::NotFound, StoreErrorKind::Misconfigured),
            (ErrorKind::InvalidFilename, StoreErrorKind::Misconfigured),
        ] {
            let error = fault_of(given);
            assert_eq!(error.kind, expected, "{given:?}");
            assert!(error.what.contains("\"/x/y\"") && !error.remedy.is_empty());
        }
    }
}
