//! How a step reaches the node that serves its lock, and comes back.
//!
//! ```text
//! loop until `within` is over:
//!     node = where an answer has sent us, or the topology's for the slot
//!     the script, by its hash; where the server does not know it, by its text
//!     an answer                    -> it is the step's
//!     certainly not carried out    -> the topology says whether once more, and where
//!     maybe carried out            -> told at once: the engine asks again with the same owner id
//! ```
//!
//! Danger: to repeat what may have been carried out. The second answer of a release that was would
//! be 'not held', and a success be told as a loss (rules R3, R9). Only what the topology knows to
//! be not done is sent again here.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use redis::Value;
use tokio::time::{Instant, sleep};

use crate::key::Key;
use crate::store::{
    Acquire, Acquired, QueuePosition, Release, Released, Renew, StoreErrorKind, StoreResult,
};

use super::connection::About;
use super::error::Hint;
use super::node::Node;
use super::script::ScriptCall;
use super::topology::{Slot, Turn, late};
use super::{RedisStore, error, reply, requests};

/// The most redirections of one step, as one answer may lead to another. More mean that nodes
/// disagree: it goes on after a pause.
const MOST_HOPS: u32 = 8;

/// The pause after so many.
const AFTER_HOPS: Duration = Duration::from_millis(50);

/// A request of the engine, of which several travel in one call of a script.
pub(super) trait Request: Sized {
    type Answer;

    /// The most in one call: the server does nothing else meanwhile, and a long script would delay
    /// every other client.
    const A_CALL: usize;

    fn key(&self) -> &Key;

    /// For the log.
    fn about(&self) -> About<'_>;

    /// The call for that node: what it says of our channel is that of our subscription there.
    fn call(some: &[&Self], node: &Node) -> ScriptCall;

    /// Reads the answer: one for each of them.
    fn answers(some: &[&Self], said: Answered) -> Vec<StoreResult<Self::Answer>>;
}

/// The answer to a call, with the node that gave it.
pub(super) struct Answered {
    pub(super) value: Value,
    /// Whether enough replicas have what was written, where that was asked for.
    acknowledged: StoreResult<()>,
    node: Arc<Node>,
    /// The call that it answers.
    call: ScriptCall,
}

/// The parts of an answer that has one for each request, and of which each may be an error. An
/// answer of the wrong length says nothing of any.
fn each<Q: Request>(
    some: &[&Q],
    said: Value,
    read: impl Fn(&Q, &Value) -> StoreResult<Q::Answer>,
) -> Vec<StoreResult<Q::Answer>> {
    let read = |(request, said): (&Q, Value)| read(request, &reply::done(said)?);
    match (some, said) {
        // A script answers for a single lock without a list.
        ([request], said) => vec![read((*request, said))],
        (some, Value::Array(answers)) if answers.len() == some.len() => {
            some.iter().copied().zip(answers).map(read).collect()
        }
        (some, other) => some
            .iter()
            .map(|_| Err(reply::unreadable(&other)))
            .collect(),
    }
}

impl Request for Acquire {
    type Answer = Acquired;
    /// About 10 µs each.
    const A_CALL: usize = 32;

    fn key(&self) -> &Key {
        &self.key
    }

    fn about(&self) -> About<'_> {
        About {
            key: Some(&self.key.lock),
            owner: Some(self.owner),
            token: None,
        }
    }

    fn call(some: &[&Self], node: &Node) -> ScriptCall {
        let run = node.subscriber.subscribed_at();
        requests::acquire(some, node.subscriber.channel(), run.as_deref())
    }

    /// The first request that has to wait opens the subscription: a process without waiters needs
    /// no second connection.
    fn answers(some: &[&Self], said: Answered) -> Vec<StoreResult<Acquired>> {
        let Answered {
            value,
            acknowledged,
            node,
            call,
        } = said;
        each(some, value, |request, said| {
            let acquired = reply::acquired(&request.key, said, call.says_subscribed)?;
            match (&acquired, &request.notifications) {
                // The engine gives it back: the outcome is 'unknown'.
                (Acquired::Granted { .. }, _) if acknowledged.is_err() => acknowledged.clone()?,
                (Acquired::Granted { token, .. }, _) => node.check_eviction(request, *token),
                (Acquired::Queued(_), Some(notifications)) => {
                    node.subscriber.start(&node.connection, notifications);
                }
                _ => (),
            }
            Ok(acquired)
        })
    }
}

impl Request for Renew {
    type Answer = bool;
    /// About 3 µs each.
    const A_CALL: usize = 100;

    fn key(&self) -> &Key {
        &self.key
    }

