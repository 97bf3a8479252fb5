//! Lengths of time in arguments: `60`, `"90s"`, or an expression of type `Duration`.

use std::time::Duration;

use proc_macro2::{Span, TokenStream};
use quote::quote_spanned;
use syn::{Expr, ExprLit, Lit, LitFloat, LitInt, LitStr, UnOp};

use crate::mistakes::Mistakes;

/// The shortest lease (and so the shortest `at_most`): below it the safety margin
/// and one round trip leave no time to work.
pub(crate) const SHORTEST_LEASE: Duration = Duration::from_millis(100);

/// The longest lease that the runtime grants: beyond it a number is a slip.
const LONGEST: Duration = Duration::from_secs(10 * 365 * 24 * 60 * 60);

/// The longest `every`: the store remembers a lock for twice as long.
const LONGEST_EVERY: Duration = Duration::from_secs(5 * 365 * 24 * 60 * 60);

/// A string longer than this, or a number with more digits, is no length of time.
/// The limits also keep `humantime` far from the edge of `u64`, where it panics.
const LONGEST_TEXT: usize = 64;
const MOST_DIGITS: usize = 10;

/// Whole thousands from here on look like milliseconds.
const MANY_SECONDS: u64 = 10_000;

const INTEGER_SUFFIXES: [&str; 12] = [
    "u8", "u16", "u32", "u64", "u128", "usize", "i8", "i16", "i32", "i64", "i128", "isize",
];

/// A length of time as it was given.
pub(crate) enum Length {
    /// Known while compiling.
    Fixed(Duration, Expr),
    /// Computed by the user's expression at every call.
    Computed(Expr),
}

