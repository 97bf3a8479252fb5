//! A small Redis server: it speaks the protocol ([`wire`]), keeps hashes and sorted sets
//! that expire ([`data`]), runs the very scripts of `store/redis/scripts` in a Lua of the
//! same version ([`lua`]), and passes messages on to who subscribed.

mod data;
mod lua;
mod sorted;
#[cfg(test)]
mod tests;
mod wire;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::rc::Rc;
use std::time::Duration;

use mlua::Function;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use turmoil::net::{TcpListener, TcpStream};

use super::ledger::What;
use super::world::{PORT, World, elapsed};
pub(super) use data::Data;
use data::{Holder, is_lock};
use lua::Scripts;
use wire::{Reply, request};

/// One life of the server: a restart makes a new one, which knows no script and nobody
/// who subscribed.
struct Server {
    world: Rc<World>,
    scripts: Scripts,
    locks: Rc<Locks>,
    started: Duration,
    subscribers: Rc<Subscribers>,
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

/// A channel, and the number of a connection.
type Subscription = (String, u64);

/// Who hears what is published.
#[derive(Default)]
struct Subscribers {
    /// The connection's host, and the way to it.
    all: RefCell<BTreeMap<Subscription, (usize, UnboundedSender<Reply>)>>,
}

impl Subscribers {
    /// The hosts that are sent the message, one a connection.
    fn publish(&self, channel: &str, message: &str) -> Vec<usize> {
        let all = self.all.borrow();
        let on_channel = all.range((channel.to_owned(), 0)..=(channel.to_owned(), u64::MAX));
        let push = ["message", channel, message].map(Reply::bulk);
        on_channel
            .filter(|(_, (_, way))| way.send(Reply::Push(push.to_vec())).is_ok())
            .map(|(_, (host, _))| *host)
            .collect()
    }
}

/// One connection: it ends with its subscriptions.
struct Client {
    number: u64,
    host: usize,
    resp3: Cell<bool>,
    pushes: UnboundedSender<Reply>,
    subscribers: Rc<Subscribers>,
}

impl Client {
    fn new(server: &Server, host: usize) -> (Self, UnboundedReceiver<Reply>) {
        let (pushes, to_push) = unbounded_channel();
        let client = Self {
            number: server.world.next_connection(),
            host,
            resp3: Cell::new(false),
            pushes,
            subscribers: Rc::clone(&server.subscribers),
        };
        (client, to_push)
    }

    fn subscriptions(&self) -> usize {
        let all = self.subscribers.all.borrow();
        all.keys()
            .filter(|(_, number)| *number == self.number)
            .count()
    }

    fn subscribe(&self, channels: &[&str]) -> Vec<Reply> {
        let confirm = |channel: &&str| {
            self.subscribers.all.borrow_mut().insert(
                ((*channel).to_owned(), self.number),
                (self.host, self.pushes.clone()),
            );
            self.confirmed("subscribe", channel)
        };
        channels.iter().map(confirm).collect()
    }

    fn unsubscribe(&self, channels: &[&str]) -> Vec<Reply> {
        let confirm = |channel: &&str| {
            let place = ((*channel).to_owned(), self.number);
            self.subscribers.all.borrow_mut().remove(&place);
            self.confirmed("unsubscribe", channel)
        };
        channels.iter().map(confirm).collect()
    }

    fn confirmed(&self, what: &str, channel: &str) -> Reply {
        let count = Reply::Int(i64::try_from(self.subscriptions()).unwrap());
        Reply::Push(vec![Reply::bulk(what), Reply::bulk(channel), count])
    }

    /// Whether it may send nothing but (un)subscriptions and pings.
    fn only_listens(&self) -> bool {
        !self.resp3.get() && self.subscriptions() > 0
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let mut all = self.subscribers.all.borrow_mut();
        all.retain(|(_, number), _| *number != self.number);
    }
}

impl Server {
    fn new(world: Rc<World>) -> mlua::Result<Self> {
        let subscribers = Rc::<Subscribers>::default();
        let (known, heard) = (Rc::clone(&world), Rc::clone(&subscribers));
        let started = elapsed();
        let locks = Rc::<Locks>::default();
        let looked = Rc::clone(&locks);
        let command = move |words: &[&str]| {
            let answer = command(&known, &heard, started, words)
                .unwrap_or_else(|| panic!("no such command: {words:?}"));
            looked.look(&known, words);
            answer
        };
        Ok(Self {
            scripts: Scripts::new(command)?,
            locks,
            started,
            world,
            subscribers,
        })
    }

