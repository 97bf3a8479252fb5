//! The names of the files in a lock directory.
//!
//! ```text
//! QUEUE_reports.0b7e….lock   a record: the readable part of the key, its digest
//! .latch-2a                  a critical section (latch.rs)
//! .new-0b7e…                 a record being written; left behind only by a crash
//! .probe-…                   whether the directory can be used; the same
//! ```
//!
//! All processes that share a directory must agree on them, so they stay as they
//! are as long as the format is version 1.

use std::path::PathBuf;

use uuid::Uuid;

use super::latch::LATCHES;
use super::place::Place;

pub(super) const RECORD_ENDING: &str = ".lock";
pub(super) const TEMPORARY: &str = ".new-";
pub(super) const PROBE: &str = ".probe-";
const LATCH: &str = ".latch-";

/// How much of a key a file name shows, in characters.
const READABLE: usize = 48;

/// What stands between the digest of a key and every other use of SHA-1.
const KEYS: Uuid = Uuid::from_u128(0x2c1a_6f0e_77c9_4b0b_a2b4_35c9_0d1e_5f42);

/// The files of one key.
#[derive(Clone, Debug)]
pub(super) struct Files {
    pub(super) record: PathBuf,
    pub(super) temporary: PathBuf,
    pub(super) latch: u8,
}

impl Place {
    pub(super) fn files(&self, key: &str) -> Files {
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
        let digest = digest.simple();
        self.files_of(
            &format!("{readable}.{digest}{RECORD_ENDING}"),
            digest.into_uuid(),
        )
    }

    /// The files of the record with this file name, if it is the name of one.
    pub(super) fn files_named(&self, file_name: &str) -> Option<Files> {
        let digest = match file_name.strip_prefix(TEMPORARY) {
            Some(digest) => digest,
            None => file_name.strip_suffix(RECORD_ENDING)?.rsplit_once('.')?.1,
        };
        let digest = Uuid::try_parse(digest).ok()?;
        Some(self.files_of(file_name, digest))
    }

    fn files_of(&self, file_name: &str, digest: Uuid) -> Files {
        Files {
            record: self.path().join(file_name),
            temporary: self.path().join(format!("{TEMPORARY}{}", digest.simple())),
            latch: digest.as_bytes()[15] % LATCHES,
        }
    }

    pub(super) fn latch_path(&self, latch: u8) -> PathBuf {
        self.path().join(format!("{LATCH}{latch:02x}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;
    use std::path::Path;

    #[test]
    fn every_key_has_a_file_of_its_own_with_a_harmless_name() {
        let place = Place::new(Path::new("/x"));
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
            let files = place.files(key);
            let name = files
                .record
                .file_name()
                .unwrap()
                .to_str()
                .unwrap()
                .to_owned();
            assert_eq!(files.record.parent(), Some(Path::new("/x")));
            assert!(name.len() < 128 && !name.starts_with('.') && name.ends_with(RECORD_ENDING));
            assert!(
                name.bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b)),
                "{name}"
            );
            assert!(folded.insert(name.to_ascii_lowercase()), "{key:?}");
            let again = place.files_named(&name).unwrap();
            assert_eq!(
                (again.latch, again.temporary),
                (files.latch, files.temporary)
            );
        }
    }

    #[test]
    fn the_names_of_version_1_stay_as_they_are() {
        let place = Place::new(Path::new("/x"));
        for (key, expected) in [
            (
                "QUEUE:reports",
                "QUEUE_reports.18d3c96b896f5221bf9c7bd64cfb34c9.lock 09",
            ),
            (
                "QUEUE:reports:eu/ça",
                "QUEUE_reports_eu__a.cedf0b16a8165395aaf202efa3e7352a.lock 2a",
            ),
        ] {
            let files = place.files(key);
            let name = files.record.file_name().unwrap().to_str().unwrap();
            assert_eq!(format!("{name} {:02x}", files.latch), expected);
        }
    }
}
