//! What becomes of locks where Redis is several servers: sentinels, a cluster, replicas.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

#[path = "../support/mod.rs"]
mod support;

mod listing;
mod servers;
