//! What is shown in the end, on the terminal and in `docs/BENCHMARKS.md`.

use std::fmt::Write as _;

use crate::machine::Machine;
use crate::peers::Contestant;

/// One measurement's figures.
#[derive(Default)]
pub(crate) struct Table {
    title: String,
    about: String,
    columns: Vec<&'static str>,
    rows: Vec<Vec<String>>,
    notes: Vec<String>,
    plots: Vec<&'static str>,
}

impl Table {
    /// An empty one. The first column is for names.
    pub(crate) fn new(title: &str, about: &str, columns: &[&'static str]) -> Self {
        Self {
            title: title.to_owned(),
            about: about.to_owned(),
            columns: columns.to_vec(),
            ..Self::default()
        }
    }

    /// One contestant's figures.
    pub(crate) fn row(&mut self, who: &Contestant, figures: Vec<String>) {
        self.line(named(who), figures);
    }

    /// Figures that are not of a contestant alone.
    pub(crate) fn line(&mut self, name: String, figures: Vec<String>) {
        let mut row = vec![name];
        row.extend(figures);
        self.rows.push(row);
    }

    /// Why a contestant has none, or not all.
    pub(crate) fn note(&mut self, who: &Contestant, why: &str) {
        self.notes.push(format!("{}: {why}", named(who)));
    }

    /// A picture beneath it, by its name.
    pub(crate) fn plot(&mut self, file: &'static str) {
        self.plots.push(file);
    }
}

fn named(who: &Contestant) -> String {
    format!("{} {}", who.name, who.version)
        .trim_end()
        .to_owned()
}

/// What was aimed at, and what was reached.
pub(crate) struct Goal {
    /// Of the whole.
    pub(crate) what: &'static str,
    /// What was aimed at.
    pub(crate) goal: &'static str,
    /// The figure.
    pub(crate) reached: String,
    /// Whether that is enough.
    pub(crate) met: bool,
}

/// Everything, as Markdown.
pub(crate) fn document(machine: &Machine, goals: &[Goal], tables: &[Table]) -> String {
    let mut text = String::new();
    let rows: Vec<Vec<String>> = goals
        .iter()
        .map(|goal| {
            let met = if goal.met { "yes" } else { "**no**" };
            vec![
                goal.what.to_owned(),
                goal.goal.to_owned(),
                goal.reached.clone(),
                met.to_owned(),
            ]
        })
        .collect();
    text.push_str("## Goals\n\n");
    text.push_str(&grid(&["what", "goal", "applock", "reached"], &rows));
    text.push_str("\n## Measured on\n\n");
    text.push_str(&machine.to_string());
    for table in tables {
        // Writing to a string can't fail.
        let _ = write!(text, "\n## {}\n\n{}\n\n", table.title, table.about);
        text.push_str(&grid(&table.columns, &table.rows));
        if !table.notes.is_empty() {
            text.push('\n');
        }
        for note in &table.notes {
            let _ = writeln!(text, "- {note}");
        }
        for plot in &table.plots {
            let _ = write!(text, "\n![{}]({plot})\n", table.title);
        }
    }
    text
}

/// A table whose columns are aligned.
fn grid(columns: &[&str], rows: &[Vec<String>]) -> String {
    let width = |at: usize| {
        let cells = rows.iter().filter_map(|row| row.get(at));
        let lengths = cells.map(|cell| cell.chars().count());
        lengths
            .max()
            .unwrap_or(0)
            .max(columns[at].chars().count())
            .max(3)
    };
    let line = |cell: &dyn Fn(usize) -> String| {
        (0..columns.len())
            .map(|at| format!("| {} ", cell(at)))
            .collect::<String>()
            + "|\n"
    };
    let mut text = line(&|at| format!("{:<1$}", columns[at], width(at)));
    text += &line(&|at| match at {
        0 => "-".repeat(width(at)),
        _ => "-".repeat(width(at) - 1) + ":",
    });
    for row in rows {
        text += &line(&|at| {
            let cell = row.get(at).map_or("", String::as_str);
            if at == 0 {
                format!("{cell:<0$}", width(at))
            } else {
                format!("{cell:>0$}", width(at))
            }
        });
    }
    text
}
