//! The distributed store: one Redis (6.2 or later) or Valkey server.
//!
//! Each step is one script, one round trip (rule R3); the scripts stand beside this
//! file, and say what they take and answer.

mod advice;
mod fault;
mod link;
mod reply;

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use futures_util::future::join_all;
use redis::{Cmd, ConnectionInfo, ErrorKind, Script, ServerErrorKind, Value};

use crate::key::Key;

pub(crate) use link::Connector;
use link::{About, Dialer, Link};

use super::{Acquire, Acquired, Answer, Inspection, Outcome, Release, Renew, Store, StoreError};

/// How long the fence (token counter and last holding) outlives its last use.
pub(super) const FENCE_LIFE: Duration = Duration::from_secs(7 * 24 * 3600);

/// So many renewals travel in one script call at most: the server does nothing else
/// meanwhile (about 3 µs each).
const RENEWALS_A_CALL: usize = 100;

struct Source {
    code: &'static str,
    hash: String,
}

macro_rules! script {
    ($file:literal) => {
        LazyLock::new(|| {
            let code = include_str!(concat!("scripts/", $file, ".lua"));
            Source {
                code,
                hash: Script::new(code).get_hash().to_owned(),
            }
        })
    };
}

static ACQUIRE: LazyLock<Source> = script!("acquire");
static RENEW: LazyLock<Source> = script!("renew");
static RELEASE: LazyLock<Source> = script!("release");
static INSPECT: LazyLock<Source> = script!("inspect");
static FORCE_RELEASE: LazyLock<Source> = script!("force_release");

/// One Redis server.
pub(crate) struct RedisStore {
    link: Arc<Link>,
    /// Whether the server's settings were looked at.
    advised: AtomicBool,
    shown: Arc<str>,
}

impl fmt::Debug for RedisStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisStore")
            .field("url", &self.shown)
            .finish_non_exhaustive()
    }
}

impl RedisStore {
    /// `shown` is the URL without its password.
    pub(crate) fn new(info: ConnectionInfo, shown: Arc<str>) -> Result<Self, redis::RedisError> {
        Ok(Self::over(Arc::new(Dialer::new(info)?), shown))
    }

    /// Over connections that `connector` makes.
    pub(crate) fn over(connector: Arc<dyn Connector>, shown: Arc<str>) -> Self {
        Self {
            link: Arc::new(Link::new(connector, Arc::clone(&shown))),
            advised: AtomicBool::new(false),
            shown,
        }
    }

