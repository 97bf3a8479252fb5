//! What the server keeps, and the commands that read and change it.

use std::collections::BTreeMap;
use std::time::Duration;

use super::sorted::Sorted;
use super::wire::{CommandError, Reply};
use crate::simulation::history::OwnerNumber;

/// What the server's clock showed when the run began.
const EPOCH: Duration = Duration::from_secs(1_800_000_000);

/// The holder of a lock: the owner, the token, and until when.
pub(in crate::simulation) type Holder = (OwnerNumber, u64, Duration);

type Hash = BTreeMap<String, String>;

/// What it keeps, in memory or (if it does not forget) on its disk.
#[derive(Clone, Default)]
pub(in crate::simulation) struct Data {
    keys: BTreeMap<String, Stored>,
}

#[derive(Clone)]
struct Stored {
    content: Content,
    /// By the run's time; `None`: for ever.
    until: Option<Duration>,
}

#[derive(Clone)]
enum Content {
    Text(String),
    Hash(Hash),
    Sorted(Sorted),
}

impl Content {
    fn is_empty(&self) -> bool {
        match self {
            Self::Text(_) => false,
            Self::Hash(hash) => hash.is_empty(),
            Self::Sorted(sorted) => sorted.len() == 0,
        }
    }
}

/// A type of content, to find at a key.
trait ContentType: Default {
    fn of(content: &mut Content) -> Option<&mut Self>;
    fn wrap(self) -> Content;
}

impl ContentType for Hash {
    fn of(content: &mut Content) -> Option<&mut Self> {
        match content {
            Content::Hash(hash) => Some(hash),
            Content::Text(_) | Content::Sorted(_) => None,
        }
    }

    fn wrap(self) -> Content {
        Content::Hash(self)
    }
}

impl ContentType for Sorted {
    fn of(content: &mut Content) -> Option<&mut Self> {
        match content {
            Content::Sorted(sorted) => Some(sorted),
            Content::Text(_) | Content::Hash(_) => None,
        }
    }

    fn wrap(self) -> Content {
        Content::Sorted(self)
    }
}

const WRONG_TYPE: CommandError =
    CommandError("WRONGTYPE Operation against a key holding the wrong kind of value");
const NO_INTEGER: CommandError = CommandError("ERR value is not an integer or out of range");
const NO_FLOAT: CommandError = CommandError("ERR value is not a valid float");
const WRONG_COUNT: CommandError = CommandError("ERR wrong number of arguments");
const SYNTAX: CommandError = CommandError("ERR syntax error");

type CommandResult = Result<Reply, CommandError>;

impl Data {
    pub(in crate::simulation) fn forget(&mut self) {
        self.keys.clear();
    }

    /// As an eviction does.
    pub(in crate::simulation) fn lose_queue(&mut self, lock: &str) {
        self.keys
            .retain(|key, _| !key.starts_with(&format!("{{{lock}}}:queue")));
    }

    pub(in crate::simulation) fn expire(&mut self, now: Duration) {
        self.keys
            .retain(|_, entry| entry.until.is_none_or(|until| until >= now));
    }

    /// The locks: every key that is nothing beside a lock.
    pub(in crate::simulation) fn locks(&mut self, now: Duration) -> Vec<String> {
        self.expire(now);
        let locks = self.keys.keys().filter(|key| is_lock(key));
        locks.cloned().collect()
    }

    /// The keys that are no fence.
    pub(in crate::simulation) fn all_but_fences(&self) -> Vec<String> {
        let keys = self.keys.keys().filter(|key| !key.ends_with("}:fence"));
        keys.cloned().collect()
    }

    /// The waiters of a lock, in order: the members of its queue.
    pub(in crate::simulation) fn queue(&mut self, lock: &str) -> Vec<OwnerNumber> {
        let Ok(Some(queue)) = self.find::<Sorted>(&format!("{{{lock}}}:queue")) else {
            return Vec::new();
        };
        let names = queue.in_order().map(|(name, _)| name);
        names
            .map(|name| OwnerNumber::from_str_radix(name, 16).unwrap())
            .collect()
    }

    /// Whether there is such a key.
    pub(super) fn has(&self, key: &str) -> bool {
        self.keys.contains_key(key)
    }

