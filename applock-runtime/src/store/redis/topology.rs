//! Where the server is that serves a lock: the one thing in which a single server, a master that
//! sentinels name, and a cluster differ.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout_at};

use crate::key::Key;
use crate::pause::jittered;
use crate::store::{Notifications, StoreError, StoreErrorKind, StoreFuture, StoreResult};

use super::address::Address;
use super::connection::{Failed, Lifetime};
use super::dial::Connector;
use super::node::Node;

/// The hash slot of a key in a cluster. Everywhere else there is one slot.
pub(super) type Slot = u16;

/// Which node serves a slot.
pub(super) trait Topology: Send + Sync + fmt::Debug + 'static {
    /// The slot of a lock and of all keys beside it. Locks of different slots never share a call.
    fn slot(&self, key: &Key) -> Slot;

    /// Locks of different places never wait for one another's answers: those of different nodes.
    fn place(&self, _key: &Key) -> u64 {
        0
    }

    /// The node that serves the slot, if that is known and need not be asked for. No I/O.
    fn known(&self, slot: Slot) -> Option<Arc<Node>>;

    /// The node that serves the slot; where none is known, asks, all that wait together, no longer
    /// than `within`.
    fn find(self: Arc<Self>, slot: Slot, within: Duration) -> StoreFuture<StoreResult<Arc<Node>>>;

    /// All nodes that have locks: together they serve each slot. Where they are not known, asks, no
    /// longer than `within`.
    fn all(self: Arc<Self>, within: Duration) -> StoreFuture<StoreResult<Vec<Arc<Node>>>>;

    /// What a failure means for the step, and for what is known of the nodes. `tries` is how
    /// often the step has been sent.
    fn turn(self: Arc<Self>, slot: Slot, from: &Arc<Node>, failed: &Failed, tries: u32) -> Turn;

    /// Whether several locks of one slot may share a call at this node.
    fn shares_calls(&self, node: &Node) -> bool;

    /// From now on that engine is told when another node comes to serve a slot
    /// ([`Notification::Moved`](crate::store::Notification::Moved)), as long as that is `needed`.
    /// Called in the engine's runtime. `false`: there is no other node.
    fn watch(self: Arc<Self>, notifications: &Notifications, needed: watch::Receiver<bool>)
    -> bool;

    /// The same for a process that was forked off: without a connection.
    fn forked(&self) -> Arc<dyn Topology>;
}

/// Nothing was sent, for nobody has said in time where to.
pub(super) fn late() -> StoreError {
    StoreError::late(StoreErrorKind::NotDone)
}

/// Between two tries of a step that nothing was done of, and two questions for the node that serves;
/// half of it is random.
pub(super) const PAUSE: Duration = Duration::from_millis(60);

/// The node that serves, as soon as it is `known`: asks for it again and again, no longer than
/// `within`. `ask` gives `None` where the question was dropped.
pub(super) async fn found<F>(
    within: Duration,
    known: impl Fn() -> Option<Arc<Node>>,
    ask: impl Fn() -> F,
) -> StoreResult<Arc<Node>>
where
    F: Future<Output = Option<StoreResult<Arc<Node>>>>,
{
    let deadline = Instant::now() + within;
    // Why the last try came to nothing, and not only that the time was over in the next.
    let mut cause = None;
    loop {
        if let Some(known) = known() {
            return Ok(known);
        }
        let failed = match timeout_at(deadline, ask()).await {
            Ok(Some(Ok(node))) => return Ok(node),
            Ok(Some(Err(failed))) if failed.is_passing() => failed,
            Ok(Some(Err(failed))) => return Err(failed),
            Ok(None) | Err(_) => return Err(cause.unwrap_or_else(late)),
        };
        let pause = jittered(PAUSE);
        if Instant::now() + pause >= deadline {
            return Err(failed);
        }
        cause = Some(failed);
        sleep(pause).await;
    }
}

/// What is to follow a failure.
#[derive(Debug)]
pub(super) enum Turn {
    /// It is told. Everything is that may have been carried out.
    Tell,
    /// The step was certainly not carried out: once more, after a pause, wherever its slot is
    /// served by then.
    Again(Duration),
    /// The same, at this node; `asking` for a slot that it is only about to get.
    At { node: Arc<Node>, asking: bool },
}

/// One server, at the address that the URL names. A name is resolved anew at each dial, so this is
/// also right for a name that moves to another server at a failover.
#[derive(Debug)]
pub(super) struct Single {
    connector: Arc<dyn Connector>,
    shown: Arc<str>,
    node: Arc<Node>,
}

impl Single {
    pub(super) fn new(connector: Arc<dyn Connector>, shown: Arc<str>) -> Self {
        let address = Address::Given;
        let node = Node::new(&connector, address, Arc::clone(&shown), Lifetime::Program);
        Self {
            connector,
            shown,
            node,
        }
    }
}

impl Topology for Single {
    fn slot(&self, _key: &Key) -> Slot {
        0
    }

    fn known(&self, _slot: Slot) -> Option<Arc<Node>> {
        Some(Arc::clone(&self.node))
    }

    fn find(self: Arc<Self>, _: Slot, _: Duration) -> StoreFuture<StoreResult<Arc<Node>>> {
        let node = Arc::clone(&self.node);
        Box::pin(async move { Ok(node) })
    }

    fn all(self: Arc<Self>, _: Duration) -> StoreFuture<StoreResult<Vec<Arc<Node>>>> {
        let node = Arc::clone(&self.node);
        Box::pin(async move { Ok(vec![node]) })
    }

    fn turn(self: Arc<Self>, _: Slot, _: &Arc<Node>, _: &Failed, _: u32) -> Turn {
        Turn::Tell
    }

    fn shares_calls(&self, node: &Node) -> bool {
        node.connection.is_single()
    }

    fn watch(self: Arc<Self>, _: &Notifications, _: watch::Receiver<bool>) -> bool {
        false
    }

    fn forked(&self) -> Arc<dyn Topology> {
        Arc::new(Self::new(
            Arc::clone(&self.connector),
            Arc::clone(&self.shown),
        ))
    }
}
