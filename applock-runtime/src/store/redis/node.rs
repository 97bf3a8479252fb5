//! One server: its address, the connection for commands, and the subscription.
//!
//! A store of one server has one node. Where sentinels name the master, or a cluster has many,
//! the topology makes a node when the server is first needed, and retires it when the server does
//! not serve any more. Each node has a connection and a subscription of its own, so that what
//! befalls one server touches no lock of another.
//!
//! Which node serves a lock is not decided here.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use redis::{Cmd, Value};
use tokio::time::Instant;

use crate::store::{Acquire, StoreResult};

use super::address::Address;
use super::connection::{About, Connection, Failed, Lifetime};
use super::dial::Connector;
use super::eviction;
use super::script::ScriptCall;
use super::subscription::Subscriber;

/// One server, as one store sees it.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) address: Address,
    /// Every command travels here.
    pub(super) connection: Arc<Connection>,
    /// Messages come here, on a connection of its own: one that has subscribed takes no commands.
    pub(super) subscriber: Arc<Subscriber>,
    /// Whether the server's eviction policy was checked.
    eviction_checked: AtomicBool,
}

impl Node {
    /// `shown` is what the log calls the server. Does no I/O.
    pub(super) fn new(
        connector: &Arc<dyn Connector>,
        address: Address,
        shown: Arc<str>,
        lifetime: Lifetime,
    ) -> Arc<Self> {
        let connection = Connection::new(Arc::clone(connector), address.clone(), shown, lifetime);
        Arc::new(Self {
            address,
            connection: Arc::new(connection),
            subscriber: Arc::default(),
            eviction_checked: AtomicBool::new(false),
        })
    }

    /// Runs a script by its hash. Where the server does not know it (a new server, a flush, a
    /// failover), sends it again with its text. A server that does not know a script has
    /// carried out nothing of it, so the second try is safe; both share one deadline.
    ///
    /// `asking`: the server may carry it out for a slot that it is only about to get. With the
    /// answer comes whether enough replicas have what was written, if that was asked for.
    pub(super) async fn run(
        &self,
        call: &ScriptCall,
        asking: bool,
        about: About<'_>,
        within: Duration,
    ) -> Result<(Value, StoreResult<()>), Failed> {
        let started = Instant::now();
        let answer = self.send(call, call.by_hash(), asking, about, within).await;
        match answer {
            // It has restarted, was flushed, or is another.
            Err(failed) if failed.is_unknown_script => {
                let left = within.saturating_sub(started.elapsed());
                self.send(call, &call.by_text(), asking, about, left).await
            }
            answer => answer,
        }
    }

    async fn send(
        &self,
        call: &ScriptCall,
        command: &Cmd,
        asking: bool,
        about: About<'_>,
        within: Duration,
    ) -> Result<(Value, StoreResult<()>), Failed> {
        let connection = &self.connection;
        let wanted = connection.replicas().filter(|_| call.is_acknowledged);
        connection
            .exchange(command, asking, wanted, about, within)
            .await
    }

    /// Checks the server's eviction policy, once, after the first lock was granted. A task of
    /// its own, so that no caller waits for it.
    pub(super) fn check_eviction(&self, request: &Acquire, token: u64) {
        if !self.eviction_checked.swap(true, Ordering::Relaxed) {
            let first_lock = eviction::FirstLock {
                key: Arc::clone(&request.key.lock),
                owner: request.owner,
                token,
            };
            tokio::spawn(eviction::warn_if_locks_can_be_evicted(
                Arc::clone(&self.connection),
                first_lock,
            ));
        }
    }

    /// The server does not serve any more: the connection and the subscription end, and an answer
    /// that is still on its way counts as unknown.
    pub(super) fn retire(&self) {
        self.connection.retire();
    }
}
