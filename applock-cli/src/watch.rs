//! `applock watch`: a line for each change.
//!
//! It looks at all locks once an interval and compares. What has become of a holding that is gone is
//! asked for by its key: the store remembers that.

use std::collections::BTreeMap;
use std::time::SystemTime;

use applock_runtime::__private::shown_text;
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
    };
    // The first look tells a mistake; what fails later may pass.
    let mut known = by_key(locker.locks_blocking(&args.pattern)?);
    for holder in known.values() {
        watch.held(holder)?;
    }
    loop {
        std::thread::sleep(interval);
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
    }
}

fn by_key(locks: Vec<LockInfo>) -> BTreeMap<String, LockInfo> {
    let keyed = locks.into_iter().map(|info| (info.key().to_owned(), info));
    keyed.collect()
}

impl Watch {
    fn compare(
        &self,
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

    /// A holding is over: how, as far as the store remembers. The newest one is remembered, so one
    /// that another has followed is only known to be over.
    fn gone(
        &self,
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
        let (event, tone) = match last.as_ref().map(|run| run.ending) {
            Some(Ending::Expired) => ("expired", Tone::Bad),
            Some(Ending::Forced) => ("forced", Tone::Warning),
            Some(Ending::Ok) => ("ok", Tone::Good),
            Some(Ending::Error | Ending::Panicked | Ending::Cancelled) => ("failed", Tone::Warning),
            Some(Ending::Lost) => ("lost", Tone::Bad),
            Some(Ending::Held) | None => ("over", Tone::Plain),
            Some(_) => ("released", Tone::Plain),
        };
        let mut text = ls::holder(before);
        if let Some(run) = &last
            && let Some(until) = run.until
        {
            let took = until.duration_since(run.from).unwrap_or_default();
            text.push_str(&format!(", after {}: {}", length(took), run.ending));
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
        if self.json {
            let change = Change {
                at: humantime::format_rfc3339_millis(now).to_string(),
                event,
                key: holder.map(LockInfo::key),
                holder,
                run,
                error,
            };
            return output::print_on(view::json(&change)?);
        }
        let event = self.paint.paint(tone, &format!("{event:<11}"));
        let key = holder.map_or(String::new(), |info| shown_text(info.key()) + "  ");
        let text = error.as_deref().unwrap_or(text);
        output::print_on(format_args!("{}  {event}  {key}{text}\n", view::date(now)))
    }
}
