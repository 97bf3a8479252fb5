//! What the library logs: a subscriber that keeps it.

use std::fmt::{Debug, Write as _};
use std::sync::{Mutex, Once};
use std::time::Duration;

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

use super::wait;

static LINES: Mutex<Vec<(Level, String)>> = Mutex::new(Vec::new());
static SPANS: Mutex<Vec<String>> = Mutex::new(Vec::new());

struct Keep;

impl Subscriber for Keep {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("applock")
    }

    fn new_span(&self, attributes: &Attributes<'_>) -> Id {
        let mut line = Line(String::new());
        attributes.record(&mut line);
        SPANS.lock().expect("the spans").push(line.0);
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut line = Line(String::new());
        event.record(&mut line);
        LINES
            .lock()
            .expect("the log")
            .push((*event.metadata().level(), line.0));
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        write!(self.0, "{}={value:?} ", field.name()).expect("a string");
    }
}

/// Keeps everything that is logged from now on, in this whole process.
pub fn keep() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| tracing::subscriber::set_global_default(Keep).expect("the only one"));
}

/// What was logged with all of these words in it.
pub fn lines(words: &[&str]) -> Vec<(Level, String)> {
    let lines = LINES.lock().expect("the log");
    let has = |line: &String| words.iter().all(|word| line.contains(word));
    lines
        .iter()
        .filter(|(_, line)| has(line))
        .cloned()
        .collect()
}

/// The fields of the spans that were made, with all of these words in them.
pub fn spans(words: &[&str]) -> Vec<String> {
    let spans = SPANS.lock().expect("the spans");
    let has = |line: &&String| words.iter().all(|word| line.contains(word));
    spans.iter().filter(has).cloned().collect()
}

/// Waits until something with all of these words is logged.
#[track_caller]
pub fn until(words: &[&str]) -> (Level, String) {
    wait::until(
        &format!("{words:?} logged"),
        Duration::from_secs(20),
        || !lines(words).is_empty(),
    );
    lines(words).remove(0)
}
