//! What is asked of a history: one order that a lock allows, and some questions that
//! need no search.

use crate::checker::{Verdict, check};
use crate::record::Attempt;
use crate::resource::Counter;
use crate::spec::{Lease, Terms, operations};

/// A history that takes more steps is reported as undecided. One of a minute takes some
/// thousands.
pub const STEPS: usize = 1_000_000;

/// What is wrong with what was done to one lock: all of it, by each of the questions.
pub fn judge(attempts: &[Attempt], terms: &Terms, steps: usize) -> Result<(), String> {
    let flaws: Vec<String> = [
        tokens_grow(attempts),
        holdings_are_apart(attempts),
        has_an_order(attempts, terms, steps),
    ]
    .into_iter()
    .filter_map(Result::err)
    .collect();
    if flaws.is_empty() {
        return Ok(());
    }
    Err(flaws.join("\n"))
}

fn has_an_order(attempts: &[Attempt], terms: &Terms, steps: usize) -> Result<(), String> {
    match check::<Lease>(operations(attempts, terms), steps) {
        Verdict::Sound => Ok(()),
        Verdict::Broken(how) => Err(format!("no lock behaves like that: {how}")),
        Verdict::Undecided { steps } => Err(format!("undecided after {steps} steps")),
    }
}

/// An acquisition that began after another had been answered has the larger token.
fn tokens_grow(attempts: &[Attempt]) -> Result<(), String> {
    let acquired = attempts
        .iter()
        .filter_map(|attempt| attempt.acquired().map(|acquired| (acquired, attempt)));
    let mut by_end: Vec<_> = acquired.collect();
    let mut by_start = by_end.clone();
    by_end.sort_by_key(|((end, _), _)| *end);
    by_start.sort_by_key(|(_, attempt)| attempt.start);
    let mut earlier = by_end.into_iter().peekable();
    let mut largest: Option<(u64, &Attempt)> = None;
    for ((_, token), attempt) in by_start {
        while let Some(((_, token), known)) = earlier.next_if(|((end, _), _)| *end < attempt.start)
        {
            largest = largest
                .filter(|(before, _)| *before > token)
                .or(Some((token, known)));
        }
        if let Some((before, known)) = largest.filter(|(before, _)| *before >= token) {
            return Err(format!(
                "token {token} came after {before}\n    {known:?}\n    {attempt:?}"
            ));
        }
    }
    Ok(())
}

/// From a holder's answer until its guard last said that it is held, no other holder's time
/// begins.
fn holdings_are_apart(attempts: &[Attempt]) -> Result<(), String> {
    let mut holdings: Vec<_> = attempts
        .iter()
        .filter_map(|attempt| {
            let ((answered, _), (_, last)) = attempt.acquired().zip(attempt.yes)?;
            Some((answered, last, attempt))
        })
        .collect();
    holdings.sort_by_key(|(answered, ..)| *answered);
    let mut longest: Option<(u64, &Attempt)> = None;
    for (answered, last, attempt) in holdings {
        if let Some((_, other)) = longest.filter(|(until, _)| *until >= answered) {
            return Err(format!("two held at once\n    {other:?}\n    {attempt:?}"));
        }
        longest = longest
            .filter(|(until, _)| *until > last)
            .or(Some((last, attempt)));
    }
    Ok(())
}

/// Writes to one counter, as their writers learned of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Writes {
    pub acknowledged: u64,
    /// Their writers were killed before they could tell.
    pub unanswered: u64,
    pub refused: u64,
}

impl Writes {
    pub fn add(&mut self, attempt: &Attempt) {
        match attempt.write {
            Some(Some(true)) => self.acknowledged += 1,
            Some(Some(false)) => self.refused += 1,
            Some(None) => self.unanswered += 1,
            None => (),
        }
    }
}

/// Every increment that was acknowledged is in the counter, and nothing else is.
pub fn count(counter: &Counter, writes: &Writes) -> Result<(), String> {
    let possible = writes.acknowledged..=writes.acknowledged + writes.unanswered;
    if counter.value == counter.taken && possible.contains(&counter.taken) {
        return Ok(());
    }
    Err(format!(
        "increments were lost or made up: {counter:?}, {writes:?}"
    ))
}
