//! The names of things in a store: how an application and a name become a key.
//!
//! Two different pairs of names never make the same key, and a key of an older
//! version stays the key of this one: `tests/keys.golden` holds the list.

use std::fmt::Write as _;
use std::sync::Arc;

use crate::error::{Error, Result};

/// What stands before an application's name unless the builder says otherwise.
pub(crate) const DEFAULT_PREFIX: &str = "QUEUE:";

/// The longest key, in bytes. Redis takes more, but a key travels with every
/// heartbeat, and a 100 MB key stops the server for half a second.
pub(crate) const MAX_KEY: usize = 65_535 + 1_024;

/// The longest application or name, in bytes.
const MAX_NAME: usize = 65_535;

/// A lock's key, and what it was made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Key {
    pub(crate) lock: Arc<str>,
    app: Part,
    name: Part,
}

impl Key {
    /// `{prefix}{app}` or `{prefix}{app}:{name}`.
    pub(crate) fn of(prefix: &str, app: &str, name: Option<&str>) -> Result<Self> {
        check("app", app)?;
        let mut lock = String::with_capacity(prefix.len() + app.len() + 8);
        lock.push_str(prefix);
        // The first colon after the prefix ends the application, so an application
        // may not bring one of its own; a name may.
        escape(app, &[':'], &mut lock);
        if let Some(name) = name {
            check("name", name)?;
            lock.push(':');
            escape(name, &[], &mut lock);
        }
        Ok(Self {
            app: Part::of(&lock, prefix.len(), app),
            name: name.map_or(Part::None, |name| {
                Part::of(&lock, lock.len() - name.len(), name)
            }),
            lock: lock.into(),
        })
    }

    /// The whole key as it is given.
    pub(crate) fn whole(key: &str) -> Result<Self> {
        check("key", key)?;
        for side in Side::ALL {
            let name = side.name();
            let (begins, ends) = (format!("{name}:"), format!("}}:{name}"));
            // Those of locks with a hash tag of their own begin so.
            let is_side = key.starts_with(&begins) && (side == Side::Fence || has_hash_tag(key));
            if is_side || key.ends_with(&ends) {
                return Err(Error::invalid(
                    "key",
                    format_args!("{key:?}"),
                    format!(
                        "keys that begin with {begins:?} or end with {ends:?} keep the {} of \
                         other locks",
                        if side == Side::Fence {
                            "fencing tokens"
                        } else {
                            "waiters"
                        }
                    ),
                    "give the lock another key",
                ));
            }
        }
        Ok(Self {
            lock: key.into(),
            app: Part::None,
            name: Part::None,
        })
    }

    /// The application, if the key was made of one.
    pub(crate) fn app(&self) -> Option<&str> {
        self.app.of_key(&self.lock)
    }

    /// The name of the lock inside its application.
    pub(crate) fn name(&self) -> Option<&str> {
        self.name.of_key(&self.lock)
    }

    /// A key beside the lock's, in the same hash slot (Redis Cluster specification, 'Hash
    /// tags'), in pieces.
    pub(crate) fn side(&self, side: Side) -> [&str; 4] {
        let name = side.name();
        if has_hash_tag(&self.lock) {
            [name, ":", &self.lock, ""]
        } else {
            ["{", &self.lock, "}:", name]
        }
    }
}

/// A name that a key was made of: where it stands in the key, or, if it was escaped there,
/// by itself. Kept small, for each lock that is held has two.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    None,
    Here { from: u32, length: u32 },
    Escaped(Arc<String>),
}

impl Part {
    /// The part `text`, which stands at `from` in the key unless it was escaped.
    fn of(key: &str, from: usize, text: &str) -> Self {
        let range = u32::try_from(from).ok().zip(u32::try_from(text.len()).ok());
        match range {
            Some((first, length)) if key.get(from..from + text.len()) == Some(text) => Self::Here {
                from: first,
                length,
            },
            _ => Self::Escaped(Arc::new(text.to_owned())),
        }
    }

    fn of_key<'a>(&'a self, key: &'a str) -> Option<&'a str> {
        match self {
            Self::None => None,
            Self::Here { from, length } => {
                let from = usize::try_from(*from).ok()?;
                key.get(from..from + usize::try_from(*length).ok()?)
            }
            Self::Escaped(text) => Some(text),
        }
    }
}

/// What is kept beside a lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    /// The fencing counter and the last holding.
    Fence,
    /// The wait queue: the order of the waiters.
    Queue,
    /// Who they are.
    Waiters,
}

impl Side {
    const ALL: [Self; 3] = [Self::Fence, Self::Queue, Self::Waiters];

    fn name(self) -> &'static str {
        match self {
            Self::Fence => "fence",
            Self::Queue => "queue",
            Self::Waiters => "waiters",
        }
    }
}

fn has_hash_tag(key: &str) -> bool {
    key.split_once('{')
        .and_then(|(_, rest)| rest.split_once('}'))
        .is_some_and(|(tag, _)| !tag.is_empty())
}

