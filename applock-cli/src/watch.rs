//! `applock watch`: a line for each change.
//!
//! It looks at all locks once an interval and compares. What has become of a holding that is gone is
//! asked for by its key: the store remembers that. Where the servers send notifications of keys, the
//! lock of each that comes is looked at, at once; of one that was taken and released meanwhile the
//! store remembers the run.
//!
//! Danger: calm that is only silence. A notification may get lost, so the looks go on beside them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant, SystemTime};

use applock_runtime::__private::{ask_each_server, hear_changes, shown_text};
use applock_runtime::{AppLocker, Ending, Error, LastHolding, LockInfo};
use serde::Serialize;

use crate::args::{StoreArgs, WatchArgs};
use crate::exit::Failure;
use crate::view::{Paint, Tone, length};
use crate::{input, ls, output, view};

/// A change, as programs read it.
#[derive(Serialize)]
struct Change<'a> {
    at: String,
    event: &'static str,
    key: Option<&'a str>,
    holder: Option<&'a LockInfo>,
    run: Option<&'a LastHolding>,
    error: Option<String>,
}

struct Watch {
    json: bool,
    paint: Paint,
    /// The store did not answer the last time.
    is_silent: bool,
    /// The newest run of each lock whose end was told.
    ended: BTreeMap<String, String>,
}

/// Never returns but by a failure, or when nobody reads any more.
pub(crate) fn watch(args: &WatchArgs, store: &StoreArgs) -> Result<u8, Failure> {
    let interval = input::length("--interval", &args.interval)?;
    if interval.is_zero() {
        return Err(Failure::invalid(
            "--interval",
            &args.interval,
            "it would never stop asking",
            "write one such as 1s or 200ms",
        ));
    }
    let locker = input::locker(store)?;
    let mut watch = Watch {
        json: args.json,
        paint: Paint::of_stdout(),
        is_silent: false,
        ended: BTreeMap::new(),
    };
    // Before the first look, so that nothing falls between.
    let mut changes = watch.listen(&locker, &args.pattern, interval)?;
    // The first look tells a mistake; what fails later may pass.
    let mut known = by_key(locker.locks_blocking(&args.pattern)?);
    for holder in known.values() {
        watch.held(holder)?;
    }
    let mut next = Instant::now() + interval;
    loop {
        for key in changed(&mut changes, next) {
            let lock = locker.lock("").key(&key);
            match lock.info_blocking() {
                Ok(now) => watch.look_at(&locker, &key, now, &mut known)?,
                Err(error @ Error::Unavailable(_)) => watch.unanswered(&error)?,
                Err(error) => return Err(error.into()),
            }
        }
        if Instant::now() < next {
            continue;
        }
        match locker.locks_blocking(&args.pattern) {
            Ok(locks) => {
                watch.answered()?;
                let found = by_key(locks);
                watch.compare(&locker, &known, &found)?;
                known = found;
            }
            Err(error @ Error::Unavailable(_)) => watch.unanswered(&error)?,
            Err(error) => return Err(error.into()),
        }
        next = Instant::now() + interval;
    }
}

/// The keys that have changed until then; as soon as there is one, those that are here.
fn changed(changes: &mut Option<Receiver<String>>, until: Instant) -> BTreeSet<String> {
    let left = until.saturating_duration_since(Instant::now());
    let first = match changes {
        None => {
            std::thread::sleep(left);
            None
        }
        Some(heard) => match heard.recv_timeout(left) {
            Ok(key) => Some(key),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => {
                *changes = None;
                None
            }
        },
    };
    let more = changes.iter().flat_map(Receiver::try_iter);
    first.into_iter().chain(more).collect()
}

/// Whether a server's `notify-keyspace-events` is enough to hear that a lock changes hands.
fn tells(flags: &str) -> bool {
    let has = |flag: char| flags.contains(flag);
    has('K') && (has('A') || has('$') && has('g') && has('x'))
}