    /// Runs a script: by its hash, and where the server does not know it (a new one, a
    /// flush, a failover) with its text, which teaches it.
    async fn run(
        &self,
        script: &'static LazyLock<Source>,
        keys: &[&str],
        arguments: &[Argument<'_>],
        about: About<'_>,
        within: Duration,
    ) -> Outcome<Value> {
        let started = tokio::time::Instant::now();
        let by_hash = command("EVALSHA", &script.hash, keys, arguments);
        let failed = match self.link.send(&by_hash, about, within).await {
            Ok(value) => return Ok(value),
            Err(failed) => failed,
        };
        if !is_unknown_script(&failed.error) {
            return Err(failed.into());
        }
        let left = within.saturating_sub(started.elapsed());
        let by_text = command("EVAL", script.code, keys, arguments);
        self.link
            .send(&by_text, about, left)
            .await
            .map_err(Into::into)
    }

    /// Looks at the server's settings, once, when the first lock was taken and while
    /// nobody waits for it.
    fn advise(&self, wish: &Acquire, token: u64) {
        if !self.advised.swap(true, Ordering::Relaxed) {
            let taken = advice::Taken {
                key: Arc::clone(&wish.key.lock),
                owner: wish.owner,
                token,
            };
            tokio::spawn(advice::on_eviction(
                Arc::clone(&self.link),
                Arc::clone(&self.shown),
                taken,
            ));
        }
    }

    async fn acquire_one(&self, wish: Acquire, within: Duration) -> Outcome<Acquired> {
        let identity = &wish.identity;
        let answer = self
            .run(
                &ACQUIRE,
                &[&wish.key.lock, &wish.key.fence()],
                &[
                    Argument::Text(wish.owner.simple().encode_lower(&mut [0; 32])),
                    Argument::Millis(wish.ttl),
                    Argument::Text(wish.key.app.as_deref().unwrap_or_default()),
                    Argument::Text(wish.key.name.as_deref().unwrap_or_default()),
                    Argument::Text(&identity.instance),
                    Argument::Text(&identity.host),
                    Argument::Number(u64::from(identity.pid)),
                    Argument::Millis(FENCE_LIFE),
                ],
                About {
                    key: Some(&wish.key.lock),
                    owner: Some(wish.owner),
                    token: None,
                },
                within,
            )
            .await?;
        let acquired = reply::acquired(&wish.key, &answer)?;
        if let Acquired::Granted { token, .. } = acquired {
            self.advise(&wish, token);
        }
        Ok(acquired)
    }

    async fn release_one(&self, end: Release, within: Duration) -> Outcome<bool> {
        let answer = self
            .run(
                &RELEASE,
                &[&end.key.lock, &end.key.fence()],
                &[
                    Argument::Text(end.owner.simple().encode_lower(&mut [0; 32])),
                    Argument::Millis(end.keep.unwrap_or(Duration::ZERO)),
                    Argument::Millis(FENCE_LIFE),
                ],
                About {
                    key: Some(&end.key.lock),
                    owner: Some(end.owner),
                    token: end.token,
                },
                within,
            )
            .await?;
        Ok(reply::flags(&answer, 1)?.first() == Some(&true))
    }

    async fn renew_some(&self, beats: &[Renew], within: Duration) -> Vec<Outcome<bool>> {
        let fences: Vec<String> = beats.iter().map(|beat| beat.key.fence()).collect();
        let owners: Vec<String> = beats
            .iter()
            .map(|beat| beat.owner.simple().to_string())
            .collect();
        let mut keys: Vec<&str> = Vec::with_capacity(beats.len() * 2);
        let mut arguments = Vec::with_capacity(beats.len() * 2 + 1);
        arguments.push(Argument::Millis(FENCE_LIFE));
        for ((beat, fence), owner) in beats.iter().zip(&fences).zip(&owners) {
            keys.push(&beat.key.lock);
            keys.push(fence);
            arguments.push(Argument::Text(owner));
            arguments.push(Argument::Millis(beat.ttl));
        }
        let about = beats.first().map_or_else(About::default, |beat| About {
            key: Some(&beat.key.lock),
            owner: Some(beat.owner),
            token: Some(beat.token),
        });
        let answer = self.run(&RENEW, &keys, &arguments, about, within).await;
        match answer.and_then(|answer| reply::flags(&answer, beats.len())) {
            Ok(flags) => flags.into_iter().map(Ok).collect(),
            // One key that is refused (a right withdrawn) refuses the whole call: the
            // others must not lose their leases for it.
            Err(error) if !error.is_passing() && beats.len() > 1 => {
                let one_by_one = beats
                    .chunks(1)
                    .map(|beat| Box::pin(self.renew_some(beat, within)));
                join_all(one_by_one).await.into_iter().flatten().collect()
            }
            Err(error) => beats.iter().map(|_| Err(error.clone())).collect(),
        }
    }
}

#[derive(Clone, Copy)]
enum Argument<'a> {
    Text(&'a str),
    Number(u64),
    Millis(Duration),
}

fn command(how: &str, script: &str, keys: &[&str], arguments: &[Argument<'_>]) -> Cmd {
    let mut command = redis::cmd(how);
    command.arg(script).arg(keys.len());
    for key in keys {
        command.arg(*key);
    }
    for argument in arguments {
        match argument {
            Argument::Text(text) => command.arg(*text),
            Argument::Number(number) => command.arg(*number),
            Argument::Millis(length) => {
                command.arg(u64::try_from(length.as_millis()).unwrap_or(u64::MAX))
            }
        };
    }
    command
}

impl Store for RedisStore {
    fn open(self: Arc<Self>, within: Duration) -> Answer<Outcome<()>> {
        Box::pin(async move {
            self.link.open(within).await?;
            // Logging in does not show everything: without a password it succeeds.
            let ping = redis::cmd("PING");
            match self.link.send(&ping, About::default(), within).await {
                Ok(_) => Ok(()),
                // The right to PING is not needed for anything else.
                Err(failed) if is_about_ping(&failed.error) => Ok(()),
                Err(failed) => Err(failed.error),
            }
        })
    }

    fn acquire(
        self: Arc<Self>,
        mut batch: Vec<Acquire>,
        within: Duration,
    ) -> Answer<Vec<Outcome<Acquired>>> {
        Box::pin(async move {
            if batch.len() == 1
                && let Some(wish) = batch.pop()
            {
                return vec![self.acquire_one(wish, within).await];
            }
            join_all(batch.into_iter().map(|wish| self.acquire_one(wish, within))).await
        })
    }

    fn renew(self: Arc<Self>, batch: Vec<Renew>, within: Duration) -> Answer<Vec<Outcome<bool>>> {
        Box::pin(async move {
            let calls = batch
                .chunks(RENEWALS_A_CALL)
                .map(|beats| self.renew_some(beats, within));
            join_all(calls).await.into_iter().flatten().collect()
        })
    }

    fn release(
        self: Arc<Self>,
        mut batch: Vec<Release>,
        within: Duration,
    ) -> Answer<Vec<Outcome<bool>>> {
        Box::pin(async move {
            if batch.len() == 1
                && let Some(end) = batch.pop()
            {
                return vec![self.release_one(end, within).await];
            }
            join_all(batch.into_iter().map(|end| self.release_one(end, within))).await
        })
    }

    fn inspect(self: Arc<Self>, key: Key, within: Duration) -> Answer<Outcome<Inspection>> {
        Box::pin(async move {
            let answer = self
                .run(
                    &INSPECT,
                    &[&key.lock, &key.fence()],
                    &[],
                    About::of(&key),
                    within,
                )
                .await?;
            reply::inspection(&key, &answer)
        })
    }

    fn force_release(
        self: Arc<Self>,
        key: Key,
        stale: Option<Duration>,
        within: Duration,
    ) -> Answer<Outcome<bool>> {
        Box::pin(async move {
            let stale = stale.map_or(Argument::Text("-1"), Argument::Millis);
            let answer = self
                .run(
                    &FORCE_RELEASE,
                    &[&key.lock, &key.fence()],
                    &[stale, Argument::Millis(FENCE_LIFE)],
                    About::of(&key),
                    within,
                )
                .await?;
            reply::forced(&answer)
        })
    }

    fn describe(&self) -> Arc<str> {
        Arc::clone(&self.shown)
    }
}

fn is_unknown_script(error: &StoreError) -> bool {
    error
        .source
        .as_ref()
        .and_then(|source| source.downcast_ref::<redis::RedisError>())
        .is_some_and(|error| error.kind() == ErrorKind::Server(ServerErrorKind::NoScript))
}

fn is_about_ping(error: &StoreError) -> bool {
    error.kind == super::StoreErrorKind::Denied && error.what.to_lowercase().contains("'ping'")
}
