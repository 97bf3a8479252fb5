//! `applock release`: frees a lock that a dead holder has left, or, by force, any.

use applock_runtime::__private::force_release_for;

use crate::args::{ReleaseArgs, StoreArgs};
use crate::exit::{self, Failure, quoted};
use crate::{input, output};

pub(crate) fn release(args: &ReleaseArgs, store: &StoreArgs) -> Result<u8, Failure> {
    let stale = input::optional("--stale", args.stale.as_ref())?;
    let reason = args.reason.as_deref().unwrap_or_default().trim();
    if args.force && reason.is_empty() {
        return Err(Failure::invalid(
            "--reason",
            "",
            "it says nothing",
            "write why the lock is taken from its holder: --reason 'host db3 is off the network'",
        ));
    }
    let locker = input::locker(store)?;
    let lock = input::lock(&locker, &args.lock);
    // Who it was is known only before.
    let holder = lock.info_blocking()?;
    let released = match stale {
        Some(stale) => lock.force_release_if_stale_blocking(stale)?,
        None => force_release_for(&lock, reason)?,
    };
    let holder = holder.map(|info| info.to_string());
    let mut line = match (released, holder) {
        (true, Some(holder)) => format!("released. Before: {holder}"),
        (true, None) => "released".to_owned(),
        (false, Some(holder)) => format!("not released, for it is not stale: {holder}"),
        (false, None) => "nothing to release: it is free".to_owned(),
    };
    if released && !reason.is_empty() {
        line.push_str(&format!("; reason: {}", quoted(reason)));
    }
    output::print(format_args!("{line}\n"))?;
    Ok(if released { exit::OK } else { exit::NO })
}
