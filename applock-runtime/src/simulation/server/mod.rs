//! A small Redis server: it speaks the protocol ([`wire`]), keeps hashes and sorted sets
//! that expire ([`data`]), runs the very scripts of `store/redis/scripts` in a Lua of the
//! same version ([`lua`]), and passes messages on to subscribers. Of several ([`fleet`]) each is a
//! master or a replica, and a cluster's node knows slots ([`cluster`]); beside them are small
//! sentinels ([`sentinel`]).

mod bare;
mod cluster;
pub(super) mod data;
pub(super) mod fleet;
mod lua;
pub(super) mod sentinel;
mod sorted;
#[cfg(test)]
mod tests;
mod watch;
mod wire;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::rc::Rc;
use std::time::Duration;

use mlua::Function;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::sleep;
use turmoil::net::{TcpListener, TcpStream};

use super::history::What;
use super::world::{Ambush, PORT, World, elapsed};
pub(super) use bare::Bare;
use fleet::Layout;
use lua::Scripts;
use watch::Watch;
use wire::{Reply, request};

/// How often it looks whether replicas have a write.
const LOOKS: Duration = Duration::from_millis(10);

/// One life of the server: a restart makes a new one, which knows no script and no
/// subscriber.
struct SimulatedServer {
    world: Rc<World>,
    number: usize,
    scripts: Scripts,
    watch: Watch,
    life: Life,
    subscribers: Rc<Subscribers>,
}

/// The server of that number serves until it is crashed.
pub(super) async fn serve(world: Rc<World>, number: usize) -> turmoil::Result {
    let server = Rc::new(SimulatedServer::new(world, number)?);
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORT)).await?;
    loop {
        let (stream, peer) = listener.accept().await?;
        let host = server.world.host_at(peer.ip());
        tokio::task::spawn_local(Rc::clone(&server).talk(stream, host));
    }
}

/// A channel, and the number of a connection.
type Subscription = (String, u64);

/// From a start of the server to its end.
#[derive(Clone)]
struct Life {
    began: Duration,
    run: String,
}

struct SubscribedClient {
    host: usize,
    since: Duration,
    way: UnboundedSender<Reply>,
}

/// The subscribers of every channel.
#[derive(Default)]
struct Subscribers {
    all: RefCell<BTreeMap<Subscription, SubscribedClient>>,
}

impl Subscribers {
    /// Each subscribed host, and since when.
    fn hosts(&self) -> BTreeMap<usize, Duration> {
        let all = self.all.borrow();
        all.values().map(|one| (one.host, one.since)).collect()
    }

    /// The hosts that are sent the message, one a connection.
    fn publish(&self, channel: &str, message: &str) -> Vec<usize> {
        let all = self.all.borrow();
        let on_channel = all.range((channel.to_owned(), 0)..=(channel.to_owned(), u64::MAX));
        let push = ["message", channel, message].map(Reply::bulk);
        on_channel
            .filter(|(_, one)| one.way.send(Reply::Push(push.to_vec())).is_ok())
            .map(|(_, one)| one.host)
            .collect()
    }
}

/// One connection: it ends with its subscriptions.
struct Client {
    number: u64,
    host: usize,
    resp3: Cell<bool>,
    /// The next command stands behind `ASKING`.
    asking: Cell<bool>,
    /// The number of its last write.
    written: Cell<u64>,
    pushes: UnboundedSender<Reply>,
    subscribers: Rc<Subscribers>,
}

