//! `applock info`: who holds a lock, who waits for it, and how its last run ended.

use applock_runtime::{LastHolding, LockInfo};
use serde::Serialize;

use crate::args::{InfoArgs, StoreArgs};
use crate::exit::{self, Failure};
use crate::{input, output, view};

#[derive(Serialize)]
struct Answer {
    held: bool,
    holder: Option<LockInfo>,
    last: Option<LastHolding>,
    last_success: Option<LastHolding>,
}

pub(crate) fn info(args: &InfoArgs, store: &StoreArgs) -> Result<u8, Failure> {
    let locker = input::locker(store)?;
    let lock = input::lock(&locker, &args.lock);
    let holder = lock.info_blocking()?;
    let last = lock.last_holding_blocking()?;
    let success = lock.last_success_blocking()?;
    let code = if holder.is_some() { exit::OK } else { exit::NO };
    if args.json {
        let held = holder.is_some();
        let answer = Answer {
            held,
            holder,
            last,
            last_success: success,
        };
        output::print(view::json(&answer)?)?;
        return Ok(code);
    }
    let mut text = String::new();
    match &holder {
        Some(info) => text.push_str(&format!("{info}\n")),
        None => text.push_str("free\n"),
    }
    match &last {
        Some(run) if holder.is_none() => {
            text.push_str(&format!("last run: {}\n", view::run(run)));
        }
        Some(_) => {}
        None if holder.is_none() => text.push_str("no run is remembered\n"),
        None => {}
    }
    let is_other = |run: &&LastHolding| {
        last.as_ref()
            .is_none_or(|last| last.owner_id != run.owner_id)
    };
    if let Some(run) = success.as_ref().filter(is_other) {
        text.push_str(&format!("last success: {}\n", view::run(run)));
    }
    output::print(text)?;
    Ok(code)
}
