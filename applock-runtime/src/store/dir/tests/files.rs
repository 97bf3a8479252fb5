//! The files in the directory: crashes, damage, and what stands in the way.

use std::fs::{self, File};
use std::io::Read as _;
use std::path::Path;
use std::thread;

use super::super::codec::{RecordFile, tests::sample};
use super::super::directory::{Directory, Durability};
use super::super::file_names::Files;
use super::super::threads::CommitPermit;
use super::scratch;
use crate::protocol::Phase;
use crate::store::{StoreErrorKind, StoreResult};

fn home() -> (tempfile::TempDir, Directory) {
    let home = scratch();
    let directory = Directory::new(home.path());
    (home, directory)
}

fn replace(directory: &Directory, record: &RecordFile, permit: bool) -> StoreResult<()> {
    let files = files(directory);
    let permit = CommitPermit(&|| permit);
    directory.write(&files, record, Durability::Durable, &permit)
}

fn read(directory: &Directory) -> StoreResult<Option<RecordFile>> {
    directory.read(&files(directory), &sample().holding.who.key)
}

/// Of the sample's key.
fn files(directory: &Directory) -> Files {
    Files::of(directory.path(), &sample().holding.who.key)
}

fn with_token(token: u64) -> RecordFile {
    let mut record = sample();
    record.holding.token = token;
    record
}

fn names(directory: &Directory) -> Vec<String> {
    let entries = fs::read_dir(directory.path()).unwrap();
    entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect()
}

#[test]
fn a_relative_path_means_what_it_meant_when_it_was_given() {
    let directory = Directory::new(Path::new("locks"));
    assert_eq!(
        directory.path(),
        std::env::current_dir().unwrap().join("locks")
    );
}

#[test]
fn a_record_is_read_back_and_leaves_nothing_beside_it() {
    let (_home, directory) = home();
    assert_eq!(read(&directory).unwrap(), None);
    for token in [1, 2] {
        let holding = with_token(token);
        replace(&directory, &holding, true).unwrap();
        assert_eq!(read(&directory).unwrap(), Some(holding));
        assert_eq!(names(&directory).len(), 1);
    }
}

#[test]
fn a_heartbeat_changes_its_line_and_nothing_else() {
    let (_home, directory) = home();
    let files = files(&directory);
    let beat = |record: RecordFile, permit: bool| {
        let permit = CommitPermit(&|| permit);
        directory.write(&files, &record, Durability::Heartbeat, &permit)
    };
    let mut next = sample();
    next.holding.heartbeat_at += 7;
    next.holding.expires_at = u64::MAX;
    next.holding.phase = Phase::Claimed;
    let none = beat(next.clone(), true).unwrap_err();
    assert_eq!(
        none.kind,
        StoreErrorKind::Misconfigured,
        "it never makes a record"
    );
    replace(&directory, &sample(), true).unwrap();
    let file = File::open(&files.record).unwrap();
    assert_eq!(
        beat(next.clone(), false).unwrap_err().kind,
        StoreErrorKind::NotDone
    );
    assert_eq!(read(&directory).unwrap(), Some(sample()));
    beat(next.clone(), true).unwrap();
    assert_eq!(read(&directory).unwrap(), Some(next.clone()));
    assert_eq!(names(&directory).len(), 1);
    let mut text = String::new();
    (&file).read_to_string(&mut text).unwrap();
    assert_eq!(text, next.render(), "in place, without a new file");
}

#[test]
fn a_reader_finds_a_whole_record_while_a_heart_beats() {
    let (_home, directory) = home();
    let files = files(&directory);
    replace(&directory, &sample(), true).unwrap();
    let done = std::sync::atomic::AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            for beat in 0..5_000 {
                let mut next = sample();
                next.holding.heartbeat_at += beat * 0x0101_0101_0101;
                directory
                    .write(
                        &files,
                        &next,
                        Durability::Heartbeat,
                        &CommitPermit(&|| true),
                    )
                    .unwrap();
            }
            done.store(true, std::sync::atomic::Ordering::SeqCst);
        });
        while !done.load(std::sync::atomic::Ordering::SeqCst) {
            assert!(read(&directory).unwrap().is_some());
        }
    });
}

