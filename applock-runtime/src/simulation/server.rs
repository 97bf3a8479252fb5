//! A Redis server of one file: it speaks the protocol, keeps hashes that expire, and runs
//! the very scripts of `store/redis/scripts` in a Lua of the same version.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::rc::Rc;
use std::time::Duration;

use mlua::{Function, Lua, Table, Value, Variadic};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use turmoil::net::{TcpListener, TcpStream};

use super::ledger::{Owner, What};
use super::world::{PORT, World, elapsed};

/// What the server's clock showed when the run began.
const EPOCH: Duration = Duration::from_secs(1_800_000_000);

/// What it keeps, in memory or (if it does not forget) on its disk.
#[derive(Default)]
pub(super) struct Data {
    keys: BTreeMap<String, Hash>,
}

#[derive(Default)]
struct Hash {
    fields: BTreeMap<String, String>,
    /// By the run's time; `None`: for ever.
    until: Option<Duration>,
}

impl Data {
    pub(super) fn forget(&mut self) {
        self.keys.clear();
    }

    fn expire(&mut self, now: Duration) {
        self.keys
            .retain(|_, hash| hash.until.is_none_or(|until| until >= now));
    }

    /// The locks: every key that is no fence.
    pub(super) fn locks(&mut self, now: Duration) -> Vec<String> {
        self.expire(now);
        let locks = self.keys.keys().filter(|key| !is_fence(key));
        locks.cloned().collect()
    }

    fn holder(&self, key: &str) -> Option<(Owner, u64, Duration)> {
        let hash = self.keys.get(key)?;
        // What at_least keeps, with a suffix, is nobody's.
        let owner = Owner::from_str_radix(hash.fields.get("owner")?, 16).ok()?;
        let token = hash.fields.get("token")?.parse().ok()?;
        Some((owner, token, hash.until.unwrap_or(Duration::MAX)))
    }

    /// One command of a script's.
    fn command(&mut self, lua: &Lua, words: &[&str]) -> mlua::Result<Value> {
        let now = elapsed();
        self.expire(now);
        Ok(match words {
            ["TIME"] => {
                let now = EPOCH + now;
                let parts = [now.as_secs().to_string(), now.subsec_micros().to_string()];
                Value::Table(lua.create_sequence_from(parts)?)
            }
            ["TYPE", key] => {
                let kind = if self.keys.contains_key(*key) {
                    "hash"
                } else {
                    "none"
                };
                Value::Table(lua.create_table_from([("ok", kind)])?)
            }
            ["PTTL", key] => Value::Number(match self.keys.get(*key) {
                None => -2.0,
                Some(Hash { until: None, .. }) => -1.0,
                Some(Hash {
                    until: Some(until), ..
                }) => (*until - now).as_millis() as f64,
            }),
            ["PEXPIRE", key, millis] => {
                let millis: f64 = millis.parse().map_err(mlua::Error::external)?;
                let known = self.keys.get_mut(*key);
                let answer = f64::from(u8::from(known.is_some()));
                match known {
                    Some(_) if millis <= 0.0 => drop(self.keys.remove(*key)),
                    Some(hash) => hash.until = Some(now + Duration::from_millis(millis as u64)),
                    None => (),
                }
                Value::Number(answer)
            }
            ["DEL", key] => Value::Number(f64::from(u8::from(self.keys.remove(*key).is_some()))),
            ["HGET", key, field] => self.field(lua, key, field)?,
            ["HMGET", key, fields @ ..] => {
                let values: mlua::Result<Vec<Value>> = fields
                    .iter()
                    .map(|field| self.field(lua, key, field))
                    .collect();
                Value::Table(lua.create_sequence_from(values?)?)
            }
            ["HGETALL", key] => {
                let fields = self
                    .keys
                    .get(*key)
                    .into_iter()
                    .flat_map(|hash| &hash.fields);
                let flat = fields.flat_map(|(name, value)| [name.as_str(), value.as_str()]);
                Value::Table(lua.create_sequence_from(flat)?)
            }
            ["HSET", key, pairs @ ..] => {
                let hash = self.keys.entry((*key).to_owned()).or_default();
                for pair in pairs.chunks_exact(2) {
                    hash.fields.insert(pair[0].to_owned(), pair[1].to_owned());
                }
                Value::Number(pairs.len() as f64 / 2.0)
            }
            other => return Err(mlua::Error::runtime(format!("no such command: {other:?}"))),
        })
    }

