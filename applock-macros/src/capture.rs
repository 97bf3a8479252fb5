//! The `{…}` in `name` and `key`: which of the function's arguments they capture.

use syn::LitStr;

use crate::mistakes::Mistakes;

/// A `name` or `key`: its literal, what it captures, and its text where it captures
/// nothing.
pub(crate) struct Template {
    pub(crate) literal: LitStr,
    pub(crate) captures: Vec<String>,
    /// The text with `{{` and `}}` read as braces; whole only without captures.
    pub(crate) text: String,
    /// Where it captures more than one value: how they are joined.
    pub(crate) joined: Option<Joined>,
}

/// Several values in one name. Danger: two sets of values that make the same name, and so share
/// one lock: `"{a}:{b}"` of ("eu:west", "1") and of ("eu", "west:1"). So what stands between two
/// values is escaped where it occurs in a value.
pub(crate) struct Joined {
    /// The literal with `{}` for each value.
    pub(crate) around: String,
    /// Each value: `{day:?}`.
    pub(crate) values: Vec<String>,
    /// The characters that stand between two values.
    pub(crate) between: String,
}

impl Template {
    /// Reads the literal as `format!` would; `None` after a mistake was reported.
    pub(crate) fn read(argument: &str, literal: LitStr, mistakes: &mut Mistakes) -> Option<Self> {
        let read = pieces(&literal.value()).and_then(|pieces| Ok((join(&pieces)?, pieces)));
        match read {
            Ok((joined, Pieces { text, captures, .. })) => Some(Self {
                literal,
                captures,
                text: text.concat(),
                joined,
            }),
            Err(message) => {
                mistakes.at(&literal, format_args!("`{argument}`: {message}"));
                None
            }
        }
    }
}

/// A format string in pieces.
#[derive(Debug, PartialEq)]
struct Pieces {
    /// The names that it captures, those in a width or a precision too.
    captures: Vec<String>,
    /// What stands in its `{}`.
    values: Vec<String>,
    /// What stands before, between and after them: one more.
    text: Vec<String>,
}

fn join(pieces: &Pieces) -> Result<Option<Joined>, String> {
    let Pieces { text, values, .. } = pieces;
    if values.len() < 2 {
        return Ok(None);
    }
    let between = &text[1..text.len() - 1];
    if let Some(at) = between.iter().position(String::is_empty) {
        let (one, next) = (&values[at], &values[at + 1]);
        return Err(format!(
            "nothing stands between `{{{one}}}` and `{{{next}}}`, so \"1\" and \"23\" would share \
             the lock of \"12\" and \"3\"; write something between the two, as in \
             `{{{one}}}-{{{next}}}`"
        ));
    }
    let braces = |text: &String| text.replace('{', "{{").replace('}', "}}");
    let around: Vec<String> = text.iter().map(braces).collect();
    Ok(Some(Joined {
        around: around.join("{}"),
        values: values.iter().map(|value| format!("{{{value}}}")).collect(),
        between: between.concat(),
    }))
}

/// Splits a format string into its text and the values that it captures.
fn pieces(format: &str) -> Result<Pieces, String> {
    let mut text = vec![String::new()];
    let mut values = Vec::new();
    let mut captures = Vec::new();
    let mut rest = format;
    while let Some(at) = rest.find(['{', '}']) {
        let last = text.last_mut();
        let brace = &rest[at..=at];
        let after_brace = &rest[at + 1..];
        let doubled = after_brace.strip_prefix(brace);
        if let Some(last) = last {
            last.push_str(&rest[..at]);
            last.push_str(doubled.map_or("", |_| brace));
        }
        rest = after_brace;
        if let Some(after) = doubled {
            rest = after;
        } else if brace == "}" {
            return Err("a `}` without a `{`; for a brace as such, write `}}`".to_owned());
        } else {
            let Some((inside, after)) = rest.split_once('}') else {
                return Err("a `{` without a `}`; for a brace as such, write `{{`".to_owned());
            };
            capture(inside, &mut captures)?;
            values.push(inside.to_owned());
            text.push(String::new());
            rest = after;
        }
    }
    if let Some(last) = text.last_mut() {
        last.push_str(rest);
    }
    Ok(Pieces {
        captures,
        values,
        text,
    })
}

