//! `applock wait`: until a lock is free, taking nothing.

use crate::args::{StoreArgs, WaitArgs};
use crate::exit::{self, Failure};
use crate::input;

pub(crate) fn wait(args: &WaitArgs, store: &StoreArgs) -> Result<u8, Failure> {
    let longest = input::optional("--timeout", args.timeout.as_ref())?;
    let locker = input::locker(store)?;
    let lock = input::lock(&locker, &args.lock);
    // A store that is not there from the start is a mistake rather than a failure that passes.
    if lock.info_blocking()?.is_none() {
        return Ok(exit::OK);
    }
    let is_free = match longest {
        Some(longest) => lock.until_free_within_blocking(longest)?,
        None => {
            lock.until_free_blocking()?;
            true
        }
    };
    match lock.info_blocking()?.filter(|_| !is_free) {
        Some(holder) => Err(Failure::new(exit::BUSY, format!("busy: {holder}"))),
        None => Ok(exit::OK),
    }
}
