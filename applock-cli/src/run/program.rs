//! Which program the command is: looked for before the lock is taken, so that a misspelt one
//! counts as no run.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, access};

use crate::exit::{self, Failure, quoted};

/// A program and its arguments.
#[derive(Clone, Debug)]
pub(super) struct Program {
    /// As it was written.
    pub(super) name: OsString,
    /// Where it was found.
    pub(super) path: PathBuf,
    pub(super) arguments: Vec<OsString>,
}

impl Program {
    /// The last part of its path.
    pub(super) fn name(&self) -> Option<&OsStr> {
        Path::new(&self.name).file_name()
    }
}

pub(super) fn find(command: &[OsString]) -> Result<Program, Failure> {
    let Some((name, arguments)) = command.split_first() else {
        return Err(Failure::new(
            exit::USAGE,
            "there is no command; write it after a --; see `applock run --help`",
        ));
    };
    let shown = quoted(&name.to_string_lossy());
    let missing = |what: &str| Failure::new(exit::NOT_FOUND, format!("{shown}: {what}"));
    if name.is_empty() {
        return Err(missing("an empty name is no command"));
    }
    let mut path = PathBuf::from(name);
    if name.as_bytes().contains(&b'/') {
        can_be_run(&path, &shown)?;
    } else if let Some(folders) = std::env::var_os("PATH") {
        // Without a PATH the system has one of its own, and the start of the command tells.
        let mut refused = None;
        let mut candidates = std::env::split_paths(&folders).map(|folder| folder.join(name));
        let found = candidates.find(|candidate| match can_be_run(candidate, &shown) {
            Ok(()) => true,
            Err(failure) => {
                if failure.code == exit::NOT_EXECUTABLE {
                    refused = Some(failure);
                }
                false
            }
        });
        path = match found {
            Some(found) => found,
            None => {
                return Err(refused.unwrap_or_else(|| missing("there is no such command in PATH")));
            }
        };
    }
    Ok(Program {
        name: name.clone(),
        path,
        arguments: arguments.to_vec(),
    })
}

fn can_be_run(path: &Path, shown: &str) -> Result<(), Failure> {
    let file = path
        .metadata()
        .map_err(|error| Failure::new(of(&error), format!("{shown}: {error}")))?;
    let refused = |what: &str| {
        Err(Failure::new(
            exit::NOT_EXECUTABLE,
            format!("{shown}: {what}"),
        ))
    };
    if file.is_dir() {
        return refused("it is a directory, not a program");
    }
    if access(path, Access::EXEC_OK).is_err() {
        return refused("it may not be run; chmod +x makes it a program");
    }
    Ok(())
}

/// The exit code for a program that can't be started.
pub(super) fn of(error: &std::io::Error) -> u8 {
    match error.kind() {
        std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory => exit::NOT_FOUND,
        _ => exit::NOT_EXECUTABLE,
    }
}
