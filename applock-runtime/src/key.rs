//! The names of things in a store: how an application and a name become a key.
//!
//! Two different pairs of names never make the same key, and a key of an older
//! version stays the key of this one: `tests/keys.golden` holds the list.

use std::fmt::{self, Write as _};
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::shown::shown;

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
    /// The function that asks for the lock, for people who look at its holder.
    pub(crate) function: Option<Function>,
}

/// A function under the attribute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Function {
    pub(crate) module: &'static str,
    pub(crate) name: &'static str,
}

/// Its path.
impl fmt::Display for Function {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}::{}", self.module, self.name)
    }
}

/// As the log and spans show it.
impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        shown(&self.lock).fmt(f)
    }
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
        // The names are escaped, so only a prefix with braces can make such a key.
        check_side("app", &lock)?;
        Ok(Self {
            app: Part::of(&lock, prefix.len(), app),
            name: name.map_or(Part::None, |name| {
                Part::of(&lock, lock.len() - name.len(), name)
            }),
            lock: lock.into(),
            function: None,
        })
    }

    /// The whole key as it is given.
    pub(crate) fn whole(key: &str) -> Result<Self> {
        check("key", key)?;
        check_braces("key", key)?;
        check_side("key", key)?;
        Ok(Self {
            lock: key.into(),
            app: Part::None,
            name: Part::None,
            function: None,
        })
    }

    /// A key that a store names: it was checked when its lock was taken.
    pub(crate) fn of_lock(lock: &str) -> Self {
        Self {
            lock: lock.into(),
            app: Part::None,
            name: Part::None,
            function: None,
        }
    }

    /// The same, for the function that asks for it.
    pub(crate) fn taken_by(self, function: Option<Function>) -> Self {
        Self { function, ..self }
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

    /// Which side key of some lock the key is, if it is one: the other way round of [`Key::side`].
    fn of(key: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|side| {
            let name = side.name();
            let tagged = key.strip_prefix(name).and_then(|key| key.strip_prefix(':'));
            let plain = key
                .strip_prefix('{')
                .and_then(|key| key.strip_suffix(name)?.strip_suffix("}:"));
            tagged.is_some_and(has_hash_tag)
                || plain.is_some_and(|lock| !lock.is_empty() && !lock.contains('}'))
        })
    }
}

/// Whether that key keeps something beside a lock.
pub(crate) fn is_side(key: &str) -> bool {
    Side::of(key).is_some()
}

/// Whether a part of the key alone decides its slot: what stands between the first `{` and the
/// first `}` after it, unless that is nothing.
fn has_hash_tag(key: &str) -> bool {
    key.split_once('{')
        .and_then(|(_, rest)| rest.split_once('}'))
        .is_some_and(|(tag, _)| !tag.is_empty())
}

/// Danger: a `}` without a hash tag. The whole key decides its slot then, and inside of
/// `{KEY}:fence` it would end the tag too early: lock and side keys would be on two nodes of a
/// cluster, and no script could change both in one step (R3).
fn check_braces(what: &'static str, key: &str) -> Result<()> {
    if has_hash_tag(key) || !key.contains('}') {
        return Ok(());
    }
    Err(Error::invalid(
        what,
        format_args!("{key:?}"),
        "it has a } and no hash tag ({…} around at least one character, at its first {), so the keys \
         beside the lock would be in another slot",
        "leave the } out, or put the part that decides the slot into braces: jobs{eu}",
    ))
}

/// Danger: a lock at the side key of another lock. It would be that one's fencing token, or its
/// queue.
fn check_side(what: &'static str, key: &str) -> Result<()> {
    let Some(side) = Side::of(key) else {
        return Ok(());
    };
    Err(Error::invalid(
        what,
        format_args!("{key:?}"),
        format!(
            "that key keeps the {} of another lock",
            if side == Side::Fence {
                "fencing tokens"
            } else {
                "waiters"
            }
        ),
        "give the lock another key, or another prefix",
    ))
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
    let is_meant = |c: char| matches!(c, '%' | '{' | '}') || c.is_control() || also.contains(&c);
    // Writing to a String cannot fail.
    let _ = encode(part, is_meant, out);
}

/// Percent-encodes these characters of a text.
fn encode(text: &str, is_meant: impl Fn(char) -> bool, out: &mut impl fmt::Write) -> fmt::Result {
    for c in text.chars() {
        if is_meant(c) {
            for byte in c.encode_utf8(&mut [0; 4]).bytes() {
                write!(out, "%{byte:02X}")?;
            }
        } else {
            out.write_char(c)?;
        }
    }
    Ok(())
}

/// One of several values in a name (`"{a}:{b}"`): without the characters that stand between
/// them, so that two different lists of values never make one name.
pub fn escaped<'a>(value: fmt::Arguments<'a>, between: &'a str) -> impl fmt::Display + use<'a> {
    Escaped { value, between }
}