    fn about(&self) -> About<'_> {
        About {
            key: Some(&self.key.lock),
            owner: Some(self.owner),
            token: Some(self.token),
        }
    }

    fn call(some: &[&Self], _node: &Node) -> ScriptCall {
        requests::renew(some)
    }

    fn answers(some: &[&Self], said: Answered) -> Vec<StoreResult<bool>> {
        match reply::flags(&said.value, some.len()) {
            Ok(flags) => {
                // A 'not held' is true wherever else it is.
                let read = |held| match &said.acknowledged {
                    Err(error) if held => Err(error.clone()),
                    _ => Ok(held),
                };
                flags.into_iter().map(read).collect()
            }
            Err(error) => some.iter().map(|_| Err(error.clone())).collect(),
        }
    }
}

impl Request for Release {
    type Answer = Released;
    /// About 10 µs each.
    const A_CALL: usize = 32;

    fn key(&self) -> &Key {
        &self.key
    }

    fn about(&self) -> About<'_> {
        About {
            key: Some(&self.key.lock),
            owner: Some(self.owner),
            token: self.token,
        }
    }

    /// The channel tells the script which waiters are of this process: the answer notifies them,
    /// and no message is published.
    fn call(some: &[&Self], node: &Node) -> ScriptCall {
        requests::release(some, node.subscriber.channel())
    }

    fn answers(some: &[&Self], said: Answered) -> Vec<StoreResult<Released>> {
        let needs_proof = said.node.connection.replicas().is_some();
        each(some, said.value, |_, said| {
            let mut released = reply::released(said)?;
            if let Some(grant) = &mut released.next {
                grant.needs_proof = needs_proof;
            }
            Ok(released)
        })
    }
}

/// The answers of a call for so many locks. An error of it is the error of every lock in it.
fn to_each<T>(locks: usize, outcome: StoreResult<Vec<StoreResult<T>>>) -> Vec<StoreResult<T>> {
    outcome.unwrap_or_else(|error| (0..locks).map(|_| Err(error.clone())).collect())
}

impl RedisStore {
    /// Sends one call for locks of one slot, to whichever node serves it. `call` writes it for that
    /// node, anew for each try.
    pub(super) async fn step(
        &self,
        slot: Slot,
        about: About<'_>,
        call: impl Fn(&Node) -> ScriptCall,
        within: Duration,
    ) -> StoreResult<Answered> {
        self.step_for(slot, 1, about, call, within).await
    }

    /// The same for so many locks. Of several that are on their way to another node it does not wait
    /// until all have arrived: the error is [`error::SOME_MOVED`].
    async fn step_for(
        &self,
        slot: Slot,
        locks: usize,
        about: About<'_>,
        call: impl Fn(&Node) -> ScriptCall,
        within: Duration,
    ) -> StoreResult<Answered> {
        let deadline = Instant::now() + within;
        let mut sent_to = None;
        let mut hops = 0;
        // Why the last try came to nothing, and not only that its time was over.
        let mut cause = None;
        for tries in 1.. {
            let left = deadline.saturating_duration_since(Instant::now());
            let (node, asking) = match sent_to.take().or_else(|| self.known(slot)) {
                Some(known) => known,
                None => match Arc::clone(&self.topology).find(slot, left).await {
                    Ok(found) => (found, false),
                    Err(late) if late.is_late() => return Err(cause.unwrap_or(late)),
                    Err(failed) => return Err(failed),
                },
            };
            let left = deadline.saturating_duration_since(Instant::now());
            let call = call(&node);
            let failed = match node.run(&call, asking, about, left).await {
                Ok((value, acknowledged)) => {
                    return Ok(Answered {
                        value,
                        acknowledged,
                        node,
                        call,
                    });
                }
                Err(failed) => failed,
            };
            if locks > 1 && failed.hint == Hint::Migrating {
                return Err(error::some_moved());
            }
            let pause = match Arc::clone(&self.topology).turn(slot, &node, &failed, tries) {
                Turn::Tell => return Err(error::naming(&node.address, failed.into())),
                Turn::Again(pause) => pause,
                Turn::At { node, asking } => {
                    sent_to = Some((node, asking));
                    hops += 1;
                    if hops % MOST_HOPS == 0 {
                        AFTER_HOPS
                    } else {
                        Duration::ZERO
                    }
                }
            };
            let error = error::not_done(failed.error, &failed.hint, slot, &node.address);
            if !error.is_late() || cause.is_none() {
                cause = Some(match failed.hint {
                    // It is not this node's, but that of the whole cluster.
                    Hint::Migrating | Hint::Ask(_) | Hint::Moved(_) | Hint::ClusterDown => error,
                    _ => error::naming(&node.address, error),
                });
            }
            if deadline.saturating_duration_since(Instant::now()) <= pause {
                break;
            }
            if !pause.is_zero() {
                sleep(pause).await;
            }
        }
        Err(cause.unwrap_or_else(late))
    }

    fn known(&self, slot: Slot) -> Option<(Arc<Node>, bool)> {
        self.topology.known(slot).map(|node| (node, false))
    }