    fn field(&self, lua: &Lua, key: &str, field: &str) -> mlua::Result<Value> {
        let value = self.keys.get(key).and_then(|hash| hash.fields.get(field));
        match value {
            Some(value) => Ok(Value::String(lua.create_string(value)?)),
            // A nil reply is `false` inside a script.
            None => Ok(Value::Boolean(false)),
        }
    }
}

fn is_fence(key: &str) -> bool {
    key.ends_with("}:fence")
}

/// One life of the server: a restart makes a new one, which knows no script.
struct Server {
    world: Rc<World>,
    lua: Lua,
    scripts: RefCell<BTreeMap<String, Function>>,
}

/// Serves until it is crashed.
pub(super) async fn serve(world: Rc<World>) -> turmoil::Result {
    let server = Rc::new(Server::new(world)?);
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORT)).await?;
    loop {
        let (stream, peer) = listener.accept().await?;
        let host = server.world.host_at(peer.ip());
        tokio::task::spawn_local(Rc::clone(&server).talk(stream, host));
    }
}

impl Server {
    fn new(world: Rc<World>) -> mlua::Result<Self> {
        let lua = Lua::new();
        let data = Rc::clone(&world.data);
        let call = lua.create_function(move |lua, words: Variadic<String>| {
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            data.borrow_mut().command(lua, &words)
        })?;
        let redis = lua.create_table()?;
        // No command that our scripts use can fail here, so both are the same.
        redis.set("call", &call)?;
        redis.set("pcall", call)?;
        redis.set(
            "error_reply",
            lua.create_function(|lua, text: String| lua.create_table_from([("err", text)]))?,
        )?;
        lua.globals().set("redis", redis)?;
        Ok(Self {
            world,
            lua,
            scripts: RefCell::default(),
        })
    }

    /// One connection, until it is closed or reset.
    async fn talk(self: Rc<Self>, mut stream: TcpStream, host: usize) {
        let reset = Rc::clone(&self.world.resets[host]);
        let mut received = Vec::new();
        loop {
            let read = tokio::select! {
                biased;
                () = reset.notified() => return,
                read = stream.read_buf(&mut received) => read,
            };
            if !matches!(read, Ok(1..)) {
                return;
            }
            let mut answers = Vec::new();
            while let Some((words, length)) = request(&received) {
                received.drain(..length);
                self.answer(&words, &mut answers);
            }
            let lost = !answers.is_empty() && self.world.lose_answer[host].take();
            if lost || stream.write_all(&answers).await.is_err() {
                return;
            }
        }
    }

    fn answer(&self, words: &[String], out: &mut Vec<u8>) {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        match words.as_slice() {
            ["PING"] => out.extend(b"+PONG\r\n"),
            ["HELLO", "3", ..] => out.extend(b"%2\r\n+server\r\n+redis\r\n+proto\r\n:3\r\n"),
            ["CLIENT" | "SELECT", ..] => out.extend(b"+OK\r\n"),
            ["INFO", ..] => bulk("maxmemory_policy:noeviction\r\n", out),
            ["EVAL", text, count, rest @ ..] => {
                let hash = redis::Script::new(text).get_hash().to_owned();
                let script = self.lua.load(*text).into_function().unwrap();
                self.scripts.borrow_mut().insert(hash, script.clone());
                self.run(&script, count, rest, out);
            }
            ["EVALSHA", hash, count, rest @ ..] => {
                let known = self.scripts.borrow().get(*hash).cloned();
                match known {
                    Some(script) => self.run(&script, count, rest, out),
                    None => out.extend(b"-NOSCRIPT No matching script. Please use EVAL.\r\n"),
                }
            }
            other => out.extend(format!("-ERR unknown command {other:?}\r\n").as_bytes()),
        }
    }