    /// Moves a key to another server.
    pub(in crate::simulation) fn give(&mut self, key: &str, to: &mut Self) {
        if let Some(stored) = self.keys.remove(key) {
            to.keys.insert(key.to_owned(), stored);
        }
    }

    pub(in crate::simulation) fn holder(&mut self, key: &str) -> Option<Holder> {
        let (lock, until) = self.lock(key)?;
        let is_kept = lock.get("state")? == "kept";
        let owner = OwnerNumber::from_str_radix(lock.get("owner")?.as_str()?, 16).ok()?;
        (!is_kept).then_some((
            owner,
            lock.get("token")?.as_u64()?,
            until.unwrap_or(Duration::MAX),
        ))
    }

    /// Until when a lock is kept that its holder gave back.
    pub(in crate::simulation) fn kept(&mut self, key: &str) -> Option<Duration> {
        let (lock, until) = self.lock(key)?;
        (lock.get("state")? == "kept").then_some(until).flatten()
    }

    /// What a lock's text says, and its expiry.
    fn lock(&self, key: &str) -> Option<(serde_json::Value, Option<Duration>)> {
        let entry = self.keys.get(key)?;
        let Content::Text(text) = &entry.content else {
            return None;
        };
        Some((serde_json::from_str(text).ok()?, entry.until))
    }

    /// One command. `None`: there is none of this name, for these words.
    pub(super) fn command(&mut self, words: &[&str], now: Duration) -> Option<Reply> {
        self.expire(now);
        let outcome = match words {
            ["TIME"] => {
                let now = EPOCH + now;
                let parts = [now.as_secs().to_string(), now.subsec_micros().to_string()];
                Ok(Reply::Array(parts.map(Reply::Bulk).into()))
            }
            ["TYPE", key] => Ok(Reply::Status(match self.keys.get(*key) {
                None => "none",
                Some(entry) => match entry.content {
                    Content::Text(_) => "string",
                    Content::Hash(_) => "hash",
                    Content::Sorted(_) => "zset",
                },
            })),
            ["EXISTS", keys @ ..] => Ok(count(
                keys.iter().filter(|key| self.keys.contains_key(**key)),
            )),
            ["DEL", keys @ ..] => Ok(count(
                keys.iter().filter(|key| self.keys.remove(**key).is_some()),
            )),
            ["PTTL", key] => Ok(Reply::Int(match self.keys.get(*key) {
                None => -2,
                Some(Stored { until: None, .. }) => -1,
                Some(Stored {
                    until: Some(until), ..
                }) => i64::try_from((*until - now).as_millis()).unwrap(),
            })),
            ["PEXPIRE", key, millis] => self.end_in(key, millis, now),
            ["GET", key] => match self.keys.get(*key).map(|entry| &entry.content) {
                None => Ok(Reply::Nil),
                Some(Content::Text(text)) => Ok(Reply::Bulk(text.clone())),
                Some(_) => Err(WRONG_TYPE),
            },
            // What is no text is as if it were not there.
            ["MGET", keys @ ..] if !keys.is_empty() => {
                let get = |key: &&str| match self.keys.get(*key).map(|entry| &entry.content) {
                    Some(Content::Text(text)) => Reply::Bulk(text.clone()),
                    _ => Reply::Nil,
                };
                Ok(Reply::Array(keys.iter().map(get).collect()))
            }
            ["GETRANGE", key, start, end] => {
                match self.keys.get(*key).map(|entry| &entry.content) {
                    None => Ok(Reply::Bulk(String::new())),
                    Some(Content::Text(text)) => part(text, start, end),
                    Some(_) => Err(WRONG_TYPE),
                }
            }
            // The expiry stays.
            ["SETRANGE", key, offset, text] => self.write_over(key, offset, text),
            // Whatever was there before.
            ["SET", key, text, "PX", millis] => match millis.parse() {
                Ok(millis @ 1..) => {
                    let entry = Stored {
                        content: Content::Text((*text).to_owned()),
                        until: Some(now + Duration::from_millis(millis)),
                    };
                    self.keys.insert((*key).to_owned(), entry);
                    Ok(Reply::Status("OK"))
                }
                _ => Err(NO_INTEGER),
            },
            ["HGET" | "HLEN" | "HSET" | "HINCRBY" | "HDEL", key, ..] => {
                return Some(self.change::<Hash>(key, |hash| hash_command(hash, words)));
            }
            [
                "ZADD" | "ZPOPMIN" | "ZRANGE" | "ZRANK" | "ZREM" | "ZCARD" | "ZSCORE",
                key,
                ..,
            ] => return Some(self.change::<Sorted>(key, |sorted| sorted_command(sorted, words))),
            _ => return None,
        };
        Some(outcome.unwrap_or_else(Reply::from))
    }