/// The word for a run's end.
fn event(ending: Option<Ending>) -> (&'static str, Tone) {
    match ending {
        Some(Ending::Expired) => ("expired", Tone::Bad),
        Some(Ending::Forced) => ("forced", Tone::Warning),
        Some(Ending::Ok) => ("ok", Tone::Good),
        Some(Ending::Error | Ending::Panicked | Ending::Cancelled) => ("failed", Tone::Warning),
        Some(Ending::Lost) => ("lost", Tone::Bad),
        Some(Ending::Held) | None => ("over", Tone::Plain),
        Some(_) => ("released", Tone::Plain),
    }
}

fn by_key(locks: Vec<LockInfo>) -> BTreeMap<String, LockInfo> {
    let keyed = locks.into_iter().map(|info| (info.key().to_owned(), info));
    keyed.collect()
}

impl Watch {
    fn compare(
        &mut self,
        locker: &AppLocker,
        known: &BTreeMap<String, LockInfo>,
        found: &BTreeMap<String, LockInfo>,
    ) -> Result<(), Failure> {
        for (key, before) in known {
            let now = found.get(key);
            if now.is_none_or(|now| now.owner_id() != before.owner_id()) {
                self.gone(locker, before, now.is_some())?;
            }
        }
        for (key, now) in found {
            let before = known
                .get(key)
                .filter(|before| before.owner_id() == now.owner_id());
            match before {
                None => self.held(now)?,
                Some(before) => {
                    if now.ended_at().is_some() && before.ended_at().is_none() {
                        self.tell("kept", Tone::Plain, Some(now), None, &ls::holder(now))?;
                    }
                    if ls::is_silent(now) && !ls::is_silent(before) {
                        let age = now.heartbeat_age().unwrap_or_default();
                        let text = format!("{}: no heartbeat for {}", ls::holder(now), length(age));
                        self.tell("silent", Tone::Bad, Some(now), None, &text)?;
                    }
                    if now.waiters() != before.waiters() {
                        let text = format!("{} in the queue", now.waiters().unwrap_or(0));
                        self.tell("waiting", Tone::Plain, Some(now), None, &text)?;
                    }
                }
            }
        }
        Ok(())
    }

    fn held(&self, holder: &LockInfo) -> Result<(), Failure> {
        let text = ls::holder(holder);
        self.tell("held", Tone::Good, Some(holder), None, &text)
    }

    /// Begins to listen for changes, where the servers may tell of them, and says so.
    fn listen(
        &self,
        locker: &AppLocker,
        pattern: &str,
        interval: Duration,
    ) -> Result<Option<Receiver<String>>, Failure> {
        let words = ["CONFIG", "GET", "notify-keyspace-events"];
        let words = words.map(str::to_owned).to_vec();
        // Where the servers are not known yet, the first look says why.
        let said = ask_each_server(locker, words, Vec::new()).unwrap_or_default();
        let flags: Vec<Option<String>> = said
            .into_iter()
            .map(|said| Some(said.answer.ok()?.get(1)?.as_str()?.to_owned()))
            .collect();
        let each = length(interval);
        let tells_not = |flags: &Option<String>| flags.as_ref().is_some_and(|it| !tells(it));
        if flags.iter().all(tells_not) {
            let hint = match flags.is_empty() {
                true => "this store tells of no changes",
                false => {
                    "the server tells of no changes; CONFIG SET notify-keyspace-events K$gx has it tell"
                }
            };
            output::say(format_args!("looking every {each}: {hint}"));
            return Ok(None);
        }
        if flags.iter().flatten().filter(|it| tells(it)).count() == flags.len() {
            output::say(format_args!(
                "changes are told as they happen, and looked for every {each}"
            ));
        } else {
            output::say(format_args!(
                "looking every {each}, and listening: not every server says that it tells of changes"
            ));
        }
        Ok(Some(hear_changes(locker, pattern)?))
    }

    /// One lock has changed, or may have.
    fn look_at(
        &mut self,
        locker: &AppLocker,
        key: &str,
        now: Option<LockInfo>,
        known: &mut BTreeMap<String, LockInfo>,
    ) -> Result<(), Failure> {
        self.answered()?;
        let before = by_key(known.remove(key).into_iter().collect());
        let found = by_key(now.into_iter().collect());
        self.compare(locker, &before, &found)?;
        if found.is_empty() {
            self.unseen(locker, key)?;
        }
        known.extend(found);
        Ok(())
    }

