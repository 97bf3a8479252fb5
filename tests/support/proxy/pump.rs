//! What one connection through the proxy does: four loops, two for each direction. One
//! reads, so that the sender is never held up; the other sends on what the rules let pass.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::{Instant, sleep_until};

use super::wire::{Call, end_of_value, is_unknown_script};
use super::{Event, Rules, Shared, Trick};

/// The connection is to be reset.
struct Reset;

type Outcome = Result<(), Reset>;

/// A message, and when it came in.
type Message = (Instant, Vec<u8>);

/// Ends a connection with an RST, as soon as it is dropped.
pub(super) fn reset(stream: &TcpStream) {
    // It may be gone already.
    let _ = stream.set_zero_linger();
}

struct Connection<'a> {
    number: u64,
    shared: &'a Shared,
    /// What the server was asked, and has not answered yet.
    asked: Mutex<VecDeque<Call>>,
    /// Its client has subscribed to something.
    subscribed: AtomicBool,
}

pub(super) async fn both_ways(
    mut client: TcpStream,
    mut server: TcpStream,
    number: u64,
    shared: &Shared,
) {
    for stream in [&client, &server] {
        stream.set_nodelay(true).expect("a socket");
    }
    let connection = Connection {
        number,
        shared,
        asked: Mutex::default(),
        subscribed: AtomicBool::new(false),
    };
    let outcome = {
        let (from_client, to_client) = client.split();
        let (from_server, to_server) = server.split();
        let (request, requests) = unbounded_channel();
        let (reply, replies) = unbounded_channel();
        let pumps = async {
            tokio::try_join!(
                read(from_client, request),
                connection.ask(requests, to_server),
                read(from_server, reply),
                connection.answer(replies, to_client),
            )
            .map(drop)
        };
        tokio::select! {
            outcome = pumps => outcome,
            () = connection.told_to_reset() => Err(Reset),
        }
    };
    if outcome.is_err() {
        reset(&client);
        reset(&server);
    }
}

/// Reads whole messages until the sender hangs up.
async fn read(mut from: ReadHalf<'_>, messages: UnboundedSender<Message>) -> Outcome {
    let mut bytes = Vec::new();
    while matches!(from.read_buf(&mut bytes).await, Ok(1..)) {
        while let Some(end) = end_of_value(&bytes) {
            let rest = bytes.split_off(end);
            let message = std::mem::replace(&mut bytes, rest);
            if messages.send((Instant::now(), message)).is_err() {
                return Ok(());
            }
        }
    }
    Ok(())
}

impl Connection<'_> {
    async fn until_rules(&self, met: impl FnMut(&Rules) -> bool) {
        let mut rules = self.shared.rules.subscribe();
        // The proxy keeps its end for as long as this runs.
        let _ = rules.wait_for(met).await;
    }

    async fn told_to_reset(&self) {
        self.until_rules(|rules| rules.reset >= self.number).await;
    }

    fn rule<T>(&self, of: impl FnOnce(&Rules) -> T) -> T {
        of(&self.shared.rules.borrow())
    }

    async fn late(&self, since: Instant) {
        let delay = self.rule(|rules| rules.delay);
        if delay > Duration::ZERO {
            sleep_until(since + delay).await;
        }
    }

    fn note(&self, event: Event) {
        self.shared.note(self.number, event);
    }

    /// Requests, on their way to the server.
    async fn ask(
        &self,
        mut requests: UnboundedReceiver<Message>,
        mut server: WriteHalf<'_>,
    ) -> Outcome {
        while let Some((since, request)) = requests.recv().await {
            let call = Call::of(&request);
            if call == Call::Subscribe {
                self.subscribed.store(true, Ordering::SeqCst);
            }
            let held = self.shared.trick(call, &[Trick::Hold]).is_some();
            let mark = self.rule(|rules| rules.let_go);
            self.note(Event::Sent(call));
            if held {
                self.until_rules(|rules| rules.let_go > mark).await;
            }
            self.late(since).await;
            self.until_rules(|rules| rules.hole_to_server < self.number)
                .await;
            self.asked.lock().expect("the calls").push_back(call);
            self.note(Event::Forwarded(call));
            if server.write_all(&request).await.is_err() {
                // The server has hung up, as it tells a client that goes on writing.
                return Err(Reset);
            }
            if held {
                break;
            }
        }
        // It may have hung up already.
        let _ = server.shutdown().await;
        Ok(())
    }

    /// Answers, on their way to the client.
    async fn answer(
        &self,
        mut replies: UnboundedReceiver<Message>,
        mut client: WriteHalf<'_>,
    ) -> Outcome {
        let mut silent = false;
        while let Some((since, reply)) = replies.recv().await {
            // What a server says unasked answers nothing.
            let call = match reply.first() {
                Some(b'>') => Call::Other,
                _ => self.answered(),
            };
            if !is_unknown_script(&reply) {
                self.note(Event::Executed(call));
                match self
                    .shared
                    .trick(call, &[Trick::LoseReply, Trick::ResetForReply])
                {
                    Some(Trick::ResetForReply) => return Err(Reset),
                    Some(_) => silent = true,
                    None => (),
                }
            }
            if silent {
                continue;
            }
            self.late(since).await;
            self.until_rules(|rules| {
                let muted = rules.muted && self.subscribed.load(Ordering::SeqCst);
                rules.hole_to_client < self.number && !muted
            })
            .await;
            // A client that has hung up does not keep the server from going on.
            if client.write_all(&reply).await.is_ok() {
                self.note(Event::Answered(call));
            }
        }
        if silent {
            // Its end is lost, too.
            std::future::pending::<()>().await;
        }
        let _ = client.shutdown().await;
        Ok(())
    }

    fn answered(&self) -> Call {
        let asked = self.asked.lock().expect("the calls").pop_front();
        asked.unwrap_or(Call::Other)
    }
}
