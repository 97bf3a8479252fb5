//! Which locks change: the keyspace notifications of each node, where its server sends them.
//!
//! Only a person who watches wants them, so nothing listens before it is asked to. Whether a server
//! sends them is its own setting (`notify-keyspace-events`), which is not touched here: they cost
//! each write of every client.
//!
//! Danger: silence that is taken for calm. A server may send nothing, a connection may be down, and
//! what happens meanwhile is never told later. So they are hints to look, beside looking.

use std::pin::pin;
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::future::{Either, select};
use redis::aio::PubSub;
use redis::{Msg, RedisResult};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use crate::key::MAX_KEY;
use crate::pattern::Pattern;
use crate::pause::jittered;

use super::RedisStore;
use super::error::classify;
use super::node::Node;

/// How often the nodes are looked at: one that has come is listened to, and so is one to which the
/// connection has ended.
const AGAIN: Duration = Duration::from_secs(1);

/// The pause where the right to listen is missing.
const WITHOUT_RIGHT: Duration = Duration::from_secs(30);

/// The longest that subscribing may take, and an answer to a PING.
const TIMEOUT: Duration = Duration::from_secs(2);

/// How often a PING tests a connection that is silent.
const PING: Duration = Duration::from_secs(5);

/// Changes of a lock's time to live, which each heartbeat brings, and of a claim to a lease.
const NO_NEWS: [&str; 3] = ["expire", "persist", "setrange"];

impl RedisStore {
    /// Sends the keys of changed locks there. Ends when nobody listens any more.
    pub(super) async fn hear_changes(
        self: Arc<Self>,
        pattern: Arc<Pattern>,
        heard: Sender<String>,
        within: Duration,
    ) {
        let mut listening: Vec<(Arc<Node>, JoinHandle<()>)> = Vec::new();
        loop {
            listening.retain(|(_, task)| !task.is_finished());
            // Where it is not known which nodes there are, the next round may know.
            let nodes = Arc::clone(&self.topology).all(within).await;
            for node in nodes.unwrap_or_default() {
                if !listening.iter().any(|(of, _)| Arc::ptr_eq(of, &node)) {
                    let (pattern, heard) = (Arc::clone(&pattern), heard.clone());
                    let task = tokio::spawn(listen(Arc::clone(&node), pattern, heard));
                    listening.push((node, task));
                }
            }
            sleep(jittered(AGAIN)).await;
        }
    }
}

/// Listens to one node, for as long as it serves and the connection lasts.
async fn listen(node: Arc<Node>, pattern: Arc<Pattern>, heard: Sender<String>) {
    let subscribing = async {
        let mut subscription: PubSub = node.connection.subscription().await?;
        // Of every database: the key is looked at in that of the URL.
        let keys = format!("__keyspace@*__:{}", pattern.scan());
        subscription.psubscribe(keys).await?;
        RedisResult::Ok(subscription.split())
    };
    let (mut sink, mut stream) = match timeout(TIMEOUT, subscribing).await {
        Ok(Ok(both)) => both,
        Ok(Err(error)) => {
            if !classify(error).error.is_passing() {
                sleep(jittered(WITHOUT_RIGHT)).await;
            }
            return;
        }
        Err(_) => return,
    };
    let listening = async {
        loop {
            match select(pin!(stream.next()), pin!(sleep(PING))).await {
                Either::Left((None, _)) => return,
                Either::Left((Some(message), _)) => {
                    if let Some(key) = changed(&message, &pattern)
                        && heard.send(key).is_err()
                    {
                        return;
                    }
                }
                Either::Right(_) => match timeout(TIMEOUT, sink.ping::<redis::Value>()).await {
                    Ok(Ok(_)) => (),
                    _ => return,
                },
            }
        }
    };
    select(pin!(listening), pin!(node.connection.until_retired())).await;
}

/// The key of a lock that is meant, if it may have changed hands.
fn changed(message: &Msg, pattern: &Pattern) -> Option<String> {
    let event: String = message.get_payload().ok()?;
    if NO_NEWS.contains(&event.as_str()) {
        return None;
    }
    let channel: String = message.get_channel().ok()?;
    let (_, key) = channel.split_once("__:")?;
    (key.len() <= MAX_KEY && pattern.fits(key)).then(|| key.to_owned())
}
