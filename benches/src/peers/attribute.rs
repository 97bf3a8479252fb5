//! `applock` through its attribute: a function whose body does nothing.

use std::time::Duration;

use anyhow::{Result, bail};
use applock::{AppLocker, singleton};

use crate::driver::Peer;
use crate::options::Mode;

/// See the module.
#[derive(Clone)]
pub(crate) struct Attribute {
    locker: AppLocker,
    ttl: Duration,
}

/// What one call of the function needs.
#[derive(Clone)]
pub(crate) struct Call {
    on: Attribute,
    key: String,
}

impl Peer for Attribute {
    const NAME: &'static str = "applock, annotated";
    const CRATE: Option<&'static str> = Some("applock");
    type Lock = Call;
    type Held = ();

    async fn connect(url: &str, ttl: Duration) -> Result<Self> {
        let locker = AppLocker::connect(url).await?;
        Ok(Self { locker, ttl })
    }

    fn refuses(mode: &Mode) -> Option<&'static str> {
        let can = matches!(mode, Mode::Cycle | Mode::Once | Mode::Many { .. });
        (!can).then_some("measured where nobody waits")
    }

    fn lock(&self, key: &str) -> Result<Call> {
        let (on, key) = (self.clone(), key.to_owned());
        Ok(Call { on, key })
    }

    async fn acquire(_: &Call) -> Result<()> {
        bail!("its lock is taken and released around a call")
    }

    async fn release((): ()) -> Result<()> {
        Ok(())
    }

    async fn cycle(lock: &Call) -> Result<()> {
        Ok(annotated(&lock.on, &lock.key).await?)
    }
}

#[singleton(app = "bench", name = "{key}", ttl = on.ttl, locker = on.locker.clone(), wait = forever)]
async fn annotated(on: &Attribute, key: &str) -> Result<(), applock::Error> {
    Ok(())
}
