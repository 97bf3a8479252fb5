//! What a worker tells of what it does, as a line of text each; and the attempts that a
//! history is made of.

use std::collections::BTreeMap;
use std::fmt;

use applock::clock::{Clock as _, SystemClock};

/// The present, on the clock that all processes of this machine share: nanoseconds.
pub fn now() -> u64 {
    let since = SystemClock.now().since_origin();
    u64::try_from(since.as_nanos()).expect("some centuries")
}

/// One line. A process that is killed may leave a part of its last one: what has no
/// mark at its end was never said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    pub op: u64,
    pub at: u64,
    pub what: What,
}

const END: &str = " .";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// An acquire begins.
    Acquiring { key: usize, waits: bool },
    /// It ended.
    Outcome(Outcome),
    /// The guard said that it is held; the time is that before the question.
    Held,
    /// A release begins.
    Releasing,
    /// It ended.
    Release(Release),
    /// A write to the resource begins.
    Writing,
    /// It was taken, or refused.
    Written(bool),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Acquired(u64),
    Busy,
    Unknown,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Release {
    Released,
    NotHeld,
    Lost,
    Unknown,
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} ", self.op, self.at)?;
        match self.what {
            What::Acquiring { key, waits } => write!(f, "acquiring {key} {}", u8::from(waits)),
            What::Outcome(Outcome::Acquired(token)) => write!(f, "acquired {token}"),
            What::Outcome(Outcome::Busy) => f.write_str("busy"),
            What::Outcome(Outcome::Unknown) => f.write_str("unavailable"),
            What::Held => f.write_str("held"),
            What::Releasing => f.write_str("releasing"),
            What::Release(Release::Released) => f.write_str("released"),
            What::Release(Release::NotHeld) => f.write_str("not-held"),
            What::Release(Release::Lost) => f.write_str("lost"),
            What::Release(Release::Unknown) => f.write_str("unsure"),
            What::Writing => f.write_str("writing"),
            What::Written(true) => f.write_str("written"),
            What::Written(false) => f.write_str("refused"),
        }?;
        f.write_str(END)
    }
}

impl Event {
    /// `None`: that is no event, or a part of one.
    pub fn parse(line: &str) -> Option<Self> {
        let mut words = line.strip_suffix(END)?.split(' ');
        let mut word = || words.next();
        let op = word()?.parse().ok()?;
        let at = word()?.parse().ok()?;
        let what = match word()? {
            "acquiring" => What::Acquiring {
                key: word()?.parse().ok()?,
                waits: word()? == "1",
            },
            "acquired" => What::Outcome(Outcome::Acquired(word()?.parse().ok()?)),
            "busy" => What::Outcome(Outcome::Busy),
            "unavailable" => What::Outcome(Outcome::Unknown),
            "held" => What::Held,
            "releasing" => What::Releasing,
            "released" => What::Release(Release::Released),
            "not-held" => What::Release(Release::NotHeld),
            "lost" => What::Release(Release::Lost),
            "unsure" => What::Release(Release::Unknown),
            "writing" => What::Writing,
            "written" => What::Written(true),
            "refused" => What::Written(false),
            _ => return None,
        };
        Some(Self { op, at, what })
    }
}

/// All that is known of one acquire and what followed it. What has no end was never
/// heard of again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    pub op: u64,
    pub key: usize,
    pub waits: bool,
    pub start: u64,
    pub outcome: Option<(u64, Outcome)>,
    /// The first and the last time that the guard said yes.
    pub yes: Option<(u64, u64)>,
    pub release: Option<(u64, Option<(u64, Release)>)>,
    /// A write: `None` if its answer is not known.
    pub write: Option<Option<bool>>,
}

impl Attempt {
    pub fn begun(op: u64, key: usize, start: u64) -> Self {
        Self {
            op,
            key,
            waits: false,
            start,
            outcome: None,
            yes: None,
            release: None,
            write: None,
        }
    }

    /// The fencing token, and when it was answered, if it is known to be acquired.
    pub fn acquired(&self) -> Option<(u64, u64)> {
        match self.outcome {
            Some((end, Outcome::Acquired(token))) => Some((end, token)),
            _ => None,
        }
    }

    fn goes_on(&mut self, at: u64, what: What) {
        match what {
            What::Acquiring { .. } => panic!("operation {} begins twice", self.op),
            What::Outcome(outcome) => self.outcome = Some((at, outcome)),
            What::Held => self.yes = Some((self.yes.map_or(at, |(first, _)| first), at)),
            What::Releasing => self.release = Some((at, None)),
            What::Release(how) => {
                let (start, end) = self.release.as_mut().expect("a release has begun");
                assert!(*start <= at, "the clock went backward");
                *end = Some((at, how));
            }
            What::Writing => self.write = Some(None),
            What::Written(taken) => self.write = Some(Some(taken)),
        }
    }
}

/// The attempts of one stretch of time.
#[derive(Default)]
pub struct Record(BTreeMap<u64, Attempt>);

impl Record {
    pub fn add(&mut self, event: Event) {
        let Event { op, at, what } = event;
        if let What::Acquiring { key, waits } = what {
            let begun = Attempt {
                waits,
                ..Attempt::begun(op, key, at)
            };
            let known = self.0.insert(op, begun);
            assert!(known.is_none(), "operation {op} begins twice");
        } else {
            let attempt = self.0.get_mut(&op).expect("it has begun");
            attempt.goes_on(at, what);
        }
    }

    pub fn into_attempts(self) -> Vec<Attempt> {
        self.0.into_values().collect()
    }
}

#[test]
fn what_is_reported_is_understood_and_half_of_it_is_not() {
    for what in [
        What::Acquiring {
            key: 3,
            waits: true,
        },
        What::Outcome(Outcome::Acquired(1_234)),
        What::Outcome(Outcome::Busy),
        What::Outcome(Outcome::Unknown),
        What::Held,
        What::Releasing,
        What::Release(Release::Released),
        What::Release(Release::NotHeld),
        What::Release(Release::Lost),
        What::Release(Release::Unknown),
        What::Writing,
        What::Written(true),
        What::Written(false),
    ] {
        let event = Event {
            op: 7,
            at: 12_345,
            what,
        };
        let text = event.to_string();
        assert_eq!(Event::parse(&text), Some(event));
        for cut in 0..text.len() {
            assert_eq!(Event::parse(&text[..cut]), None, "{text:?} cut at {cut}");
        }
    }
}
