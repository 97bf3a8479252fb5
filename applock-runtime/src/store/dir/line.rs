//! The line of those who wait for a lock: who stands in it, who is alive, and whose turn
//! it is. No I/O here.
//!
//! A lock is never handed over in a directory: it becomes free, and only the first in line
//! may take it then. Nobody can be told of that, so whoever waits asks again and again; of
//! a process (an engine) only the first for each lock does, and thereby keeps the places
//! of all its waiters. One that is silent is passed over, and one whose turn it is must
//! take the lock in time or is out.
//!
//! ```text
//! applock line 1
//! began 1789999900000                      when the machine started; as in a record
//! boot 0a1b…                               absent where the system has no boot id
//! turn 6f1c… 81000000000                   whose turn it is, and since when, if any's
//! engine 3d5e… 81000000000 4711            an engine, when it last asked, its pid
//! host db7
//! instance web-1
//! waiter 6f1c… 0 7                         in order: an owner id, which engine, its
//!                                          place among those of that engine
//! sum 9c0d…
//! ```
//!
//! Times are nanoseconds of the uptime. A line is a courtesy and not the lock: one that is
//! damaged, or was written before a restart, is begun anew, and all who wait come back to
//! it when they ask again.

use std::str::FromStr;
use std::time::Duration;

use uuid::Uuid;

use super::record::{Damage, MAX_RECORD};
use super::text::{Fields, escape, line};
use super::time::{Boot, LAST_WALL_MS, Now, nanos};
use crate::info::{LockInfo, Record};
use crate::key::Key;
use crate::store::{CLAIM, Identity, OwnerId};

const MAGIC: &str = "applock line ";
const VERSION: &str = "1";

/// An engine that has not asked for so long is passed over: it asks each second at least.
const SILENCE: Duration = Duration::from_secs(3);

/// Its waiters keep their places for so long, to find them when it comes back.
const PATIENCE: Duration = Duration::from_secs(60);

/// How often it is written down that an engine asks, while the lock is taken.
const REFRESH: Duration = Duration::from_millis(300);

/// The largest line that one more enters, in bytes: ten thousand waiters. The rest of what
/// is read is room for numbers that grow.
const MAX_LINE: u64 = MAX_RECORD / 2;

/// What stands between the digest of a line and every other use of SHA-1.
const SUM: Uuid = Uuid::from_u128(0x8e0d_51c7_0b2a_4d6f_93a4_1f5e_7c08_d2b6);

/// Those who wait for one lock.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Line {
    engines: Vec<Engine>,
    /// First come, first.
    waiters: Vec<Waiter>,
    turn: Option<Turn>,
    /// It is not what stands in its file.
    pub(super) is_changed: bool,
}

