//! Small sentinels: they name the master that the plan of the run has them name, tell of one
//! another, and publish switches.

use std::net::Ipv4Addr;
use std::rc::Rc;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::broadcast::error::RecvError;
use turmoil::net::{TcpListener, TcpStream};

use crate::simulation::world::{
    MASTER, PORT, SENTINEL, SENTINEL_PORT, World, elapsed, server_name,
};

use super::fleet::SENTINELS;
use super::wire::{Reply, request};

/// What a sentinel publishes when another server has become master.
const SWITCH: &str = "+switch-master";

/// All of them serve, on one machine.
pub(in crate::simulation) async fn serve(world: Rc<World>) -> turmoil::Result {
    for sentinel in 0..SENTINELS {
        let port = SENTINEL_PORT + u16::try_from(sentinel)?;
        let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).await?;
        let world = Rc::clone(&world);
        tokio::task::spawn_local(async move {
            while let Ok((stream, peer)) = listener.accept().await {
                let host = world.host_at(peer.ip());
                tokio::task::spawn_local(talk(Rc::clone(&world), sentinel, stream, host));
            }
        });
    }
    std::future::pending().await
}

/// One connection, until it is closed, or the sentinel dies.
async fn talk(world: Rc<World>, sentinel: usize, mut stream: TcpStream, host: usize) {
    let mut received = Vec::new();
    let mut resp3 = false;
    let mut subscribed = false;
    let mut switches = world.switches[sentinel].subscribe();
    loop {
        let mut answers = Vec::new();
        tokio::select! {
            biased;
            switch = switches.recv() => match switch {
                Ok(text) if subscribed && !text.is_empty() => {
                    let push = ["message", SWITCH, &text].map(Reply::bulk);
                    Reply::Push(push.to_vec()).write(resp3, &mut answers);
                }
                Ok(_) | Err(RecvError::Lagged(_)) => (),
                Err(RecvError::Closed) => return,
            },
            read = stream.read_buf(&mut received) => {
                if !matches!(read, Ok(1..)) {
                    return;
                }
            }
        }
        if world.fleet.borrow().sentinels[sentinel].is_down {
            return;
        }
        while let Some((words, length)) = request(&received) {
            received.drain(..length);
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            let answer = match words[..] {
                ["SUBSCRIBE", channel] => {
                    subscribed = true;
                    let confirmed = ["subscribe", channel].map(Reply::bulk);
                    Reply::Push(confirmed.into_iter().chain([Reply::Int(1)]).collect())
                }
                ["PING"] if subscribed && !resp3 => {
                    Reply::Push(["pong", ""].map(Reply::bulk).to_vec())
                }
                ["HELLO", ref rest @ ..] => {
                    resp3 |= rest.first() == Some(&"3");
                    Reply::Map(vec![(Reply::bulk("mode"), Reply::bulk("sentinel"))])
                }
                ["PING"] => Reply::Status("PONG"),
                ["CLIENT" | "SELECT", ..] => Reply::Status("OK"),
                ["SENTINEL", what, MASTER] => said(&world, sentinel, host, what),
                ref other => Reply::Error(format!("ERR unknown command {other:?}")),
            };
            answer.write(resp3, &mut answers);
        }
        if stream.write_all(&answers).await.is_err() {
            return;
        }
    }
}

/// What a sentinel says of the master.
fn said(world: &World, sentinel: usize, host: usize, what: &str) -> Reply {
    let fleet = world.fleet.borrow();
    let this = &fleet.sentinels[sentinel];
    let fields = |fields: &[(&str, String)]| {
        let words = fields
            .iter()
            .flat_map(|(name, value)| [Reply::bulk(name), Reply::bulk(value)]);
        Reply::Array(words.collect())
    };
    match what {
        "get-master-addr-by-name" => {
            let named = (elapsed(), host, this.names);
            world.history.borrow_mut().named.push(named);
            Reply::Array(vec![
                Reply::Bulk(server_name(this.names)),
                Reply::Bulk(PORT.to_string()),
            ])
        }
        "master" => fields(&[
            ("name", MASTER.to_owned()),
            ("config-epoch", this.epoch.to_string()),
        ]),
        "sentinels" => {
            let others = (0..SENTINELS).filter(|other| *other != sentinel);
            let other = |other: usize| {
                let port = usize::from(SENTINEL_PORT) + other;
                fields(&[("ip", SENTINEL.to_owned()), ("port", port.to_string())])
            };
            Reply::Array(others.map(other).collect())
        }
        other => Reply::Error(format!("ERR Unknown sentinel subcommand '{other}'")),
    }
}

/// The message of a switch to that server.
pub(in crate::simulation) fn switched(from: usize, to: usize) -> String {
    let (from, to) = (server_name(from), server_name(to));
    format!("{MASTER} {from} {PORT} {to} {PORT}")
}
