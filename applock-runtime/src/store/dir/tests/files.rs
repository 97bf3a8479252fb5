//! The files in the directory: crashes, damage, and what stands in the way.

use std::fs::{self, File};
use std::io::Read as _;
use std::path::Path;
use std::thread;

use super::super::patience::Leave;
use super::super::place::{Directory, Manner};
use super::super::record::{Holding, tests::sample};
use super::scratch;
use crate::store::{StoreErrorKind, StoreResult};

fn home() -> (tempfile::TempDir, Directory) {
    let home = scratch();
    let place = Directory::new(home.path());
    (home, place)
}

fn replace(place: &Directory, holding: &Holding, leave: bool) -> StoreResult<()> {
    let files = place.files(&holding.key);
    place.write(&files, holding, Manner::Durable, &Leave(&|| leave))
}

fn read(place: &Directory) -> StoreResult<Option<Holding>> {
    let key = sample().key;
    place.read(&place.files(&key), &key)
}

fn names(place: &Directory) -> Vec<String> {
    let entries = fs::read_dir(place.path()).unwrap();
    entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect()
}

#[test]
fn a_relative_path_means_what_it_meant_when_it_was_given() {
    let place = Directory::new(Path::new("locks"));
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
fn a_heartbeat_changes_its_line_and_nothing_else() {
    let (_home, place) = home();
    let files = place.files(&sample().key);
    let beat = |holding, leave| place.write(&files, &holding, Manner::Heartbeat, &Leave(&|| leave));
    let next = Holding {
        beat_ns: 7,
        end_ns: u64::MAX,
        ttl_ns: 9,
        ..sample()
    };
    let none = beat(next.clone(), true).unwrap_err();
    assert_eq!(
        none.kind,
        StoreErrorKind::Misconfigured,
        "it never makes a record"
    );
    replace(&place, &sample(), true).unwrap();
    let file = File::open(&files.record).unwrap();
    assert_eq!(
        beat(next.clone(), false).unwrap_err().kind,
        StoreErrorKind::NotDone
    );
    assert_eq!(read(&place).unwrap(), Some(sample()));
    beat(next.clone(), true).unwrap();
    assert_eq!(read(&place).unwrap(), Some(next.clone()));
    assert_eq!(names(&place).len(), 1);
    let mut text = String::new();
    (&file).read_to_string(&mut text).unwrap();
    assert_eq!(text, next.render(), "in place, without a new file");
}

#[test]
fn whoever_reads_while_a_heart_beats_reads_a_whole_record() {
    let (_home, place) = home();
    let files = place.files(&sample().key);
    replace(&place, &sample(), true).unwrap();
    let done = std::sync::atomic::AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            for beat in 0..5_000 {
                let next = Holding {
                    beat_ns: beat * 0x0101_0101_0101,
                    ..sample()
                };
                place
                    .write(&files, &next, Manner::Heartbeat, &Leave(&|| true))
                    .unwrap();
            }
            done.store(true, std::sync::atomic::Ordering::SeqCst);
        });
        while !done.load(std::sync::atomic::Ordering::SeqCst) {
            assert!(read(&place).unwrap().is_some());
        }
    });
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
