//! Text from outside, as people are shown it: keys and names, what a server answered, what
//! another program wrote where a lock or its fence belongs.
//!
//! Danger: such a text may be a megabyte long, and an error or a line of the log with it. It may
//! bring line breaks, and forge a line of the log; or escapes, and paint over a terminal. So each
//! message shows it through [`shown`]: on one line, and no longer than a person reads. What
//! programs read (`LockInfo::host` and its like) is the text as it stands.

use std::fmt::{self, Write};
use std::time::Duration;

/// A text from outside, for the command `applock`: on one line, escaped and shortened.
pub fn shown_text(text: &str) -> String {
    shown(text).to_string()
}

/// The same in quotation marks.
pub fn shown_in_quotes(text: &str) -> String {
    format!("{:?}", shown(text))
}

/// How many characters of a text from outside a message shows.
const MOST: usize = 200;

/// How many characters a text has that we have written around those from outside.
const MOST_OF_OURS: usize = 1_000;

/// A text from outside. `Display`: as it is; `Debug`: in quotation marks.
pub(crate) fn shown<T>(text: T) -> Shown<T> {
    Shown { text, most: MOST }
}

/// A message of ours, in which there may be text from outside.
pub(crate) fn message<T>(text: T) -> Shown<T> {
    Shown {
        text,
        most: MOST_OF_OURS,
    }
}

pub(crate) struct Shown<T> {
    text: T,
    most: usize,
}

impl<T: fmt::Display> fmt::Display for Shown<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write(f, false)
    }
}

impl<T: fmt::Display> fmt::Debug for Shown<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_char('"')?;
        self.write(f, true)?;
        f.write_char('"')
    }
}

impl<T: fmt::Display> Shown<T> {
    fn write(&self, f: &mut fmt::Formatter<'_>, in_quotes: bool) -> fmt::Result {
        let mut escaped = Escaped {
            f,
            left: self.most,
            in_quotes,
            is_full: false,
        };
        match write!(escaped, "{}", self.text) {
            // What follows is not even looked at: it may be long.
            Err(_) if escaped.is_full => f.write_char('…'),
            outcome => outcome,
        }
    }
}

/// Passes characters on, each printable one as it is, until there were enough.
struct Escaped<'a, 'b> {
    f: &'a mut fmt::Formatter<'b>,
    left: usize,
    in_quotes: bool,
    is_full: bool,
}

impl Write for Escaped<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for c in text.chars() {
            let must = is_unprintable(c) || self.in_quotes && matches!(c, '"' | '\\');
            let length = if must { c.escape_default().len() } else { 1 };
            if length > self.left {
                self.is_full = true;
                return Err(fmt::Error);
            }
            self.left -= length;
            if must {
                write!(self.f, "{}", c.escape_default())?;
            } else {
                self.f.write_char(c)?;
            }
        }
        Ok(())
    }
}

/// A length, as the log has it: a number that can be added up.
pub(crate) fn millis(length: Duration) -> u64 {
    u64::try_from(length.as_millis()).unwrap_or(u64::MAX)
}

/// Whether a terminal, or a reader of lines, would take the character for something to do: control
/// characters, separators of lines, and what turns the direction of writing or is not seen.
pub(crate) fn is_unprintable(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}'
            | '\u{e0000}'..='\u{e0fff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_stays_on_one_line_and_short_and_what_is_printable_as_it_is() {
        for (text, expected) in [
            ("", ""),
            ("worker-7 ä 日本 \\n \"x\"", "worker-7 ä 日本 \\n \"x\""),
            ("a\nb\r\tc", "a\\nb\\r\\tc"),
            ("\u{1b}[31m\0", "\\u{1b}[31m\\u{0}"),
            (
                "\u{9b}\u{2028}\u{202e}\u{feff}",
                "\\u{9b}\\u{2028}\\u{202e}\\u{feff}",
            ),
        ] {
            assert_eq!(shown(text).to_string(), expected);
            // Text that has been shown may be shown again.
            assert_eq!(shown(shown(text)).to_string(), expected);
        }
        assert_eq!(format!("{:?}", shown("a\"\\\n")), r#""a\"\\\n""#);
        let cut = format!("{}…", "x".repeat(MOST));
        assert_eq!(shown("x".repeat(MOST)).to_string().len(), MOST);
        assert_eq!(shown("x".repeat(1 << 20)).to_string(), cut);
    }

    #[test]
    fn whatever_is_shown_has_no_control_character_and_an_end() {
        for seed in 0..2_000 {
            let mut random = fastrand::Rng::with_seed(seed);
            let length = random.usize(..600);
            let bytes: Vec<u8> = std::iter::repeat_with(|| random.u8(..))
                .take(length)
                .collect();
            let texts = [
                String::from_utf8_lossy(&bytes).into_owned(),
                std::iter::repeat_with(|| random.char(..))
                    .take(length)
                    .collect(),
            ];
            for text in texts {
                for shown in [shown(&text).to_string(), format!("{:?}", shown(&text))] {
                    assert!(!shown.chars().any(is_unprintable), "{text:?}");
                    assert!(shown.chars().count() <= MOST + 3, "{text:?}");
                }
            }
        }
    }
}
