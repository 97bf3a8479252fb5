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
}

impl Template {
    /// Reads the literal as `format!` would; `None` after a mistake was reported.
    pub(crate) fn read(argument: &str, literal: LitStr, mistakes: &mut Mistakes) -> Option<Self> {
        match pieces(&literal.value()) {
            Ok((text, captures)) => Some(Self {
                literal,
                captures,
                text,
            }),
            Err(message) => {
                mistakes.at(&literal, format_args!("`{argument}`: {message}"));
                None
            }
        }
    }
}

/// Splits a format string into its text and the names that it captures.
fn pieces(format: &str) -> Result<(String, Vec<String>), String> {
    let mut text = String::new();
    let mut captures = Vec::new();
    let mut rest = format;
    while let Some(at) = rest.find(['{', '}']) {
        text.push_str(&rest[..at]);
        let brace = &rest[at..=at];
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix(brace) {
            text.push_str(brace);
            rest = after;
        } else if brace == "}" {
            return Err("a `}` without a `{`; for a brace as such, write `}}`".to_owned());
        } else {
            let Some((inside, after)) = rest.split_once('}') else {
                return Err("a `{` without a `}`; for a brace as such, write `{{`".to_owned());
            };
            capture(inside, &mut captures)?;
            rest = after;
        }
    }
    text.push_str(rest);
    Ok((text, captures))
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
    use super::pieces;

    #[test]
    fn captures_are_read_as_format_reads_them() {
        let read = |text| pieces(text).map_err(|_| "refused");
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
}
