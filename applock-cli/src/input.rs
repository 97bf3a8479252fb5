//! What the command line says, judged before anything is done: lengths, codes, the store, the
//! lock. Each mistake names the argument and the way out.

use std::ffi::OsStr;
use std::time::Duration;

use applock_runtime::{AppLocker, Builder, Lock, URL_VARIABLE};

use crate::args::{LockArgs, StoreArgs};
use crate::exit::Failure;

/// A length of time: `60` and `60s` are the same.
pub(crate) fn length(what: &str, text: &str) -> Result<Duration, Failure> {
    let bad = |reason: &str| {
        Failure::invalid(
            what,
            text,
            reason,
            "write one such as 60, 90s, 5m, 500ms or 25h",
        )
    };
    let text = text.trim();
    if text.starts_with('-') {
        return Err(bad("it is less than nothing"));
    }
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        let seconds = text.parse().map_err(|_| bad("there is no such length"))?;
        return Ok(Duration::from_secs(seconds));
    }
    humantime::parse_duration(text).map_err(|_| bad("it is no length of time"))
}

/// The same where it may be left out.
pub(crate) fn optional(what: &str, text: Option<&String>) -> Result<Option<Duration>, Failure> {
    text.map(|text| length(what, text)).transpose()
}

pub(crate) fn exit_code(what: &str, text: &str) -> Result<u8, Failure> {
    text.parse().map_err(|_| {
        Failure::invalid(
            what,
            text,
            "it is no exit code",
            "write a number from 0 to 255",
        )
    })
}

/// The store that the command is to use. `instance` is the name by which others see us.
pub(crate) fn builder(store: &StoreArgs, instance: Option<&OsStr>) -> Result<Builder, Failure> {
    let mut builder = AppLocker::builder();
    let url = match &store.url {
        Some(url) => Some(url.clone()),
        None => std::env::var(URL_VARIABLE).ok(),
    };
    if let Some(url) = url
        && url.trim().starts_with("memory:")
    {
        // R10: nobody else would see it.
        return Err(Failure::invalid(
            if store.url.is_some() {
                "--url"
            } else {
                URL_VARIABLE
            },
            "memory:",
            "that store is inside one process, so it would exclude nobody",
            "write redis://host:6379, or dir:/var/lock/app on one machine",
        ));
    }
    if let Some(url) = &store.url {
        builder = builder.store(url.as_str());
    }
    if let Some(prefix) = &store.key_prefix {
        builder = builder.key_prefix(prefix);
    }
    let is_named = std::env::var_os("APPLOCK_INSTANCE").is_some();
    if let Some(instance) = instance.filter(|name| !is_named && !name.is_empty()) {
        let name: String = instance.to_string_lossy().chars().take(60).collect();
        builder = builder.instance(name);
    }
    Ok(builder)
}

pub(crate) fn locker(store: &StoreArgs) -> Result<AppLocker, Failure> {
    Ok(builder(store, None)?.build()?)
}

pub(crate) fn lock(locker: &AppLocker, args: &LockArgs) -> Lock {
    // With a key, the application is not asked for.
    let mut lock = locker.lock(args.app.as_deref().unwrap_or_default());
    if let Some(name) = &args.name {
        lock = lock.name(name);
    }
    if let Some(key) = &args.key {
        lock = lock.key(key);
    }
    lock
}