#[test]
fn a_step_without_a_permit_leaves_the_old_record_and_nothing_beside_it() {
    let (_home, directory) = home();
    replace(&directory, &sample(), true).unwrap();
    let error = replace(&directory, &with_token(1), false).unwrap_err();
    assert_eq!(error.kind, StoreErrorKind::NotDone);
    assert_eq!(read(&directory).unwrap(), Some(sample()));
    assert_eq!(names(&directory).len(), 1);
}

#[test]
fn a_crash_while_writing_harms_neither_the_old_record_nor_the_next_writer() {
    let (_home, directory) = home();
    let temporary = files(&directory).temporary;
    let text = sample().render();
    for length in (0..=text.len()).step_by(7) {
        fs::write(&temporary, &text[..length]).unwrap();
        assert_eq!(read(&directory).unwrap(), None);
    }
    replace(&directory, &sample(), true).unwrap();
    fs::write(&temporary, "half").unwrap();
    assert_eq!(read(&directory).unwrap(), Some(sample()));
    let next = with_token(9);
    replace(&directory, &next, true).unwrap();
    assert_eq!(read(&directory).unwrap(), Some(next));
    assert_eq!(names(&directory).len(), 1);
}

#[test]
fn damaged_and_foreign_files_are_named_and_never_changed() {
    let (_home, directory) = home();
    let path = files(&directory).record;
    let text = sample().render();
    let mut contents: Vec<Vec<u8>> = (0..text.len())
        .map(|length| text.as_bytes()[..length].to_vec())
        .collect();
    contents.push(b"applock 1\n".to_vec());
    contents.push(b"applock 3\n".to_vec());
    contents.push(vec![b'a'; 3 << 20]);
    let mut other = sample();
    other.holding.who.key = "QUEUE:other".into();
    contents.push(other.render().into_bytes());
    for content in contents {
        fs::write(&path, &content).unwrap();
        let error = read(&directory).unwrap_err();
        assert_eq!(error.kind, StoreErrorKind::Misconfigured);
        assert!(error.what.contains(&format!("{path:?}")), "{}", error.what);
        assert!(
            ["move it away", "same version", "older version"]
                .iter()
                .any(|way| error.remedy.contains(way))
        );
        assert_eq!(fs::read(&path).unwrap(), content);
    }
}

#[cfg(unix)]
#[test]
fn what_is_no_file_is_refused_without_opening_it() {
    let (_home, directory) = home();
    let path = files(&directory).record;
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
            read(&directory).unwrap_err().kind,
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
    let (home, directory) = home();
    let target = home.path().join("precious");
    fs::write(&target, "mine").unwrap();
    std::os::unix::fs::symlink(&target, files(&directory).temporary).unwrap();
    replace(&directory, &sample(), true).unwrap();
    assert_eq!(fs::read_to_string(&target).unwrap(), "mine");
    assert_eq!(read(&directory).unwrap(), Some(sample()));
}

#[cfg(target_os = "linux")]
#[test]
fn a_write_that_fails_is_not_done_and_leaves_nothing() {
    let (home, directory) = home();
    replace(&directory, &sample(), true).unwrap();
    // A directory with something inside: it can't be removed as a left-over.
    let temporary = files(&directory).temporary;
    fs::create_dir(&temporary).unwrap();
    let error = replace(&directory, &with_token(1), true).unwrap_err();
    assert_ne!(error.kind, StoreErrorKind::Unknown);
    assert_eq!(read(&directory).unwrap(), Some(sample()));
    drop(home);
}

#[test]
fn a_record_too_long_to_be_read_again_is_not_written() {
    let (_home, directory) = home();
    let mut holding = sample();
    holding.holding.who.app = Some("x".repeat(4 << 20).into());
    assert_eq!(
        replace(&directory, &holding, true).unwrap_err().kind,
        StoreErrorKind::Misconfigured
    );
    assert!(names(&directory).is_empty());
}

#[test]
fn no_directory_is_an_error_and_not_a_free_lock() {
    let (home, directory) = home();
    drop(home);
    let error = read(&directory).unwrap_err();
    assert_eq!(error.kind, StoreErrorKind::Misconfigured);
    assert!(error.what.contains(&format!("{:?}", directory.path())));
}
