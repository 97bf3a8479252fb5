//! Opening a lock directory: it is created if it is missing, and tried out, so that
//! what is wrong with it is reported at once and not in the middle of the night.

use std::fs::{self, DirBuilder};
use std::io::{self, ErrorKind, Write as _};
use std::path::{Path, PathBuf};

use uuid::Uuid;

use super::directory::{Directory, open_directory};
use super::error::io_fault;
use super::file_names::PROBE;
use crate::store::{StoreError, StoreErrorKind, StoreResult};

/// The directory was created just now.
#[derive(Clone, Copy)]
struct IsNew(bool);

/// Creates the directory with its parents if need be, and checks that it can be
/// used. If it cannot, nothing that was created here stays behind.
pub(super) fn open(directory: &Directory) -> StoreResult<()> {
    open_and(directory, try_out)
}

fn open_and(
    directory: &Directory,
    try_out: impl FnOnce(&Directory, IsNew) -> StoreResult<()>,
) -> StoreResult<()> {
    let path = directory.path();
    refuse_network(path)?;
    let created = create(path)?;
    let usable = try_out(directory, IsNew(!created.is_empty()));
    if usable.is_err() {
        remove(&created);
    }
    usable
}

/// Creates `path` and those of its parents that are missing; returns them.
///
/// Rights 0700: another user's processes share the locks only where the directory
/// was set up for that, by its owner, group and mode.
fn create(path: &Path) -> StoreResult<Vec<PathBuf>> {
    let fault = |error| {
        let doing = "create the lock directory";
        io_fault(StoreErrorKind::NotDone, doing, path, error)
    };
    match fs::metadata(path) {
        Ok(found) if found.is_dir() => return Ok(Vec::new()),
        Ok(_) => {
            return Err(StoreError::new(
                StoreErrorKind::Misconfigured,
                format!("{path:?} is not a directory"),
                "name a directory, or a path where one can be created",
            ));
        }
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(fault(error)),
    }
    let missing: Vec<&Path> = path
        .ancestors()
        .take_while(|parent| !parent.as_os_str().is_empty() && !parent.exists())
        .collect();
    #[cfg_attr(not(unix), allow(unused_mut))]
    let mut builder = DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    let mut created = Vec::new();
    for parent in missing.into_iter().rev() {
        match builder.create(parent) {
            Ok(()) => created.push(parent.to_owned()),
            // Another process was quicker.
            Err(error) if error.kind() == ErrorKind::AlreadyExists && parent.is_dir() => {}
            Err(error) => {
                remove(&created);
                return Err(fault(error));
            }
        }
    }
    for new in &created {
        // So that the directory, too, survives a failure of power. Where the parent
        // cannot be opened it is as durable as any other directory.
        if let Some(Ok(Some(parent))) = new.parent().map(open_directory) {
            let _ = parent.sync_all();
        }
    }
    Ok(created)
}

/// Removes what [`create`] has created, as far as it is still empty.
fn remove(created: &[PathBuf]) {
    for directory in created.iter().rev() {
        // Fails, as it should, where another process has put a file inside.
        let _ = fs::remove_dir(directory);
    }
}

/// Does once, with a file of its own, all that a step will do. But for the syncs, where the directory
/// was there before: each step syncs for itself and tells if that fails, and two syncs more at the
/// start of each process cost more than all else it does.
fn try_out(directory: &Directory, IsNew(is_new): IsNew) -> StoreResult<()> {
    let path = directory.path();
    let fault =
        |doing| move |error: io::Error| io_fault(StoreErrorKind::NotDone, doing, path, error);
    let probe = path.join(format!("{PROBE}{}", Uuid::new_v4().simple()));
    let mut file = directory
        .create(&probe)
        .map_err(fault("create a file in the lock directory"))?;
    let tried = (|| {
        let sync = |file: &fs::File| if is_new { file.sync_data() } else { Ok(()) };
        file.write_all(b"applock\n")
            .and_then(|()| sync(&file))
            .map_err(fault("write a file in the lock directory"))?;
        file.try_lock()
            .map_err(|error| fault("lock a file in the lock directory")(error.into()))?;
        let sync = |directory: fs::File| if is_new { directory.sync_all() } else { Ok(()) };
        open_directory(path)
            .and_then(|directory| directory.map_or(Ok(()), sync))
            .map_err(fault("read and sync the lock directory"))
    })();
    drop(file);
    let removed = fs::remove_file(&probe).map_err(fault("remove a file from the lock directory"));
    tried.and(removed)
}

