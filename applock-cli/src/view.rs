//! How holders and runs are shown to people: dates, lengths, colours, tables. What programs read is
//! the library's own JSON.

use std::io::IsTerminal as _;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use applock_runtime::__private::shown_text;
use applock_runtime::LastHolding;
use serde::Serialize;

use crate::exit::{self, Failure};

/// A time for people.
pub(crate) fn date(at: SystemTime) -> String {
    humantime::format_rfc3339_seconds(at).to_string()
}

/// A length for people, of two units at the most: `3d 4h`, `2m 5s`, `1.2s`.
pub(crate) fn length(length: Duration) -> String {
    let seconds = length.as_secs();
    if seconds < 10 {
        return format!("{:.1}s", length.as_secs_f64());
    }
    let units = [(86_400, "d"), (3_600, "h"), (60, "m"), (1, "s")];
    let mut left = seconds;
    let mut parts = Vec::new();
    for (unit, name) in units {
        if parts.len() == 2 {
            break;
        }
        let count = left / unit;
        left %= unit;
        if count > 0 {
            parts.push(format!("{count}{name}"));
        } else if !parts.is_empty() {
            break;
        }
    }
    parts.join(" ")
}

/// How long ago that was by this machine's clock; a time to come is no time ago.
pub(crate) fn ago(at: SystemTime) -> Duration {
    SystemTime::now().duration_since(at).unwrap_or_default()
}

/// A run in one line.
pub(crate) fn run(run: &LastHolding) -> String {
    let mut line = format!("{} on {}", date(run.from), shown_text(&run.host));
    if let Some(pid) = run.pid {
        line.push_str(&format!(" (pid {pid})"));
    }
    match run.until {
        Some(until) => {
            let took = until.duration_since(run.from).unwrap_or_default();
            line.push_str(&format!(", for {}: {}", length(took), ending(run)));
        }
        None => line.push_str(&format!(": {}", ending(run))),
    }
    line
}

/// How a run ended, and where it was by force: by whom, and why.
pub(crate) fn ending(run: &LastHolding) -> String {
    match &run.forced_by {
        Some(by) => format!("{} by {}", run.ending, shown_text(by)),
        None => run.ending.to_string(),
    }
}

/// Whether it is a date at all: stores answer 1970 where they know none.
pub(crate) fn is_date(at: SystemTime) -> bool {
    at > UNIX_EPOCH
}

/// One line of JSON.
pub(crate) fn json(answer: &impl Serialize) -> Result<String, Failure> {
    let text = serde_json::to_string(answer)
        .map_err(|error| Failure::new(exit::FAILED, format!("no JSON: {error}")))?;
    Ok(text + "\n")
}

/// What a part of a line is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tone {
    Plain,
    Heading,
    Good,
    Warning,
    Bad,
}

/// Colours, where standard output is a terminal that has them and `NO_COLOR` is not set
/// (no-color.org).
#[derive(Clone, Copy)]
pub(crate) struct Paint(bool);

impl Paint {
    pub(crate) fn of_stdout() -> Self {
        let is_set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        let is_dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
        Self(std::io::stdout().is_terminal() && !is_set("NO_COLOR") && !is_dumb)
    }

    pub(crate) fn paint(self, tone: Tone, text: &str) -> String {
        let code = match tone {
            Tone::Plain => return text.to_owned(),
            Tone::Heading => "1",
            Tone::Good => "32",
            Tone::Warning => "33",
            Tone::Bad => "31",
        };
        if self.0 {
            format!("\u{1b}[{code}m{text}\u{1b}[0m")
        } else {
            text.to_owned()
        }
    }
}

/// Rows in columns that are as wide as their widest cell. The first row is the heading.
pub(crate) fn table(rows: &[Vec<(Tone, String)>], paint: Paint) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells
            .map(|(_, text)| text.chars().count())
            .max()
            .unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut out = String::new();
    for row in rows {
        let mut line = String::new();
        for (column, (tone, text)) in row.iter().enumerate() {
            line.push_str(&paint.paint(*tone, text));
            if column + 1 < row.len() {
                let width = widths.get(column).copied().unwrap_or(0);
                let missing = width.saturating_sub(text.chars().count());
                line.push_str(&" ".repeat(missing + 2));
            }
        }
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_length_has_two_units_at_the_most() {
        for (seconds, expected) in [
            (0.25, "0.2s"),
            (9.96, "10.0s"),
            (10.0, "10s"),
            (125.0, "2m 5s"),
            (3_600.0, "1h"),
            (90_061.0, "1d 1h"),
            (86_400.0 * 400.0, "400d"),
        ] {
            assert_eq!(length(Duration::from_secs_f64(seconds)), expected);
        }
    }

    #[test]
    fn columns_are_as_wide_as_their_widest_cell_whatever_the_colour() {
        let rows = vec![
            vec![
                (Tone::Heading, "KEY".into()),
                (Tone::Heading, "HOLDER".into()),
            ],
            vec![(Tone::Bad, "a-long-one".into()), (Tone::Plain, "b".into())],
        ];
        assert_eq!(
            table(&rows, Paint(false)),
            "KEY         HOLDER\na-long-one  b\n"
        );
        let painted = table(&rows, Paint(true));
        let bare = painted.replace("\u{1b}[31m", "").replace("\u{1b}[1m", "");
        assert_eq!(bare.replace("\u{1b}[0m", ""), table(&rows, Paint(false)));
        assert_ne!(painted, bare);
    }
}