    /// Runs a script, and notes what became of its locks.
    fn run(&self, script: &Function, count: &str, rest: &[&str], out: &mut Vec<u8>) {
        let (keys, arguments) = rest.split_at(count.parse().unwrap());
        let locks: Vec<&str> = keys.iter().copied().filter(|key| !is_fence(key)).collect();
        let holders = || {
            let mut data = self.world.data.borrow_mut();
            data.expire(elapsed());
            locks.iter().map(|key| data.holder(key)).collect::<Vec<_>>()
        };
        let before = holders();
        let globals = self.lua.globals();
        let strings = |words: &[&str]| self.lua.create_sequence_from(words.iter().copied());
        globals.set("KEYS", strings(keys).unwrap()).unwrap();
        globals.set("ARGV", strings(arguments).unwrap()).unwrap();
        let answer = script.call::<Value>(()).unwrap();
        reply(&answer, out);
        for ((key, before), after) in locks.iter().zip(before).zip(holders()) {
            self.note(self.world.key_number(key), before, after);
        }
    }

    fn note(
        &self,
        key: usize,
        before: Option<(Owner, u64, Duration)>,
        after: Option<(Owner, u64, Duration)>,
    ) {
        let owner = |holder: Option<(Owner, u64, Duration)>| holder.map(|(owner, ..)| owner);
        if before == after {
            return;
        }
        if let Some((known, ..)) = before.filter(|_| owner(before) != owner(after)) {
            self.world.note(What::Took(key, known));
        }
        if let Some((new, token, until)) = after {
            if before.is_none_or(|(known, last, _)| (known, last) != (new, token)) {
                self.world.note(What::Gave(key, new, token));
            }
            self.world.note(What::Lasts(key, new, until));
        }
    }
}

/// The first whole request in `received`, and its length in bytes.
fn request(received: &[u8]) -> Option<(Vec<String>, usize)> {
    let mut at = 0;
    let number = |kind: u8, at: &mut usize| -> Option<usize> {
        let end = received[*at..].windows(2).position(|two| two == b"\r\n")? + *at;
        assert_eq!(received[*at], kind);
        let text = std::str::from_utf8(&received[*at + 1..end]).unwrap();
        *at = end + 2;
        Some(text.parse().unwrap())
    };
    let count = number(b'*', &mut at)?;
    let mut words = Vec::with_capacity(count);
    for _ in 0..count {
        let length = number(b'$', &mut at)?;
        let word = received.get(at..at + length)?;
        received.get(at + length..at + length + 2)?;
        words.push(String::from_utf8(word.to_vec()).unwrap());
        at += length + 2;
    }
    Some((words, at))
}

fn bulk(text: &str, out: &mut Vec<u8>) {
    out.extend(format!("${}\r\n{text}\r\n", text.len()).as_bytes());
}

/// What a script returned, as Redis sends it.
fn reply(value: &Value, out: &mut Vec<u8>) {
    match value {
        Value::Integer(number) => out.extend(format!(":{number}\r\n").as_bytes()),
        Value::Number(number) => out.extend(format!(":{}\r\n", *number as i64).as_bytes()),
        Value::Boolean(true) => out.extend(b":1\r\n"),
        Value::Nil | Value::Boolean(false) => out.extend(b"$-1\r\n"),
        Value::String(text) => bulk(&text.to_string_lossy(), out),
        Value::Table(table) => reply_table(table, out),
        other => panic!("no script of ours answers {other:?}"),
    }
}

fn reply_table(table: &Table, out: &mut Vec<u8>) {
    if let Ok(error) = table.get::<String>("err") {
        return out.extend(format!("-{error}\r\n").as_bytes());
    }
    if let Ok(status) = table.get::<String>("ok") {
        return out.extend(format!("+{status}\r\n").as_bytes());
    }
    let items: Vec<Value> = table.sequence_values().map(Result::unwrap).collect();
    out.extend(format!("*{}\r\n", items.len()).as_bytes());
    for item in &items {
        reply(item, out);
    }
}