/// A lock directory excludes the processes of one machine. On a network file system
/// it would look as if it excluded those of several, and would not (rule R10).
#[cfg(any(target_os = "linux", target_os = "android"))]
fn refuse_network(path: &Path) -> StoreResult<()> {
    // Where this can't be asked, the steps that follow report what is wrong.
    let Some(Ok(found)) = path
        .ancestors()
        .find(|parent| parent.exists())
        .map(rustix::fs::statfs)
    else {
        return Ok(());
    };
    match network_name(found.f_type as u64) {
        None => Ok(()),
        Some(name) => Err(StoreError::new(
            StoreErrorKind::Misconfigured,
            format!("{path:?} is on a network file system ({name})"),
            "a lock directory holds for one machine only: name one on a local disk, or use redis:// for several machines",
        )),
    }
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn refuse_network(_path: &Path) -> StoreResult<()> {
    Ok(())
}

/// The file systems that several machines share, by the magic numbers of `statfs(2)`
/// and the kernel's `linux/magic.h`.
#[cfg(any(target_os = "linux", target_os = "android"))]
fn network_name(kind: u64) -> Option<&'static str> {
    // The field is a signed word on some machines.
    Some(match kind & 0xffff_ffff {
        0x6969 => "NFS",
        0x517b => "SMB",
        0xfe53_4d42 => "SMB2",
        0xff53_4d42 => "CIFS",
        0x564c => "NCP",
        0x5346_414f => "AFS",
        0x7375_7245 => "Coda",
        0x00c3_6400 => "Ceph",
        0x0bd0_0bd0 => "Lustre",
        0x0116_1970 => "GFS2",
        0x7461_636f => "OCFS2",
        0x4750_4653 => "GPFS",
        0x1983_0326 => "BeeGFS",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::super::tests::scratch;
    use super::*;

    fn entries(path: &Path) -> Vec<String> {
        let names = fs::read_dir(path).unwrap();
        names
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect()
    }

    fn refused(path: &Path) -> StoreError {
        let error = open(&Directory::new(path)).unwrap_err();
        let shown = format!("{path:?}");
        assert!(
            error.what.contains(&shown),
            "{} does not name {shown}",
            error.what
        );
        assert!(!error.remedy.is_empty());
        error
    }

    #[test]
    fn a_missing_directory_is_created_with_its_parents_for_this_user_only() {
        let home = scratch();
        let path = home.path().join("a/b/../c d");
        open(&Directory::new(&path)).unwrap();
        open(&Directory::new(&path)).unwrap();
        assert_eq!(entries(&path), Vec::<String>::new());
        #[cfg(unix)]
        for created in ["a", "a/c d"] {
            use std::os::unix::fs::PermissionsExt;
            let mode = fs::metadata(home.path().join(created))
                .unwrap()
                .permissions()
                .mode();
            assert_eq!(mode & 0o777, 0o700);
        }
    }

    #[test]
    fn a_path_that_is_a_file_is_refused_and_the_file_stays() {
        let home = scratch();
        let file = home.path().join("file");
        fs::write(&file, "mine").unwrap();
        assert_eq!(refused(&file).kind, StoreErrorKind::Misconfigured);
        let below = refused(&file.join("locks"));
        assert_eq!(below.kind, StoreErrorKind::Misconfigured);
        assert!(below.what.contains("Not a directory"), "{}", below.what);
        assert_eq!(fs::read_to_string(&file).unwrap(), "mine");
        assert_eq!(entries(home.path()), ["file"]);
    }

    #[test]
    fn what_was_created_before_the_failure_does_not_stay_behind() {
        let home = scratch();
        let path = home.path().join("a/b").join("x".repeat(300));
        assert_eq!(refused(&path).kind, StoreErrorKind::Misconfigured);
        assert_eq!(entries(home.path()), Vec::<String>::new());
        assert_eq!(
            refused(&home.path().join("nul\0")).kind,
            StoreErrorKind::Misconfigured
        );
        assert_eq!(entries(home.path()), Vec::<String>::new());
    }

    #[test]
    fn a_directory_that_turns_out_unusable_is_removed_again_if_it_was_created_here() {
        let home = scratch();
        for stays in [false, true] {
            let refuse = |_: &Directory, IsNew(is_new)| {
                assert_eq!(is_new, !stays);
                Err(StoreError::new(StoreErrorKind::NotDone, "full", ""))
            };
            let path = home.path().join("a/b");
            if stays {
                fs::create_dir_all(&path).unwrap();
            }
            open_and(&Directory::new(&path), refuse).unwrap_err();
            assert_eq!(home.path().join("a").exists(), stays);
        }
    }

    #[cfg(unix)]
    #[test]
    fn a_link_to_nowhere_is_refused_and_a_link_to_a_directory_is_followed() {
        let home = scratch();
        let link = home.path().join("link");
        std::os::unix::fs::symlink(home.path().join("gone"), &link).unwrap();
        assert_eq!(refused(&link).kind, StoreErrorKind::Misconfigured);
        fs::create_dir(home.path().join("gone")).unwrap();
        open(&Directory::new(&link)).unwrap();
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_directory_in_which_nothing_can_be_created_is_refused() {
        for path in [
            "/proc",
            "/proc/locks-of-nobody",
            "/sys/kernel",
            "/sys/kernel/locks-of-nobody",
        ] {
            let error = refused(Path::new(path));
            assert!(!error.is_passing(), "{path}: {error:?}");
            assert!(error.what.contains("os error"), "{path}: {}", error.what);
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn network_file_systems_are_told_from_local_ones() {
        assert_eq!(network_name(0x6969), Some("NFS"));
        assert_eq!(network_name(0xffff_ffff_ff53_4d42), Some("CIFS"));
        for local in [
            0xef53,
            0x5846_5342,
            0x9123_683e,
            0x0102_1994,
            0x794c_7630,
            0x2fc1_2fc1,
        ] {
            assert_eq!(network_name(local), None);
        }
    }
}