    fn end_in(&mut self, key: &str, millis: &str, now: Duration) -> CommandResult {
        let millis: i64 = millis.parse().map_err(|_| NO_INTEGER)?;
        let Some(entry) = self.keys.get_mut(key) else {
            return Ok(Reply::Int(0));
        };
        match u64::try_from(millis) {
            Ok(millis @ 1..) => entry.until = Some(now + Duration::from_millis(millis)),
            _ => drop(self.keys.remove(key)),
        }
        Ok(Reply::Int(1))
    }

    /// A text from `offset` on is replaced; one that is too short is filled up with zeros.
    fn write_over(&mut self, key: &str, offset: &str, text: &str) -> CommandResult {
        let offset: usize = offset.parse().map_err(|_| NO_INTEGER)?;
        let empty = Stored {
            content: Content::Text(String::new()),
            until: None,
        };
        let entry = self.keys.entry(key.to_owned()).or_insert(empty);
        let Content::Text(known) = &mut entry.content else {
            return Err(WRONG_TYPE);
        };
        while known.len() < offset + text.len() {
            known.push('\0');
        }
        known.replace_range(offset..offset + text.len(), text);
        Ok(Reply::Int(i64::try_from(known.len()).unwrap()))
    }

    fn find<K: ContentType>(&mut self, key: &str) -> Result<Option<&mut K>, CommandError> {
        match self.keys.get_mut(key) {
            None => Ok(None),
            Some(entry) => K::of(&mut entry.content).map(Some).ok_or(WRONG_TYPE),
        }
    }

    /// Reads or changes the value of a key: a key that is not there is empty, and
    /// what is empty then is not there.
    fn change<K: ContentType>(
        &mut self,
        key: &str,
        change: impl FnOnce(&mut K) -> CommandResult,
    ) -> Reply {
        let outcome = match self.find::<K>(key) {
            Err(error) => Err(error),
            Ok(Some(known)) => change(known),
            Ok(None) => {
                let mut new = K::default();
                let outcome = change(&mut new);
                let entry = Stored {
                    content: new.wrap(),
                    until: None,
                };
                self.keys.insert(key.to_owned(), entry);
                outcome
            }
        };
        if self
            .keys
            .get(key)
            .is_some_and(|entry| entry.content.is_empty())
        {
            self.keys.remove(key);
        }
        outcome.unwrap_or_else(Reply::from)
    }
}

/// A key with its lock's name in braces belongs to that lock.
pub(super) fn is_lock(key: &str) -> bool {
    ["}:fence", "}:queue", "}:waiters"]
        .iter()
        .all(|end| !key.ends_with(end))
}

/// The bytes of a text from `start` to `end`, both included.
fn part(text: &str, start: &str, end: &str) -> CommandResult {
    let place = |word: &str| word.parse::<usize>().map_err(|_| NO_INTEGER);
    let (start, end) = (place(start)?, place(end)?.saturating_add(1));
    let part = text.get(start..end.min(text.len()));
    Ok(Reply::Bulk(part.unwrap_or_default().to_owned()))
}

fn count(items: impl Iterator) -> Reply {
    Reply::Int(i64::try_from(items.count()).unwrap())
}

fn bulk(text: Option<&String>) -> Reply {
    text.map_or(Reply::Nil, |text| Reply::Bulk(text.clone()))
}