fn check(what: &'static str, given: &str) -> Result<()> {
    if given.is_empty() {
        return Err(Error::invalid(
            what,
            "\"\"",
            "it is empty, so every empty one would be the same lock",
            "give it a name, such as \"reports\"",
        ));
    }
    if given.len() > MAX_NAME {
        return Err(Error::invalid(
            what,
            format_args!("{given:?}"),
            format!("it has {} bytes, and {MAX_NAME} is the most", given.len()),
            "use a shorter one, or a digest of it",
        ));
    }
    Ok(())
}

/// Percent-encodes what would make two names one key, split the hash slot, or be
/// unreadable in a terminal.
fn escape(part: &str, also: &[char], out: &mut String) {
    for c in part.chars() {
        if matches!(c, '%' | '{' | '}') || c.is_control() || also.contains(&c) {
            let mut bytes = [0; 4];
            for byte in c.encode_utf8(&mut bytes).bytes() {
                // Writing to a String cannot fail.
                let _ = write!(out, "%{byte:02X}");
            }
        } else {
            out.push(c);
        }
    }
}

/// A key prefix that keeps different applications apart.
pub(crate) fn check_prefix(prefix: &str) -> Result<()> {
    if prefix.len() > MAX_KEY - MAX_NAME {
        return Err(Error::invalid(
            "key_prefix",
            format_args!("{prefix:?}"),
            format!(
                "it has {} bytes, and {} is the most",
                prefix.len(),
                MAX_KEY - MAX_NAME
            ),
            "use a shorter one",
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    fn key(app: &str, name: Option<&str>) -> String {
        Key::of(DEFAULT_PREFIX, app, name).unwrap().lock.to_string()
    }

    #[test]
    fn plain_names_make_the_keys_of_the_python_applocker() {
        assert_eq!(key("reports", None), "QUEUE:reports");
        assert_eq!(key("reports", Some("eu")), "QUEUE:reports:eu");
    }

    #[test]
    fn different_names_never_make_the_same_key() {
        let pairs = [
            ("a", Some("bc")),
            ("ab", Some("c")),
            ("a:bc", None),
            ("a", Some("b:c")),
            ("a:b", Some("c")),
            ("a%3Ab", Some("c")),
            ("a", None),
            ("A", None),
            ("a ", None),
            ("a.", None),
            ("a{b}", None),
            ("a%7Bb%7D", None),
            ("a\n", None),
            ("a\\n", None),
            ("{a}", None),
            ("}", None),
            ("a", Some("{b}")),
            ("ı", None),
            ("i", None),
        ];
        let keys: HashSet<String> = pairs.iter().map(|(app, name)| key(app, *name)).collect();
        assert_eq!(keys.len(), pairs.len());
        let fences: HashSet<String> = pairs
            .iter()
            .map(|(app, name)| {
                Key::of(DEFAULT_PREFIX, app, *name)
                    .unwrap()
                    .side(Side::Fence)
                    .concat()
            })
            .collect();
        assert_eq!(fences.len(), pairs.len());
    }

    #[test]
    fn side_keys_share_the_hash_slot_and_are_kept_apart() {
        assert_eq!(
            Key::of(DEFAULT_PREFIX, "reports", None)
                .unwrap()
                .side(Side::Fence)
                .concat(),
            "{QUEUE:reports}:fence"
        );
        assert_eq!(
            Key::whole("jobs{eu}").unwrap().side(Side::Fence).concat(),
            "fence:jobs{eu}"
        );
        assert_ne!(
            Key::whole("{x}").unwrap().side(Side::Fence).concat(),
            Key::whole("x").unwrap().side(Side::Fence).concat()
        );
        assert!(Key::whole("{x}:fence").is_err());
        assert!(Key::whole("fence:{x}").is_err());
    }

    #[test]
    fn empty_and_oversized_names_are_refused_with_the_remedy() {
        for error in [
            Key::of("", "", None).unwrap_err(),
            Key::of("", "a", Some("")).unwrap_err(),
            Key::whole("").unwrap_err(),
            Key::of("", &"x".repeat(65_536), None).unwrap_err(),
        ] {
            let text = error.to_string();
            assert!(
                text.contains("give it a name") || text.contains("use a shorter"),
                "{text}"
            );
            assert!(text.len() < 400, "{text}");
        }
        assert!(Key::of("", &"x".repeat(65_535), None).is_ok());
    }

    #[test]
    fn a_key_knows_what_it_was_made_of() {
        for prefix in ["", DEFAULT_PREFIX, "ü:"] {
            for app in ["reports", "a:b", "%", "{x}", "ü", "5"] {
                for name in [None, Some("eu"), Some("%25"), Some("a:{b}"), Some("ü")] {
                    let key = Key::of(prefix, app, name).unwrap();
                    assert_eq!((key.app(), key.name()), (Some(app), name), "{key:?}");
                }
            }
        }
        let whole = Key::whole("reports").unwrap();
        assert_eq!((whole.app(), whole.name()), (None, None));
    }
}
