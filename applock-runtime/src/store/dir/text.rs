//! The lines that the files are made of: a field and its value each. In texts `%` and
//! control characters are written as `%XX`.

use std::fmt::{self, Write as _};
use std::str::{FromStr, Lines};

use super::record::Damage;

pub(super) fn line(text: &mut String, field: &str, value: &dyn fmt::Display) {
    // Writing to a String cannot fail.
    let _ = writeln!(text, "{field} {value}");
}

/// The lines of a file, taken one by one.
pub(super) struct Fields<'a>(Lines<'a>);

impl<'a> Fields<'a> {
    pub(super) fn of(text: &'a str) -> Self {
        Self(text.lines())
    }

    /// Past a line that was read already.
    pub(super) fn skip(&mut self) {
        self.0.next();
    }

    pub(super) fn raw_if_there(&mut self, field: &'static str) -> Option<&'a str> {
        let mut ahead = self.0.clone();
        let value = ahead.next()?.strip_prefix(field)?.strip_prefix(' ')?;
        self.0 = ahead;
        Some(value)
    }

    pub(super) fn raw(&mut self, field: &'static str) -> Result<&'a str, Damage> {
        self.raw_if_there(field).ok_or(Damage::Broken(field))
    }

    pub(super) fn value<T: FromStr>(&mut self, field: &'static str) -> Result<T, Damage> {
        self.raw(field)?.parse().map_err(|_| Damage::Broken(field))
    }

    pub(super) fn value_if_there<T: FromStr>(
        &mut self,
        field: &'static str,
    ) -> Result<Option<T>, Damage> {
        self.raw_if_there(field)
            .map(|raw| raw.parse().map_err(|_| Damage::Broken(field)))
            .transpose()
    }

    pub(super) fn at_most(&mut self, field: &'static str, most: u64) -> Result<u64, Damage> {
        let value: u64 = self.value(field)?;
        if value > most {
            return Err(Damage::Broken(field));
        }
        Ok(value)
    }

    pub(super) fn text(&mut self, field: &'static str) -> Result<String, Damage> {
        unescape(self.raw(field)?).ok_or(Damage::Broken(field))
    }

    pub(super) fn text_if_there(&mut self, field: &'static str) -> Result<Option<String>, Damage> {
        self.raw_if_there(field)
            .map(|raw| unescape(raw).ok_or(Damage::Broken(field)))
            .transpose()
    }
}

pub(super) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if c == '%' || c.is_control() {
            for byte in c.encode_utf8(&mut [0; 4]).bytes() {
                // Writing to a String cannot fail.
                let _ = write!(out, "%{byte:02X}");
            }
        } else {
            out.push(c);
        }
    }
    out
}

fn unescape(text: &str) -> Option<String> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        out.push(if byte == b'%' {
            let high = char::from(rest.next()?).to_digit(16)?;
            let low = char::from(rest.next()?).to_digit(16)?;
            u8::try_from(high * 16 + low).ok()?
        } else {
            byte
        });
    }
    String::from_utf8(out).ok()
}