/// Reads what stands between `{` and `}`.
fn capture(inside: &str, captures: &mut Vec<String>) -> Result<(), String> {
    let (name, spec) = inside.split_once(':').unwrap_or((inside, ""));
    let name = name.trim();
    if name.is_empty() || name.starts_with(|c: char| c.is_ascii_digit()) {
        return Err(format!(
            "`{{{inside}}}` has no name; name the argument to capture, as in `{{tenant}}`, or \
             write `{{{{` and `}}}}` for braces as such"
        ));
    }
    captures.push(identifier(name).ok_or_else(|| {
        format!("`{{{inside}}}` is not the name of an argument; only a plain name can be captured, as in `{{tenant}}`")
    })?);
    // `{x:width$}` and `{x:.digits$}` capture too.
    for (at, _) in spec.match_indices('$') {
        let start = spec[..at]
            .rfind(|c: char| !c.is_alphanumeric() && c != '_')
            .map_or(0, |before| {
                before + spec[before..].chars().next().map_or(1, char::len_utf8)
            });
        let argument = &spec[start..at];
        captures.push(identifier(argument).ok_or_else(|| {
            format!(
                "`{{{inside}}}` counts arguments by position; name them, as in `{{{name}:width$}}`"
            )
        })?);
    }
    if spec.contains(".*") {
        return Err(format!(
            "`{{{inside}}}` counts arguments by position; name the precision, as in `{{{name}:.digits$}}`"
        ));
    }
    Ok(())
}

/// The name without `r#`, if it is one.
fn identifier(name: &str) -> Option<String> {
    let plain = name.strip_prefix("r#").unwrap_or(name);
    let mut letters = plain.chars();
    let first = letters.next()?;
    ((first.is_alphabetic() || first == '_') && letters.all(|c| c.is_alphanumeric() || c == '_'))
        .then(|| plain.to_owned())
}

#[cfg(test)]
mod tests {
    use super::{join, pieces};

    #[test]
    fn captures_are_read_as_format_reads_them() {
        let read = |text| match pieces(text) {
            Ok(pieces) => Ok((pieces.text.concat(), pieces.captures)),
            Err(_) => Err("refused"),
        };
        let of = |text: &str, captures: &[&str]| {
            Ok((
                text.to_owned(),
                captures.iter().map(|&c| c.to_owned()).collect(),
            ))
        };
        assert_eq!(read("plain"), of("plain", &[]));
        assert_eq!(read("{{tag}}:x"), of("{tag}:x", &[]));
        assert_eq!(read("t-{tenant}"), of("t-", &["tenant"]));
        assert_eq!(read("{id:04}{x:?}{ y }"), of("", &["id", "x", "y"]));
        assert_eq!(read("{x:>w$.p$}"), of("", &["x", "w", "p"]));
        assert_eq!(read("{r#type}"), of("", &["type"]));
        for refused in [
            "{}", "{0}", "{", "}", "{a.b}", "{x:1$}", "{x:.*}", "{x", "{a b}", "{:?}",
        ] {
            assert_eq!(read(refused), Err("refused"), "{refused}");
        }
    }

    #[test]
    fn what_stands_between_two_values_is_known_and_never_nothing() {
        let of = |text| pieces(text).and_then(|pieces| join(&pieces));
        for alone in ["plain", "{a}", "x{a:?}{{", "{a:>w$}"] {
            assert!(of(alone).unwrap().is_none(), "{alone}");
        }
        let joined = of("{{{a}:{b:04}-{r#type}}}x").unwrap().unwrap();
        assert_eq!(joined.around, "{{{}:{}-{}}}x");
        assert_eq!(joined.values, ["{a}", "{b:04}", "{r#type}"]);
        assert_eq!(joined.between, ":-");
        assert!(of("x{a}{b}").is_err_and(|error| error.contains("{a}-{b}")));
        assert!(of("{a}{{{b}").is_ok());
    }
}
