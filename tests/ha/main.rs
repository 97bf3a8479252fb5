//! What becomes of locks where Redis is several servers: sentinels, a cluster, replicas.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

#[path = "../support/mod.rs"]
mod support;

mod after;
mod cluster_failover;
mod cluster_migration;
mod cluster_nodes;
mod cluster_slots;
mod cluster_waiters;
mod listing;
mod replicas;
mod sentinel_failover;
#[cfg(feature = "tls")]
mod sentinel_tls;
mod sentinel_watch;
mod sentinel_zombie;
mod servers;