    /// One connection, until it is closed or reset.
    async fn talk(self: Rc<Self>, mut stream: TcpStream, host: usize) {
        let reset = Rc::clone(&self.world.resets[host]);
        let (client, mut pushes) = Client::new(&self, host);
        let mut received = Vec::new();
        loop {
            let mut answers = Vec::new();
            tokio::select! {
                biased;
                () = reset.notified() => return,
                Some(push) = pushes.recv() => push.write(client.resp3.get(), &mut answers),
                read = stream.read_buf(&mut received) => {
                    if !matches!(read, Ok(1..)) {
                        return;
                    }
                }
            }
            while let Some((words, length)) = request(&received) {
                received.drain(..length);
                let words: Vec<&str> = words.iter().map(String::as_str).collect();
                for reply in self.answers(&client, &words) {
                    reply.write(client.resp3.get(), &mut answers);
                }
            }
            let lost = !answers.is_empty() && self.world.lose_answer[host].take();
            if lost || stream.write_all(&answers).await.is_err() {
                return;
            }
        }
    }

    /// What one request is answered: several times, if it (un)subscribes several channels.
    fn answers(&self, client: &Client, words: &[&str]) -> Vec<Reply> {
        let one = match words {
            ["SUBSCRIBE", channels @ ..] => return client.subscribe(channels),
            ["UNSUBSCRIBE", channels @ ..] => return client.unsubscribe(channels),
            ["PING", rest @ ..] if client.only_listens() => {
                let text = rest.first().copied().unwrap_or_default();
                Reply::Push(vec![Reply::bulk("pong"), Reply::bulk(text)])
            }
            other if client.only_listens() => Reply::Error(format!(
                "ERR Can't execute '{}': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / \
                 RESET are allowed in this context",
                other[0].to_lowercase()
            )),
            ["PING"] => Reply::Status("PONG"),
            ["PING", text] => Reply::bulk(text),
            ["HELLO", version, ..] => {
                client.resp3.set(*version == "3");
                let version = Reply::Int(version.parse().unwrap());
                Reply::Map(vec![
                    (Reply::bulk("server"), Reply::bulk("redis")),
                    (Reply::bulk("proto"), version),
                ])
            }
            ["CLIENT" | "SELECT", ..] => Reply::Status("OK"),
            ["EVAL", text, count, rest @ ..] => self.run(&self.scripts.learn(text), count, rest),
            ["EVALSHA", hash, count, rest @ ..] => match self.scripts.known(hash) {
                Some(script) => self.run(&script, count, rest),
                None => Reply::Error("NOSCRIPT No matching script. Please use EVAL.".to_owned()),
            },
            other => command(&self.world, &self.subscribers, self.started, other)
                .unwrap_or_else(|| Reply::Error(format!("ERR unknown command {other:?}"))),
        };
        vec![one]
    }

    /// Runs a script, and notes what becomes of its locks.
    fn run(&self, script: &Function, count: &str, rest: &[&str]) -> Reply {
        let (keys, arguments) = rest.split_at(count.parse().unwrap());
        self.locks.begin(&self.world, keys);
        let answer = self.scripts.run(script, keys, arguments);
        self.locks.seen.borrow_mut().clear();
        answer
    }
}

/// The locks of the script that runs, as they were last seen.
#[derive(Default)]
struct Locks {
    seen: RefCell<BTreeMap<String, Option<Holder>>>,
}

impl Locks {
    fn begin(&self, world: &World, keys: &[&str]) {
        let mut data = world.data.borrow_mut();
        data.expire(elapsed());
        let locks = keys.iter().filter(|key| is_lock(key));
        *self.seen.borrow_mut() = locks
            .map(|key| ((*key).to_owned(), data.holder(key)))
            .collect();
    }

    /// After a command.
    fn look(&self, world: &World, words: &[&str]) {
        let [_, key, ..] = words else {
            return;
        };
        let mut seen = self.seen.borrow_mut();
        let Some(before) = seen.get_mut(*key) else {
            return;
        };
        let after = world.data.borrow_mut().holder(key);
        let is_half_written = after.is_some_and(|(.., until)| until == Duration::MAX);
        if *before != after && !is_half_written {
            note(world, world.key_number(key), *before, after);
            *before = after;
        }
    }
}

fn note(world: &World, key: usize, before: Option<Holder>, after: Option<Holder>) {
    let owner = |holder: Option<Holder>| holder.map(|(owner, ..)| owner);
    if let Some((known, ..)) = before.filter(|_| owner(before) != owner(after)) {
        world.note(What::Took(key, known));
    }
    if let Some((new, token, until)) = after {
        if before.is_none_or(|(known, last, _)| (known, last) != (new, token)) {
            world.note(What::Gave(key, new, token));
        }
        world.note(What::Lasts(key, new, until));
    }
}

/// A command that a client and a script may send alike.
fn command(
    world: &World,
    subscribers: &Subscribers,
    started: Duration,
    words: &[&str],
) -> Option<Reply> {
    match words {
        ["PUBLISH", channel, message] => {
            let hosts = subscribers.publish(channel, message);
            let count = i64::try_from(hosts.len()).unwrap();
            world.note(What::Published(hosts));
            Some(Reply::Int(count))
        }
        ["INFO", ..] => {
            let run = started.as_nanos();
            Some(Reply::Bulk(format!(
                "run_id:r{run}\r\nmaxmemory_policy:noeviction\r\n"
            )))
        }
        _ => world.data.borrow_mut().command(words, elapsed()),
    }
}