impl Length {
    /// An expression of type `Duration`.
    pub(crate) fn tokens(&self) -> TokenStream {
        let mixed = Span::mixed_site();
        match self {
            Self::Fixed(length, _) => {
                let (seconds, nanos) = (length.as_secs(), length.subsec_nanos());
                quote_spanned!(mixed=> ::core::time::Duration::new(#seconds, #nanos))
            }
            // Its own annotated binding, so that a wrong type is an error at the
            // expression and not somewhere inside generated code.
            Self::Computed(expr) => quote_spanned!(mixed=> {
                let length: ::core::time::Duration = #expr;
                length
            }),
        }
    }

    /// Whether it is known to be zero.
    pub(crate) fn is_nothing(&self) -> bool {
        matches!(self, Self::Fixed(length, _) if length.is_zero())
    }

    /// Refuses a fixed length that is too short to be a lease.
    pub(crate) fn must_hold_a_lease(&self, argument: &str, mistakes: &mut Mistakes) -> bool {
        let Self::Fixed(length, at) = self else {
            return true;
        };
        if *length >= SHORTEST_LEASE {
            return true;
        }
        let given = if length.is_zero() {
            "zero".to_owned()
        } else {
            humantime::format_duration(*length).to_string()
        };
        mistakes.at(
            at,
            format_args!(
                "`{argument}` is {given}, which is too short: the shortest is 100 ms; \
                 write seconds (`{argument} = 60`) or a duration (`{argument} = \"500ms\"`)"
            ),
        );
        false
    }
}

impl Length {
    /// Refuses a fixed length that is too long for `every`.
    pub(crate) fn must_be_an_every(&self, mistakes: &mut Mistakes) -> bool {
        let Self::Fixed(length, at) = self else {
            return true;
        };
        if *length <= LONGEST_EVERY {
            return true;
        }
        mistakes.at(
            at,
            format_args!(
                "`every` is too long: the longest is five years; {}",
                forms("every")
            ),
        );
        false
    }
}

/// Reads the value of `argument`; `None` after a mistake was reported.
pub(crate) fn read(argument: &str, expr: Expr, mistakes: &mut Mistakes) -> Option<Length> {
    let expr = match expr {
        Expr::Paren(paren) => *paren.expr,
        other => other,
    };
    match &expr {
        Expr::Lit(ExprLit { lit, .. }) => {
            let read = match lit {
                Lit::Int(int) => whole_seconds(argument, int),
                Lit::Str(text) => text_length(argument, text),
                Lit::Float(float) => Err(fraction(argument, float)),
                _ => Err(format!(
                    "`{argument}` must be a length of time; {}",
                    forms(argument)
                )),
            };
            match read {
                Ok(length) if length > LONGEST => {
                    mistakes.at(&expr, too_long(argument));
                    None
                }
                Ok(length) => Some(Length::Fixed(length, expr)),
                Err(message) => {
                    mistakes.at(&expr, message);
                    None
                }
            }
        }
        Expr::Unary(unary)
            if matches!(unary.op, UnOp::Neg(_)) && matches!(*unary.expr, Expr::Lit(_)) =>
        {
            mistakes.at(
                &expr,
                format_args!("`{argument}` can't be negative; {}", forms(argument)),
            );
            None
        }
        Expr::Path(path) if path.path.is_ident("forever") => {
            mistakes.at(
                &expr,
                format_args!(
                    "only `wait` can be `forever`; for `{argument}` {}",
                    forms(argument)
                ),
            );
            None
        }
        _ => Some(Length::Computed(expr)),
    }
}

/// What may be written.
pub(crate) fn forms(argument: &str) -> String {
    format!(
        "write seconds (`{argument} = 60`), a duration (`{argument} = \"90s\"`, `\"5m\"`, \
         `\"500ms\"`) or an expression of type `Duration`"
    )
}

fn too_long(argument: &str) -> String {
    let remedy = if argument == "wait" {
        "write `wait = forever`, or a shorter one".to_owned()
    } else {
        forms(argument)
    };
    format!("`{argument}` is too long: the longest is ten years; {remedy}")
}

fn whole_seconds(argument: &str, int: &LitInt) -> Result<Duration, String> {
    let suffix = int.suffix();
    if !suffix.is_empty() && !INTEGER_SUFFIXES.contains(&suffix) {
        return Err(format!(
            "a unit needs quotes: write `{argument} = \"{}{suffix}\"`",
            int.base10_digits()
        ));
    }
    let seconds = int
        .base10_digits()
        .parse()
        .map_err(|_| too_long(argument))?;
    let length = Duration::from_secs(seconds);
    if seconds >= MANY_SECONDS && seconds % 1_000 == 0 && length <= LONGEST {
        return Err(format!(
            "`{argument}` takes seconds, and these are {}; write `{argument} = \"{}\"` if \
             milliseconds were meant, and `{argument} = \"{seconds}s\"` if not",
            humantime::format_duration(length),
            humantime::format_duration(Duration::from_millis(seconds)),
        ));
    }
    Ok(length)
}

fn fraction(argument: &str, float: &LitFloat) -> String {
    // With a unit of its own (`1.5m`) the number is read in that unit.
    let bare = float.suffix().is_empty();
    let unit = if bare { "s" } else { float.suffix() };
    let exact = within_limits(float.base10_digits())
        .then(|| humantime::parse_duration(&format!("{}{unit}", float.base10_digits())).ok())
        .flatten();
    match exact {
        Some(length) if bare && length.subsec_nanos() % 1_000_000 == 0 && length <= LONGEST => {
            format!(
                "`{argument}` takes whole seconds; write `{argument} = \"{}ms\"`",
                length.as_millis()
            )
        }
        Some(length) if length <= LONGEST => format!(
            "`{argument}` takes whole seconds; write `{argument} = \"{}\"`",
            humantime::format_duration(length)
        ),
        _ => format!("`{argument}` takes whole seconds; {}", forms(argument)),
    }
}

fn text_length(argument: &str, text: &LitStr) -> Result<Duration, String> {
    let value = text.value();
    let trimmed = value.trim();
    if trimmed.is_empty() {
        return Err(format!("`{argument}` is empty; {}", forms(argument)));
    }
    if trimmed.starts_with('-') {
        return Err(format!(
            "`{argument}` can't be negative; {}",
            forms(argument)
        ));
    }
    if trimmed.eq_ignore_ascii_case("forever") {
        return Err(if argument == "wait" {
            "`forever` is written without quotes: `wait = forever`".to_owned()
        } else {
            format!(
                "only `wait` can be `forever`; for `{argument}` {}",
                forms(argument)
            )
        });
    }
    if !within_limits(trimmed) {
        return Err(too_long(argument));
    }
    humantime::parse_duration(trimmed).map_err(|error| match error {
        humantime::DurationError::NumberOverflow => too_long(argument),
        humantime::DurationError::UnknownUnit { unit, value, .. } if unit.is_empty() => format!(
            "{trimmed:?} has no unit; write `{argument} = \"{value}s\"`, or whole seconds without \
             quotes: `{argument} = {value}`"
        ),
        humantime::DurationError::UnknownUnit { unit, .. } => format!(
            "{trimmed:?} is not a length of time: `{unit}` is no unit; the units are ms, s, m, h \
             and d, as in \"500ms\", \"90s\", \"5m\" and \"1h 30m\""
        ),
        _ => format!(
            "{trimmed:?} is not a length of time; write a number and a unit, as in \"500ms\", \
             \"90s\", \"5m\" and \"1h 30m\""
        ),
    })
}

fn within_limits(text: &str) -> bool {
    text.len() <= LONGEST_TEXT
        && text
            .split(|c: char| !c.is_ascii_digit() && !c.is_whitespace())
            .all(|run| run.chars().filter(char::is_ascii_digit).count() <= MOST_DIGITS)
}

#[cfg(test)]
mod tests {
    use applock::__private::{MAX_EVERY, MAX_TTL, MIN_TTL};

    use super::{LONGEST, LONGEST_EVERY, SHORTEST_LEASE};

    #[test]
    fn the_limits_of_a_ttl_are_those_of_the_runtime() {
        assert_eq!(SHORTEST_LEASE, MIN_TTL);
        assert_eq!(LONGEST, MAX_TTL);
        assert_eq!(LONGEST_EVERY, MAX_EVERY);
    }
}