fn hash_command(hash: &mut Hash, words: &[&str]) -> CommandResult {
    Ok(match words {
        ["HGET", _, field] => bulk(hash.get(*field)),
        ["HLEN", _] => count(hash.iter()),
        ["HINCRBY", _, field, by] => {
            let known = hash.get(*field).map_or("0", String::as_str);
            let sum = known.parse::<i64>().map_err(|_| NO_INTEGER)?
                + by.parse::<i64>().map_err(|_| NO_INTEGER)?;
            hash.insert((*field).to_owned(), sum.to_string());
            Reply::Int(sum)
        }
        ["HSET", _, pairs @ ..] if !pairs.is_empty() && pairs.len().is_multiple_of(2) => {
            let mut put = |pair: &[&str]| hash.insert(pair[0].to_owned(), pair[1].to_owned());
            count(pairs.chunks(2).filter(|pair| put(pair).is_none()))
        }
        ["HDEL", _, fields @ ..] if !fields.is_empty() => {
            count(fields.iter().filter(|field| hash.remove(**field).is_some()))
        }
        _ => return Err(WRONG_COUNT),
    })
}

fn sorted_command(sorted: &mut Sorted, words: &[&str]) -> CommandResult {
    Ok(match words {
        ["ZADD", _, "NX", pairs @ ..] => add(sorted, pairs, true)?,
        ["ZADD", _, pairs @ ..] => add(sorted, pairs, false)?,
        ["ZCARD", _] => Reply::Int(i64::try_from(sorted.len()).unwrap()),
        ["ZSCORE", _, name] => sorted
            .score(name)
            .map_or(Reply::Nil, |score| Reply::Bulk(printed(score))),
        ["ZRANK", _, name] => sorted
            .rank(name)
            .map_or(Reply::Nil, |rank| Reply::Int(i64::try_from(rank).unwrap())),
        ["ZREM", _, names @ ..] if !names.is_empty() => {
            count(names.iter().filter(|name| sorted.remove(name)))
        }
        ["ZPOPMIN", _] => {
            let first = range(sorted, "0", "0", true)?;
            if let Reply::Array(items) = &first
                && let Some(Reply::Bulk(name)) = items.first()
            {
                sorted.remove(name);
            }
            first
        }
        ["ZRANGE", _, start, stop] => range(sorted, start, stop, false)?,
        ["ZRANGE", _, start, stop, "WITHSCORES"] => range(sorted, start, stop, true)?,
        ["ZRANGE", _, _, _, ..] => return Err(SYNTAX),
        _ => return Err(WRONG_COUNT),
    })
}

fn add(sorted: &mut Sorted, pairs: &[&str], only_new: bool) -> CommandResult {
    if pairs.is_empty() || !pairs.len().is_multiple_of(2) {
        return Err(SYNTAX);
    }
    let read = |pair: &[&str]| match pair[0].parse::<f64>() {
        Ok(score) if !score.is_nan() => Ok((score, pair[1].to_owned())),
        _ => Err(NO_FLOAT),
    };
    // All or nothing: no pair is added beside one that can't be read.
    let pairs: Vec<_> = pairs.chunks(2).map(read).collect::<Result<_, _>>()?;
    let mut new = 0;
    for (score, name) in pairs {
        let known = sorted.score(&name).is_some();
        new += i64::from(!known);
        if !(known && only_new) {
            sorted.put(name, score);
        }
    }
    Ok(Reply::Int(new))
}

fn range(sorted: &Sorted, start: &str, stop: &str, with_scores: bool) -> CommandResult {
    // From the end, where negative.
    let place = |word: &str| -> Result<i64, CommandError> {
        let place: i64 = word.parse().map_err(|_| NO_INTEGER)?;
        let length = i64::try_from(sorted.len()).unwrap();
        Ok(if place < 0 { place + length } else { place })
    };
    let (start, stop) = (place(start)?.max(0), place(stop)?);
    let length = usize::try_from(stop - start + 1).unwrap_or(0);
    let chosen = sorted
        .in_order()
        .skip(usize::try_from(start).unwrap())
        .take(length);
    let mut items = Vec::new();
    for (name, score) in chosen {
        items.push(Reply::Bulk(name.to_owned()));
        if with_scores {
            items.push(Reply::Bulk(printed(score)));
        }
    }
    Ok(Reply::Array(items))
}

/// A double as Redis prints it: a whole number without a point.
fn printed(score: f64) -> String {
    if score.is_infinite() || score.abs() < 1e17 {
        // Rust prints infinity as Redis does.
        score.to_string()
    } else {
        let scientific = format!("{score:e}");
        // The sign that C prints.
        if scientific.contains("e-") {
            scientific
        } else {
            scientific.replace('e', "e+")
        }
    }
}
