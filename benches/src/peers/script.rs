//! Peers in other languages: a script for each in `benches/peers`, run where its
//! interpreter and its library are installed. The README there says how, and what
//! `APPLOCK_PYTHON` and `APPLOCK_NODE_MODULES` name.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use super::{Contestant, Program, Role};

/// A language that a script is in.
#[derive(Clone, Copy)]
enum Language {
    Python,
    Node,
}

/// All of them, those included that can't run here.
pub(super) fn all() -> Vec<Contestant> {
    use Language::{Node, Python};
    vec![
        script("redis-py", Python, ("redis", "redis_py.py"), true, &["set"]),
        script(
            "python-redis-lock",
            Python,
            ("python-redis-lock", "python_redis_lock.py"),
            false,
            &["set", "blpop"],
        ),
        script(
            "node redlock",
            Node,
            ("redlock", "node_redlock.mjs"),
            true,
            &[],
        ),
        script(
            "redis-semaphore",
            Node,
            ("redis-semaphore", "redis_semaphore.mjs"),
            true,
            &["set"],
        ),
    ]
}

fn script(
    name: &'static str,
    language: Language,
    (library, file): (&str, &str),
    polls: bool,
    sends: &'static [&'static str],
) -> Contestant {
    let file = folder().join(file);
    let found = if file.exists() {
        language.version(library)
    } else {
        Err(format!("there is no {}", file.display()))
    };
    Contestant {
        name,
        version: found.clone().unwrap_or_default(),
        language: language.name(),
        sends,
        polls,
        role: Role::Peer,
        program: Program::Script(found.map(|_| (language.interpreter(), file))),
    }
}

/// Where the scripts are.
fn folder() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/peers"))
}

impl Language {
    fn name(self) -> &'static str {
        match self {
            Self::Python => "Python",
            Self::Node => "node",
        }
    }

    fn interpreter(self) -> String {
        match self {
            Self::Python => {
                std::env::var("APPLOCK_PYTHON").unwrap_or_else(|_| "python3".to_owned())
            }
            Self::Node => "node".to_owned(),
        }
    }

    /// Of an installed library; or that it, or the interpreter, is not.
    fn version(self, library: &str) -> Result<String, String> {
        let missing = || format!("not installed: {library} for {}", self.name());
        match self {
            Self::Python => {
                let ask = format!("import importlib.metadata as m; print(m.version('{library}'))");
                self.run(&["-c", &ask]).ok_or_else(missing)
            }
            Self::Node => {
                self.run(&["--version"])
                    .ok_or_else(|| "not installed: node".to_owned())?;
                package_version(library).ok_or_else(missing)
            }
        }
    }

    fn run(self, arguments: &[&str]) -> Option<String> {
        let asked = Command::new(self.interpreter())
            .args(arguments)
            .stdin(Stdio::null())
            .output();
        match asked {
            Ok(Output { status, stdout, .. }) if status.success() => {
                Some(String::from_utf8_lossy(&stdout).trim().to_owned())
            }
            _ => None,
        }
    }
}

/// Of a package of npm, from where the scripts look for it.
fn package_version(name: &str) -> Option<String> {
    let named = std::env::var_os("APPLOCK_NODE_MODULES").map(PathBuf::from);
    let folder = named.unwrap_or_else(|| folder().to_path_buf());
    let about = [folder.join("node_modules"), folder]
        .into_iter()
        .find_map(|modules| std::fs::read(modules.join(name).join("package.json")).ok())?;
    let about: serde_json::Value = serde_json::from_slice(&about).ok()?;
    let version = about.get("version")?.as_str()?;
    Some(version.trim_start_matches('v').to_owned())
}
