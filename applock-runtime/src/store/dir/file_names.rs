//! The names of the files in a lock directory.
//!
//! ```text
//! QUEUE_reports.0b7e….lock    the record: the readable part of the key, its digest
//! .QUEUE_reports.0b7e….latch  the lock file (`lock_file.rs`)
//! .QUEUE_reports.0b7e….queue  the waiters; no file where there are none
//! .QUEUE_reports.0b7e….new    a record or a queue being written; left behind only by a crash
//! .probe-…                    tries out the directory; left behind only by a crash
//! ```
//!
//! All processes that share a directory must agree on the names of record and lock file,
//! whatever version they are of: both keep the names that they had in version 1. Two versions then
//! exclude one another at the lock file, and the second finds a record that it refuses. With
//! different lock files both could find no record at the same moment, and both take the lock.

use std::path::{Path, PathBuf};

use uuid::Uuid;

pub(super) const PROBE: &str = ".probe-";

/// How much of a key a file name shows, in characters.
const READABLE: usize = 48;

/// What stands between the digest of a key and every other use of SHA-1.
const KEYS: Uuid = Uuid::from_u128(0x2c1a_6f0e_77c9_4b0b_a2b4_35c9_0d1e_5f42);

/// The files of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Files {
    pub(super) record: PathBuf,
    pub(super) lock_file: PathBuf,
    pub(super) queue: PathBuf,
    pub(super) temporary: PathBuf,
}

/// Which of a key's files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Record,
    LockFile,
    Queue,
    Temporary,
}

impl Files {
    /// The files of `key` in a directory.
    pub(super) fn of(directory: &Path, key: &str) -> Self {
        let digest = Uuid::new_v5(&KEYS, key.as_bytes());
        let mut readable: String = key
            .chars()
            .take(READABLE)
            .enumerate()
            .map(|(index, c)| match c {
                'a'..='z' | 'A'..='Z' | '0'..='9' | '-' => c,
                '.' if index > 0 => c,
                _ => '_',
            })
            .collect();
        if readable.is_empty() {
            // Names that begin with a dot are those of the other files.
            readable.push('_');
        }
        Self::of_stem(directory, &format!("{readable}.{}", digest.simple()))
    }

    /// The files of which this is the name of one, if it is.
    pub(super) fn named(directory: &Path, file_name: &str) -> Option<(Self, Kind)> {
        let (stem, kind) = match file_name.strip_prefix('.') {
            None => (file_name.strip_suffix(".lock")?, Kind::Record),
            Some(hidden) => {
                let (stem, ending) = hidden.rsplit_once('.')?;
                let kind = match ending {
                    "latch" => Kind::LockFile,
                    // `.line` was the queue of version 1: it is cleaned up and never read.
                    "queue" | "line" => Kind::Queue,
                    "new" => Kind::Temporary,
                    _ => return None,
                };
                (stem, kind)
            }
        };
        let digest = stem.rsplit_once('.')?.1;
        if digest.len() != 32 || !digest.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return None;
        }
        Some((Self::of_stem(directory, stem), kind))
    }

    fn of_stem(directory: &Path, stem: &str) -> Self {
        Self {
            record: directory.join(format!("{stem}.lock")),
            lock_file: directory.join(format!(".{stem}.latch")),
            queue: directory.join(format!(".{stem}.queue")),
            temporary: directory.join(format!(".{stem}.new")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn every_key_has_a_file_of_its_own_with_a_harmless_name() {
        let directory = Path::new("/x");
        let (long, longer) = ("k".repeat(65_534), "k".repeat(65_535));
        let keys = [
            "",
            "a",
            "A",
            "a.",
            "a..",
            "a ",
            " a",
            "a\n",
            "a\0",
            "a\0b",
            "/",
            "//",
            "///",
            ".",
            "..",
            "../a",
            "a/b",
            "a_b",
            "a%2Fb",
            "CON",
            "NUL",
            "ı",
            "i",
            "İ",
            "I",
            "é",
            "e\u{301}",
            "🦀",
            ".latch-00",
            ".new-",
            "a.lock",
            "a:b",
            "a*b",
            &long,
            &longer,
        ];
        let mut folded = HashSet::new();
        for key in keys {
            let files = Files::of(directory, key);
            let name = files
                .record
                .file_name()
                .unwrap()
                .to_str()
                .unwrap()
                .to_owned();
            assert_eq!(files.record.parent(), Some(Path::new("/x")));
            assert!(name.len() < 128 && !name.starts_with('.') && name.ends_with(".lock"));
            assert!(
                name.bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b)),
                "{name}"
            );
            assert!(folded.insert(name.to_ascii_lowercase()), "{key:?}");
            for (path, kind) in [
                (&files.record, Kind::Record),
                (&files.lock_file, Kind::LockFile),
                (&files.queue, Kind::Queue),
                (&files.temporary, Kind::Temporary),
            ] {
                let name = path.file_name().unwrap().to_str().unwrap();
                assert_eq!(Files::named(directory, name), Some((files.clone(), kind)));
            }
        }
    }

    #[test]
    fn record_and_lock_file_keep_their_names_in_every_version() {
        let directory = Path::new("/x");
        for (key, stem) in [
            (
                "QUEUE:reports",
                "QUEUE_reports.18d3c96b896f5221bf9c7bd64cfb34c9",
            ),
            (
                "QUEUE:reports:eu/ça",
                "QUEUE_reports_eu__a.cedf0b16a8165395aaf202efa3e7352a",
            ),
        ] {
            let files = Files::of(directory, key);
            assert_eq!(files.record, directory.join(format!("{stem}.lock")));
            assert_eq!(files.lock_file, directory.join(format!(".{stem}.latch")));
        }
    }
}