impl Client {
    fn new(server: &SimulatedServer, host: usize) -> (Self, UnboundedReceiver<Reply>) {
        let (pushes, to_push) = unbounded_channel();
        let client = Self {
            number: server.world.next_connection(),
            host,
            resp3: Cell::new(false),
            asking: Cell::new(false),
            written: Cell::new(0),
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
                SubscribedClient {
                    host: self.host,
                    since: elapsed(),
                    way: self.pushes.clone(),
                },
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
    fn is_subscriber_only(&self) -> bool {
        !self.resp3.get() && self.subscriptions() > 0
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let mut all = self.subscribers.all.borrow_mut();
        all.retain(|(_, number), _| *number != self.number);
    }
}

impl SimulatedServer {
    fn new(world: Rc<World>, number: usize) -> mlua::Result<Self> {
        let subscribers = Rc::<Subscribers>::default();
        let (known, heard) = (Rc::clone(&world), Rc::clone(&subscribers));
        let life = Life {
            began: elapsed(),
            run: format!("run{:037}", world.next_connection()),
        };
        let watch = Watch::new(&world, number);
        let this = life.clone();
        let command = move |words: &[&str]| {
            command(&known, number, &heard, &this, words)
                .unwrap_or_else(|| panic!("no such command: {words:?}"))
        };
        let of_others = Rc::clone(&subscribers);
        *world.bus[number].borrow_mut() = Some(Box::new(move |channel, message| {
            of_others.publish(channel, message);
        }));
        Ok(Self {
            scripts: Scripts::new(command)?,
            watch,
            life,
            world,
            number,
            subscribers,
        })
    }

    /// One connection, until it is closed or reset.
    async fn talk(self: Rc<Self>, mut stream: TcpStream, host: usize) {
        let reset = Rc::clone(&self.world.resets[host]);
        let subscription_ends = Rc::clone(&self.world.subscription_ends[host]);
        let kicked = Rc::clone(&self.world.kicked[self.number]);
        let (client, mut pushes) = Client::new(&self, host);
        let mut received = Vec::new();
        // Nothing of what is sent arrives any more.
        let mut is_mute = false;
        loop {
            let mut answers = Vec::new();
            tokio::select! {
                biased;
                () = reset.notified() => return,
                () = kicked.notified() => return,
                () = subscription_ends.notified(), if client.subscriptions() > 0 => return,
                Some(push) = pushes.recv() => {
                    push.write(client.resp3.get(), &mut answers);
                    let mut ambush = self.world.ambush.borrow_mut();
                    if ambush[host] == Ambush::Laid {
                        ambush[host] = Ambush::Sprung;
                    }
                }
                read = stream.read_buf(&mut received) => {
                    if !matches!(read, Ok(1..)) {
                        return;
                    }
                }
            }
            while self.is_frozen() {
                self.world.thawed[self.number].notified().await;
            }
            while let Some((words, length)) = request(&received) {
                received.drain(..length);
                let words: Vec<&str> = words.iter().map(String::as_str).collect();
                if let ["WAIT", count, millis] = words[..] {
                    let (count, millis) = (count.parse().unwrap(), millis.parse().unwrap());
                    tokio::select! {
                        biased;
                        () = reset.notified() => return,
                        () = kicked.notified() => return,
                        answer = self.wait(&client, count, millis) => {
                            answer.write(client.resp3.get(), &mut answers);
                        }
                    }
                    continue;
                }
                for reply in self.answers(&client, &words) {
                    reply.write(client.resp3.get(), &mut answers);
                }
            }
            is_mute |= client.subscriptions() > 0 && self.world.mute[host].get();
            if is_mute {
                continue;
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
            ["PING", rest @ ..] if client.is_subscriber_only() => {
                let text = rest.first().copied().unwrap_or_default();
                Reply::Push(vec![Reply::bulk("pong"), Reply::bulk(text)])
            }
            other if client.is_subscriber_only() => Reply::Error(format!(
                "ERR Can't execute '{}': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / \
                 RESET are allowed in this context",
                other[0].to_lowercase()
            )),
            ["PING"] => Reply::Status("PONG"),
            ["PING", text] => Reply::bulk(text),
            ["HELLO", rest @ ..] => {
                if let Some(version) = rest.first() {
                    client.resp3.set(*version == "3");
                }
                let version = if client.resp3.get() { 3 } else { 2 };
                Reply::Map(vec![
                    (Reply::bulk("server"), Reply::bulk("redis")),
                    (Reply::bulk("proto"), Reply::Int(version)),
                    (Reply::bulk("mode"), Reply::bulk(self.mode())),
                ])
            }
            ["CLIENT" | "SELECT", ..] => Reply::Status("OK"),
            ["ASKING"] if self.is_of_a_cluster() => {
                client.asking.set(true);
                Reply::Status("OK")
            }
            ["CLUSTER", word] if self.is_of_a_cluster() => {
                let answer = cluster::about(&self.world.fleet.borrow(), self.number, word);
                answer.unwrap_or_else(|| Reply::Error(format!("ERR unknown subcommand '{word}'")))
            }
            ["ROLE"] => {
                let follows = self.world.fleet.borrow().servers[self.number].follows;
                let role = if follows.is_some() { "slave" } else { "master" };
                Reply::Array(vec![Reply::bulk(role)])
            }
            ["EVAL" | "EVALSHA", _, count, rest @ ..]
                if let Some(refusal) = self.refusal(client, count, rest) =>
            {
                refusal
            }
            ["EVAL", text, count, rest @ ..] => {
                self.run(client, &self.scripts.learn(text), count, rest)
            }
            ["EVALSHA", hash, count, rest @ ..] => match self.scripts.known(hash) {
                Some(script) => self.run(client, &script, count, rest),
                None => {
                    let untaught = (elapsed(), client.host);
                    self.world.history.borrow_mut().untaught.push(untaught);
                    Reply::Error("NOSCRIPT No matching script. Please use EVAL.".to_owned())
                }
            },
            other => command(
                &self.world,
                self.number,
                &self.subscribers,
                &self.life,
                other,
            )
            .unwrap_or_else(|| Reply::Error(format!("ERR unknown command {other:?}"))),
        };
        vec![one]
    }

    /// Runs a script, and notes what becomes of its locks.
    fn run(&self, client: &Client, script: &Function, count: &str, rest: &[&str]) -> Reply {
        let host = client.host;
        let (keys, arguments) = rest.split_at(count.parse().unwrap());
        let locks = keys.iter().filter(|key| data::is_lock(key)).count();
        let request = (elapsed(), host, locks);
        self.world.history.borrow_mut().requests.push(request);
        self.watch.begin(&self.world, host, keys);
        let answer = self.scripts.run(script, keys, arguments);
        self.watch.end(&self.world, &self.subscribers.hosts());
        let mut fleet = self.world.fleet.borrow_mut();
        client.written.set(fleet.wrote(self.number, elapsed()));
        answer
    }

    fn layout(&self) -> Layout {
        self.world.fleet.borrow().layout
    }

    fn is_of_a_cluster(&self) -> bool {
        self.layout() == Layout::Cluster
    }

    fn mode(&self) -> &'static str {
        if self.is_of_a_cluster() {
            "cluster"
        } else {
            "standalone"
        }
    }

    fn is_frozen(&self) -> bool {
        self.world.fleet.borrow().servers[self.number].is_frozen
    }

    /// Why it does not run a script with those keys.
    fn refusal(&self, client: &Client, count: &str, rest: &[&str]) -> Option<Reply> {
        let asking = client.asking.take();
        let keys = &rest[..count.parse().unwrap()];
        if self.is_of_a_cluster() {
            return cluster::refusal(&self.world, self.number, keys, asking);
        }
        let follows = self.world.fleet.borrow().servers[self.number].follows;
        follows.map(|_| {
            Reply::Error("READONLY You can't write against a read only replica.".to_owned())
        })
    }

    /// Waits until so many replicas have what the client has written, or for so long: the server
    /// looks now and then.
    async fn wait(&self, client: &Client, count: i64, millis: u64) -> Reply {
        let until = elapsed() + Duration::from_millis(millis);
        loop {
            let acknowledged = {
                let mut fleet = self.world.fleet.borrow_mut();
                if fleet.servers[self.number].follows.is_some() {
                    return Reply::Error("ERR WAIT cannot be used with replica instances.".into());
                }
                fleet.replicate(elapsed());
                fleet.acknowledged(self.number, client.written.get())
            };
            if acknowledged >= count || elapsed() >= until {
                return Reply::Int(acknowledged);
            }
            sleep(LOOKS).await;
        }
    }
}

/// A command that a client and a script may send alike.
fn command(
    world: &World,
    server: usize,
    subscribers: &Subscribers,
    life: &Life,
    words: &[&str],
) -> Option<Reply> {
    match words {
        ["PUBLISH", channel, message] => {
            let hosts = subscribers.publish(channel, message);
            let count = i64::try_from(hosts.len()).unwrap();
            // In a cluster it is heard on every node, and counts those of this one.
            if world.bus.len() > 1 && world.fleet.borrow().layout == Layout::Cluster {
                let others = world.bus.iter().enumerate();
                for (_, other) in others.filter(|(other, _)| *other != server) {
                    if let Some(publish) = &*other.borrow() {
                        publish(channel, message);
                    }
                }
            }
            world.note(What::Published(hosts));
            Some(Reply::Int(count))
        }
        ["INFO", ..] => {
            let up = (elapsed() - life.began).as_secs();
            Some(Reply::Bulk(format!(
                "run_id:{}\r\nuptime_in_seconds:{up}\r\nmaxmemory_policy:noeviction\r\n",
                life.run
            )))
        }
        _ => world.data(server).borrow_mut().command(words, elapsed()),
    }
}
