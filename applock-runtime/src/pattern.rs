//! Which locks a listing is about: a glob pattern for keys, and the locker's prefix.
//!
//! One meaning for all stores, so each filters by [`Pattern::fits`]; what Redis is asked for
//! ([`Pattern::scan`]) is only how all those keys begin.

use crate::error::{Error, Result};
use crate::key::{Key, is_side};
use crate::shown::shown;

/// What `locks(…)` was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pattern {
    /// What each key begins with.
    lead: String,
    parts: Vec<Part>,
}

/// What `locks(…)` asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// One key, by its whole name.
    One(Key),
    Some(Pattern),
    /// No key can begin with the prefix and fit.
    None,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Char(char),
    /// `?`
    Any,
    /// `*`
    Many,
    /// `[…]`
    Of {
        ranges: Vec<(char, char)>,
        negated: bool,
    },
}

impl Part {
    fn fits(&self, c: char) -> bool {
        match self {
            Self::Char(own) => *own == c,
            Self::Any => true,
            Self::Many => false,
            Self::Of { ranges, negated } => {
                ranges
                    .iter()
                    .any(|(first, last)| (*first..=*last).contains(&c))
                    != *negated
            }
        }
    }
}

impl Wanted {
    /// Reads a pattern; `prefix` is the locker's. Without `*`, `?` or `[` it is a whole key, and
    /// needs not begin with the prefix.
    pub(crate) fn of(prefix: &str, given: &str) -> Result<Self> {
        if given.is_empty() {
            return Err(bad(given, "it is empty, and fits no key"));
        }
        let parts = parts(given)?;
        let literal: String = parts
            .iter()
            .map_while(|part| match part {
                Part::Char(c) => Some(*c),
                _ => None,
            })
            .collect();
        if literal.chars().count() == parts.len() {
            return Ok(Self::One(Key::whole(&literal)?));
        }
        let lead = if literal.starts_with(prefix) {
            literal
        } else if prefix.starts_with(&literal) {
            prefix.to_owned()
        } else {
            return Ok(Self::None);
        };
        Ok(Self::Some(Pattern { lead, parts }))
    }
}

fn bad(given: &str, reason: &str) -> Error {
    Error::invalid(
        "pattern",
        format_args!("{:?}", shown(given)),
        reason,
        "write one such as * or QUEUE:reports* (\\ stands before a *, ?, [ or \\ that is meant itself)",
    )
}

fn parts(given: &str) -> Result<Vec<Part>> {
    let mut rest = given.chars().peekable();
    let mut parts = Vec::new();
    let unfinished = || {
        bad(
            given,
            "it ends in a \\, which stands before another character",
        )
    };
    while let Some(c) = rest.next() {
        let part = match c {
            '*' if parts.last() == Some(&Part::Many) => continue,
            '*' => Part::Many,
            '?' => Part::Any,
            '\\' => Part::Char(rest.next().ok_or_else(unfinished)?),
            '[' => {
                let negated = rest.next_if_eq(&'^').is_some();
                let mut ranges = Vec::new();
                loop {
                    let open = || bad(given, "it has a [ without its ]");
                    let first = match rest.next().ok_or_else(open)? {
                        ']' => break,
                        '\\' => rest.next().ok_or_else(unfinished)?,
                        c => c,
                    };
                    let last = match rest.next_if_eq(&'-') {
                        None => first,
                        Some(_) => match rest.next().ok_or_else(open)? {
                            '\\' => rest.next().ok_or_else(unfinished)?,
                            c => c,
                        },
                    };
                    ranges.push((first.min(last), first.max(last)));
                }
                Part::Of { ranges, negated }
            }
            c => Part::Char(c),
        };
        parts.push(part);
    }
    Ok(parts)
}

impl Pattern {
    /// That key alone.
    pub(crate) fn only(key: &Key) -> Self {
        Self {
            lead: key.lock.to_string(),
            parts: key.lock.chars().map(Part::Char).collect(),
        }
    }

    /// Whether that lock is meant. The keys beside locks never are.
    pub(crate) fn fits(&self, key: &str) -> bool {
        key.starts_with(&self.lead) && !is_side(key) && self.matches(key)
    }

