//! `applock wait`: until a lock is free, taking nothing.

use std::time::{Duration, Instant};

use crate::args::{StoreArgs, WaitArgs};
use crate::exit::{self, Failure};
use crate::input;

/// Between two looks: the first pause, and the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

pub(crate) fn wait(args: &WaitArgs, store: &StoreArgs) -> Result<u8, Failure> {
    let longest = input::optional("--timeout", args.timeout.as_ref())?;
    let locker = input::locker(store)?;
    let lock = input::lock(&locker, &args.lock);
    let begun = Instant::now();
    let mut pause = FIRST_PAUSE;
    while let Some(holder) = lock.info_blocking()? {
        let left = longest.map(|longest| longest.saturating_sub(begun.elapsed()));
        if left.is_some_and(|left| left.is_zero()) {
            return Err(Failure::new(exit::BUSY, format!("busy: {holder}")));
        }
        // Its lease may end before the next look.
        let end = holder.remaining().unwrap_or(LONGEST_PAUSE).max(FIRST_PAUSE);
        std::thread::sleep(pause.min(end).min(left.unwrap_or(LONGEST_PAUSE)));
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
    Ok(exit::OK)
}