struct Escaped<'a> {
    value: fmt::Arguments<'a>,
    between: &'a str,
}

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        struct Out<'f, 'g>(&'f mut fmt::Formatter<'g>, &'f str);
        impl fmt::Write for Out<'_, '_> {
            fn write_str(&mut self, text: &str) -> fmt::Result {
                encode(text, |c| c == '%' || self.1.contains(c), self.0)
            }
        }
        Out(f, self.between).write_fmt(self.value)
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
    check_braces("key_prefix", prefix)?;
    // The names that follow bring no braces: they make it no less a side key.
    check_side("key_prefix", prefix)
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

    /// CRC16 as the cluster specification has it (XMODEM), bit by bit.
    fn crc16(bytes: &[u8]) -> u16 {
        bytes.iter().fold(0, |crc: u16, byte| {
            (0..8).fold(crc ^ (u16::from(*byte) << 8), |crc, _| {
                (crc << 1) ^ if crc & 0x8000 == 0 { 0 } else { 0x1021 }
            })
        })
    }

    /// The slot of a key, after the C code in the specification's section 'Hash tags'.
    fn slot(key: &str) -> u16 {
        let key = key.as_bytes();
        let open = key.iter().position(|byte| *byte == b'{');
        let hashed = open.and_then(|open| {
            let after = &key[open + 1..];
            let length = after.iter().position(|byte| *byte == b'}')?;
            (length > 0).then(|| &after[..length])
        });
        crc16(hashed.unwrap_or(key)) % 16_384
    }

    fn sides(key: &Key) -> [String; 3] {
        Side::ALL.map(|side| key.side(side).concat())
    }

    /// Strings of what matters in a key: every one of up to `most` pieces.
    fn strings(most: usize) -> Vec<String> {
        const PIECES: [&str; 8] = [
            "{",
            "}",
            "a",
            ":",
            "fence",
            "fence:",
            "}:queue",
            "waiters:{",
        ];
        let mut all = vec![String::new()];
        let mut longest = all.clone();
        for _ in 0..most {
            let longer = |text: &String| PIECES.map(|piece| format!("{text}{piece}"));
            longest = longest.iter().flat_map(longer).collect();
            all.extend(longest.iter().cloned());
        }
        all
    }

    #[test]
    fn the_slots_are_those_of_a_server() {
        assert_eq!(crc16(b"123456789"), 0x31c3);
        // CLUSTER KEYSLOT of Redis 7.0.
        for (key, measured) in [
            ("a}b", 7866),
            ("a{}b", 13694),
            ("{}", 15257),
            ("x{}{y}", 14166),
        ] {
            assert_eq!(slot(key), measured, "{key}");
        }
    }

    #[test]
    fn every_key_that_is_accepted_has_its_side_keys_in_its_slot_and_is_no_side_key_of_another() {
        let texts = strings(4);
        let whole = texts.iter().filter_map(|text| Key::whole(text).ok());
        let prefixes: Vec<_> = texts
            .iter()
            .filter(|text| check_prefix(text).is_ok())
            .collect();
        let named = prefixes.iter().flat_map(|prefix| {
            let names = [
                ("a", None),
                ("fence", None),
                ("queue", Some("{a}")),
                ("}:fence", Some("a")),
            ];
            names
                .into_iter()
                .filter_map(|(app, name)| Key::of(prefix, app, name).ok())
        });
        let keys: Vec<Key> = whole.chain(named).collect();
        assert!(keys.len() > 5_000, "{}", keys.len());
        let beside: HashSet<String> = keys.iter().flat_map(sides).collect();
        for key in &keys {
            for side in sides(key) {
                assert_eq!(slot(&side), slot(&key.lock), "{side} of {}", key.lock);
            }
            assert!(!beside.contains(&*key.lock), "{} is a side key", key.lock);
        }
        let locks: HashSet<&str> = keys.iter().map(|key| &*key.lock).collect();
        assert_eq!(beside.len(), locks.len() * 3, "two locks share a side key");
    }

    #[test]
    fn a_key_is_refused_for_its_braces_only_where_they_do_harm() {
        for key in [
            "a}b",
            "a{}b",
            "{}",
            "x{}{y}",
            "}",
            "fence:{t}x",
            "{a}:queue",
        ] {
            assert!(Key::whole(key).is_err(), "{key}");
        }
        for key in [
            "a{b",
            "{",
            "jobs{eu}",
            "{a}b}",
            "a{b}{}",
            "fence:x",
            "fence",
            "jobs{eu}:fence",
        ] {
            assert!(Key::whole(key).is_ok(), "{key}");
        }
        for prefix in ["staging}", "{}", "fence:{t}", "waiters:{t}:"] {
            let error = check_prefix(prefix).unwrap_err().to_string();
            assert!(
                error.contains("invalid key_prefix") && error.contains("; "),
                "{error}"
            );
        }
        for prefix in ["", "staging:", "{t}", "{t", "fence:", "x:{t}:"] {
            assert!(check_prefix(prefix).is_ok(), "{prefix}");
        }
        // Neither is wrong by itself.
        assert!(check_prefix("{t}:").is_ok() && Key::of("{t}:", "a", None).is_ok());
        let error = Key::of("{t}:", "fence", None).unwrap_err().to_string();
        assert!(error.contains("fencing tokens of another lock"), "{error}");
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