    /// Goes back to the last `*` only: what stands before it can't fit better. So it costs the
    /// product of both lengths at the most.
    fn matches(&self, key: &str) -> bool {
        let mut rest = key.chars();
        let mut at = 0;
        let mut star: Option<(usize, std::str::Chars<'_>)> = None;
        loop {
            let before = rest.clone();
            match (self.parts.get(at), rest.next()) {
                (Some(Part::Many), _) => {
                    star = Some((at + 1, before.clone()));
                    rest = before;
                    at += 1;
                }
                (None, None) => return true,
                (Some(part), Some(c)) if part.fits(c) => at += 1,
                _ => {
                    let Some((after, from)) = &mut star else {
                        return false;
                    };
                    if from.next().is_none() {
                        return false;
                    }
                    at = *after;
                    rest = from.clone();
                }
            }
        }
    }

    /// The pattern for Redis's SCAN: all that begins as these keys do.
    pub(crate) fn scan(&self) -> String {
        let mut pattern = String::with_capacity(self.lead.len() + 1);
        for c in self.lead.chars() {
            if matches!(c, '*' | '?' | '[' | ']' | '\\') {
                pattern.push('\\');
            }
            pattern.push(c);
        }
        pattern.push('*');
        pattern
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(prefix: &str, given: &str) -> Pattern {
        match Wanted::of(prefix, given) {
            Ok(Wanted::Some(pattern)) => pattern,
            other => panic!("{given}: {other:?}"),
        }
    }

    #[test]
    fn a_pattern_means_what_it_means_to_redis() {
        let cases = [
            ("*", "", true),
            ("*", "anything", true),
            ("a*", "a", true),
            ("a*c", "abcbc", true),
            ("a*c", "abcb", false),
            ("*a*b*", "xxaxxbxx", true),
            ("*a*b*", "xxbxxaxx", false),
            ("a?c", "abc", true),
            ("a?c", "ac", false),
            ("?", "é", true),
            ("a[bc]d", "acd", true),
            ("a[bc]d", "aed", false),
            ("a[^bc]d", "aed", true),
            ("a[^bc]d", "abd", false),
            ("[a-c][z-x]", "by", true),
            ("[a-c]", "d", false),
            ("\\**", "*x", true),
            ("\\**", "xx", false),
            ("a[\\]]?", "a]b", true),
            ("[]*", "a", false),
            ("*aaaaaaab", "aaaaaaaaaaaaaaaaaaaaaaaaab", true),
        ];
        for (given, key, fits) in cases {
            assert_eq!(pattern("", given).matches(key), fits, "{given} {key}");
        }
    }

    #[test]
    fn only_locks_under_the_prefix_fit_a_pattern() {
        let all = pattern("QUEUE:", "*");
        assert!(all.fits("QUEUE:reports") && all.fits("QUEUE:reports:x"));
        assert!(!all.fits("other") && !all.fits("QUEUE"));
        assert_eq!(all.scan(), "QUEUE:*");
        assert_eq!(pattern("QUEUE:", "QUEUE:re*x?").scan(), "QUEUE:re*");
        assert_eq!(pattern("[q]", "*").scan(), "\\[q\\]*");
        assert_eq!(Wanted::of("QUEUE:", "other*").unwrap(), Wanted::None);
        // The keys beside a lock.
        let every = pattern("", "*");
        assert!(!every.fits("{QUEUE:reports}:fence") && !every.fits("queue:jobs{eu}"));
        assert!(every.fits("jobs{eu}"));
    }

    #[test]
    fn without_a_wildcard_it_is_a_whole_key_with_any_beginning() {
        for (given, key) in [("legacy-lock", "legacy-lock"), ("a\\*b", "a*b")] {
            let Ok(Wanted::One(found)) = Wanted::of("QUEUE:", given) else {
                panic!("{given}");
            };
            assert_eq!(&*found.lock, key);
        }
        for given in ["", "a[b*", "*\\", "[a-", "{QUEUE:x}:fence"] {
            let refused = Wanted::of("QUEUE:", given);
            assert!(matches!(refused, Err(Error::Invalid(_))), "{given}");
        }
    }
}