    /// A lock is free: the newest run may have come and gone between two looks.
    fn unseen(&mut self, locker: &AppLocker, key: &str) -> Result<(), Failure> {
        let last = locker.lock("").key(key).last_holding_blocking();
        let Some(run) = last.ok().flatten() else {
            return Ok(());
        };
        if run.ending == Ending::Held {
            // It was taken since we saw it free: that change is told by itself.
            return Ok(());
        }
        let told = self.ended.insert(key.to_owned(), run.owner_id.clone());
        if told.is_some_and(|owner| owner == run.owner_id) {
            return Ok(());
        }
        let (event, tone) = event(Some(run.ending));
        self.line(event, tone, None, Some(&run), None, &view::run(&run))
    }

    /// A holding is over: how, as far as the store remembers. The newest one is remembered, so one
    /// that another has followed is only known to be over.
    fn gone(
        &mut self,
        locker: &AppLocker,
        before: &LockInfo,
        is_followed: bool,
    ) -> Result<(), Failure> {
        let last = if is_followed || before.is_foreign() {
            None
        } else {
            let lock = locker.lock("").key(before.key());
            // The next look tells that the store is silent.
            lock.last_holding_blocking().ok().flatten()
        };
        let last = last.filter(|run| run.owner_id == before.owner_id());
        let (event, tone) = event(last.as_ref().map(|run| run.ending));
        let (key, owner) = (before.key().to_owned(), before.owner_id().to_owned());
        self.ended.insert(key, owner);
        let mut text = ls::holder(before);
        if let Some(run) = &last
            && let Some(until) = run.until
        {
            let took = until.duration_since(run.from).unwrap_or_default();
            text.push_str(&format!(", after {}: {}", length(took), view::ending(run)));
        }
        self.tell(event, tone, Some(before), last.as_ref(), &text)
    }

    fn unanswered(&mut self, error: &Error) -> Result<(), Failure> {
        if std::mem::replace(&mut self.is_silent, true) {
            return Ok(());
        }
        self.line(
            "unavailable",
            Tone::Bad,
            None,
            None,
            Some(error.to_string()),
            "",
        )
    }

    fn answered(&mut self) -> Result<(), Failure> {
        if !std::mem::replace(&mut self.is_silent, false) {
            return Ok(());
        }
        self.line(
            "available",
            Tone::Good,
            None,
            None,
            None,
            "the store answers again",
        )
    }

    fn tell(
        &self,
        event: &'static str,
        tone: Tone,
        holder: Option<&LockInfo>,
        run: Option<&LastHolding>,
        text: &str,
    ) -> Result<(), Failure> {
        self.line(event, tone, holder, run, None, text)
    }

    fn line(
        &self,
        event: &'static str,
        tone: Tone,
        holder: Option<&LockInfo>,
        run: Option<&LastHolding>,
        error: Option<String>,
        text: &str,
    ) -> Result<(), Failure> {
        let now = SystemTime::now();
        let key = holder.map(LockInfo::key);
        let key = key.or(run.map(|run| &*run.key));
        if self.json {
            let change = Change {
                at: humantime::format_rfc3339_millis(now).to_string(),
                event,
                key,
                holder,
                run,
                error,
            };
            return output::print_on(view::json(&change)?);
        }
        let event = self.paint.paint(tone, &format!("{event:<11}"));
        let key = key.map_or(String::new(), |key| shown_text(key) + "  ");
        let text = error.as_deref().unwrap_or(text);
        output::print_on(format_args!("{}  {event}  {key}{text}\n", view::date(now)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_tells_of_changes_if_it_sends_those_of_keys_and_of_what_locks_do() {
        for flags in ["AK", "KEA", "g$xK", "KA"] {
            assert!(tells(flags), "{flags}");
        }
        for flags in ["", "AE", "K", "Kg$", "K$x", "Kgx", "gxE"] {
            assert!(!tells(flags), "{flags}");
        }
    }
}