/// A process, or one of several engines in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Engine {
    pub(super) id: Uuid,
    pub(super) pid: u32,
    pub(super) host: String,
    pub(super) instance: String,
    seen_ns: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Waiter {
    owner: OwnerId,
    engine: Uuid,
    /// Its engine has asked for so many before.
    number: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Turn {
    owner: OwnerId,
    since_ns: u64,
}

impl Turn {
    fn of(owner: OwnerId, now: &Now) -> Self {
        Self {
            owner,
            since_ns: now.up_ns,
        }
    }

    fn is_over(&self, now: &Now) -> bool {
        now.up_ns.saturating_sub(self.since_ns) >= nanos(CLAIM)
    }
}

impl Engine {
    pub(super) fn new(id: Uuid, identity: &Identity, now: &Now) -> Self {
        Self {
            id,
            pid: identity.pid,
            host: identity.host.clone(),
            instance: identity.instance.clone(),
            seen_ns: now.up_ns,
        }
    }

    fn silence(&self, now: &Now) -> Duration {
        Duration::from_nanos(now.up_ns.saturating_sub(self.seen_ns))
    }
}

impl Line {
    /// One that replaces a file that is none.
    pub(super) fn anew() -> Self {
        Self {
            is_changed: true,
            ..Self::default()
        }
    }

    pub(super) fn len(&self) -> u64 {
        self.waiters.len() as u64
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiters.is_empty()
    }

    /// How many stand before it, if it stands in line.
    pub(super) fn ahead(&self, owner: &OwnerId) -> Option<u64> {
        let at = self.waiters.iter().position(|one| one.owner == *owner)?;
        Some(at as u64)
    }

    /// Whether it stands in line, and need not write down that it still asks.
    pub(super) fn knows(&self, owner: &OwnerId, now: &Now) -> bool {
        let waiter = self.waiters.iter().find(|one| one.owner == *owner);
        waiter
            .and_then(|waiter| self.engine(waiter.engine))
            .is_some_and(|engine| engine.silence(now) < REFRESH)
    }

    /// Puts one at the end, or leaves it where it stands; its engine is alive. Answers
    /// whether it is new: not where the line is full, and it has to do without a place.
    pub(super) fn enter(&mut self, owner: OwnerId, number: u64, engine: Engine) -> bool {
        self.is_changed = true;
        let id = engine.id;
        match self.engines.iter_mut().find(|known| known.id == id) {
            Some(known) => *known = engine,
            None => self.engines.push(engine),
        }
        if self.ahead(&owner).is_some() {
            return false;
        }
        self.waiters.push(Waiter {
            owner,
            engine: id,
            number,
        });
        self.sort(id);
        let is_full = self.render(&Boot::default()).len() as u64 > MAX_LINE;
        if is_full {
            self.leave(&owner);
        }
        !is_full
    }

    /// Sorts those of one engine, in the places that it has: of two who asked in turn, the
    /// second may have found the latch open first.
    fn sort(&mut self, engine: Uuid) {
        let is_theirs = |waiter: &Waiter| waiter.engine == engine;
        let of_them = |waiter: &&Waiter| is_theirs(waiter);
        let mut sorted: Vec<Waiter> = self.waiters.iter().filter(of_them).cloned().collect();
        sorted.sort_by_key(|waiter| waiter.number);
        let places = self.waiters.iter_mut().filter(|waiter| is_theirs(waiter));
        for (place, waiter) in places.zip(sorted) {
            *place = waiter;
        }
    }

    pub(super) fn leave(&mut self, owner: &OwnerId) {
        if self.ahead(owner).is_some() {
            self.keep_only(|waiter| waiter.owner != *owner);
        }
    }

    /// Who has to get a lock that is free before `asker` may take it.
    pub(super) fn before(&mut self, asker: &OwnerId, key: &Key, now: &Now) -> Option<LockInfo> {
        let before = loop {
            let first = self.first_alive(now).filter(|first| first.owner != *asker);
            let Some(first) = first.cloned() else {
                break None;
            };
            let turn = self.turn.as_ref().filter(|turn| turn.owner == first.owner);
            let turn = turn.filter(|turn| turn.since_ns <= now.up_ns).cloned();
            let is_over = turn.as_ref().is_some_and(|turn| turn.is_over(now));
            if !is_over {
                let new = Turn::of(first.owner, now);
                break Some((self.info(&first, key), turn.unwrap_or(new)));
            }
            // It does not take what is its own: it is gone, and could not say so.
            self.leave(&first.owner);
        };
        let (info, turn) = before.unzip();
        self.is_changed |= self.turn != turn;
        self.turn = turn;
        info
    }

    fn first_alive(&self, now: &Now) -> Option<&Waiter> {
        self.waiters.iter().find(|waiter| {
            let engine = self.engine(waiter.engine);
            engine.is_some_and(|engine| engine.silence(now) <= SILENCE)
        })
    }

    /// Whose turn it is, as far as it is known of one who waits.
    fn info(&self, waiter: &Waiter, key: &Key) -> LockInfo {
        let engine = self.engine(waiter.engine);
        let told = |text: fn(&Engine) -> &String| engine.map(text).cloned().unwrap_or_default();
        Record {
            key: key.lock.clone(),
            app: key.app().map(str::to_owned),
            name: key.name().map(str::to_owned),
            owner: waiter.owner.simple().to_string(),
            host: told(|engine| &engine.host),
            instance: told(|engine| &engine.instance),
            pid: engine.map(|engine| engine.pid),
            ..Record::default()
        }
        .into()
    }

    fn engine(&self, id: Uuid) -> Option<&Engine> {
        self.engines.iter().find(|engine| engine.id == id)
    }

    /// Lets the others out, and forgets engines of which nobody waits.
    fn keep_only(&mut self, stays: impl Fn(&Waiter) -> bool) {
        self.is_changed = true;
        self.waiters.retain(stays);
        let Self {
            engines, waiters, ..
        } = self;
        engines.retain(|engine| waiters.iter().any(|waiter| waiter.engine == engine.id));
    }

    pub(super) fn render(&self, boot: &Boot) -> String {
        let mut text = format!("{MAGIC}{VERSION}\n");
        line(&mut text, "began", &boot.began_ms);
        if let Some(id) = &boot.id {
            line(&mut text, "boot", id);
        }
        if let Some(turn) = &self.turn {
            let told = format_args!("{} {}", turn.owner, turn.since_ns);
            line(&mut text, "turn", &told);
        }
        for engine in &self.engines {
            let told = format_args!("{} {} {}", engine.id, engine.seen_ns, engine.pid);
            line(&mut text, "engine", &told);
            line(&mut text, "host", &escape(&engine.host));
            line(&mut text, "instance", &escape(&engine.instance));
        }
        for waiter in &self.waiters {
            let which = self.engines.iter().position(|one| one.id == waiter.engine);
            let which = which.unwrap_or_default();
            let told = format_args!("{} {which} {}", waiter.owner, waiter.number);
            line(&mut text, "waiter", &told);
        }
        let sum = Uuid::new_v5(&SUM, text.as_bytes());
        line(&mut text, "sum", &sum);
        text
    }

    /// What a file tells of those who may be there still. `Damage::Newer` is the only
    /// kind that is not begun anew.
    pub(super) fn parse(bytes: &[u8], now: &Now) -> Result<Self, Damage> {
        let (mut found, boot) = Self::read(bytes)?;
        let newest = found.engines.iter().map(|engine| engine.seen_ns).max();
        if !now.is_in(&boot, newest.unwrap_or_default()) {
            return Ok(Self::anew());
        }
        let is_gone = |engine: &Engine| engine.silence(now) > PATIENCE;
        let gone: Vec<Uuid> = found
            .engines
            .iter()
            .filter(|engine| is_gone(engine))
            .map(|engine| engine.id)
            .collect();
        if !gone.is_empty() {
            found.keep_only(|waiter| !gone.contains(&waiter.engine));
        }
        Ok(found)
    }

    fn read(bytes: &[u8]) -> Result<(Self, Boot), Damage> {
        let text = std::str::from_utf8(bytes).map_err(|_| Damage::Broken("encoding"))?;
        let first = text.lines().next().unwrap_or_default();
        match first.strip_prefix(MAGIC) {
            Some(VERSION) => {}
            Some(other) if other.parse::<u32>().is_ok() => return Err(Damage::Newer),
            _ => return Err(Damage::Foreign),
        }
        let mut fields = Fields::of(text);
        fields.skip();
        let boot = Boot {
            began_ms: fields.at_most("began", LAST_WALL_MS)?,
            id: fields.value_if_there("boot")?,
        };
        let mut found = Self::default();
        if let Some(turn) = fields.raw_if_there("turn") {
            let [owner, since_ns] = words(turn, "turn")?;
            found.turn = Some(Turn {
                owner: value(owner, "turn")?,
                since_ns: value(since_ns, "turn")?,
            });
        }
        while let Some(engine) = fields.raw_if_there("engine") {
            let [id, seen_ns, pid] = words(engine, "engine")?;
            found.engines.push(Engine {
                id: value(id, "engine")?,
                seen_ns: value(seen_ns, "engine")?,
                pid: value(pid, "engine")?,
                host: fields.text("host")?,
                instance: fields.text("instance")?,
            });
        }
        while let Some(waiter) = fields.raw_if_there("waiter") {
            let [owner, which, number] = words(waiter, "waiter")?;
            let engine = found.engines.get(value::<usize>(which, "waiter")?);
            found.waiters.push(Waiter {
                owner: value(owner, "waiter")?,
                engine: engine.ok_or(Damage::Broken("engine"))?.id,
                number: value(number, "waiter")?,
            });
        }
        // As with a record: only the very text that we would write passes.
        if found.render(&boot) == text {
            Ok((found, boot))
        } else {
            Err(Damage::Broken("digest"))
        }
    }
}

fn words<'a, const N: usize>(text: &'a str, field: &'static str) -> Result<[&'a str; N], Damage> {
    let words: Vec<&str> = text.split(' ').collect();
    words.try_into().map_err(|_| Damage::Broken(field))
}

fn value<T: FromStr>(word: &str, field: &'static str) -> Result<T, Damage> {
    word.parse().map_err(|_| Damage::Broken(field))
}