    /// Carries a batch out: by slots, each in calls of as many locks as may share one. All calls
    /// leave at the same time. The answers come in the order of the requests.
    pub(super) async fn carry_out<Q: Request>(
        &self,
        batch: &[Q],
        within: Duration,
    ) -> Vec<StoreResult<Q::Answer>> {
        if let [request] = batch {
            let slot = self.topology.slot(request.key());
            return to_each(1, self.call(slot, &[request], within).await);
        }
        let slot = |request: &&Q| self.topology.slot(request.key());
        // The order inside of a slot is kept: waiters are queued in it.
        let mut order: Vec<(Slot, usize)> = batch.iter().map(|it| slot(&it)).zip(0..).collect();
        order.sort_unstable();
        let sorted: Vec<&Q> = order.iter().filter_map(|(_, at)| batch.get(*at)).collect();
        let groups = sorted
            .chunk_by(|one, other| slot(one) == slot(other))
            .filter_map(|some| Some(self.calls(slot(some.first()?), some, within)));
        let answers = join_all(groups).await.into_iter().flatten();
        let mut answers: Vec<_> = order.iter().map(|(_, at)| *at).zip(answers).collect();
        answers.sort_unstable_by_key(|(at, _)| *at);
        answers.into_iter().map(|(_, answer)| answer).collect()
    }

    /// Some requests of one slot, in as many calls as are needed.
    async fn calls<Q: Request>(
        &self,
        slot: Slot,
        some: &[&Q],
        within: Duration,
    ) -> Vec<StoreResult<Q::Answer>> {
        let known = self.topology.known(slot);
        let shares = known.is_some_and(|node| self.topology.shares_calls(&node));
        let a_call = if shares { Q::A_CALL } else { 1 };
        if some.len() <= a_call {
            return self.call_or_one_by_one(slot, some, within).await;
        }
        let calls = some
            .chunks(a_call)
            .map(|some| self.call_or_one_by_one(slot, some, within));
        join_all(calls).await.into_iter().flatten().collect()
    }

    /// Carries one call out. Where the server has refused it as a whole, before it did anything of
    /// it, its locks one by one: for the key that the user may not touch the other locks must not
    /// suffer, and behind a proxy there may be a cluster, which takes no call for keys of several
    /// slots. While a slot moves, a node takes no call for locks of which some are here and some there,
    /// and a move that was broken off stays so: then heartbeats must not fail that would be answered.
    async fn call_or_one_by_one<Q: Request>(
        &self,
        slot: Slot,
        some: &[&Q],
        within: Duration,
    ) -> Vec<StoreResult<Q::Answer>> {
        let begun = Instant::now();
        let outcome = self.call(slot, some, within).await;
        // A lock that was refused in an answer may have been released all the same.
        let crosses = outcome
            .as_ref()
            .is_err_and(|error| &*error.what == error::CROSS_SLOT);
        let is_denied = outcome
            .as_ref()
            .is_err_and(|error| error.kind == StoreErrorKind::Denied);
        let moves = outcome
            .as_ref()
            .is_err_and(|error| &*error.what == error::SOME_MOVED);
        if some.len() < 2 || !(crosses || is_denied || moves) {
            return to_each(some.len(), outcome);
        }
        let within = match moves {
            true => within.saturating_sub(begun.elapsed()),
            false => within,
        };
        if crosses && let Some(node) = self.topology.known(slot) {
            node.connection.note_cluster();
        }
        let one_by_one = some
            .chunks(1)
            .map(|one| async move { to_each(1, self.call(slot, one, within).await) });
        join_all(one_by_one).await.into_iter().flatten().collect()
    }

    /// One call: the answer to each lock in it, or the error of the call as a whole.
    async fn call<Q: Request>(
        &self,
        slot: Slot,
        some: &[&Q],
        within: Duration,
    ) -> StoreResult<Vec<StoreResult<Q::Answer>>> {
        let about = some
            .first()
            .map_or_else(About::default, |first| first.about());
        let call = |node: &Node| Q::call(some, node);
        let answered = self.step_for(slot, some.len(), about, call, within).await?;
        Ok(Q::answers(some, answered))
    }

    /// Names the foreign holders in answers to acquires.
    pub(super) async fn name_foreign_holders(
        &self,
        batch: &[Acquire],
        answers: &mut [StoreResult<Acquired>],
        within: Duration,
    ) {
        let foreign = batch.iter().zip(answers).filter_map(|each| {
            let (
                request,
                Ok(Acquired::Busy(holder) | Acquired::Queued(QueuePosition { holder, .. })),
            ) = each
            else {
                return None;
            };
            holder.is_foreign().then_some((&request.key, holder))
        });
        join_all(foreign.map(|(key, holder)| self.name_foreign(key, holder, within))).await;
    }
}
