//! What becomes of locks when the server or the network fails: each file is a fault.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

#[path = "../support/mod.rs"]
mod support;

mod black_hole;
mod busy_script;
mod can_not_save;
mod client_names;
mod connection_loss;
mod eviction;
mod failed_heartbeat;
mod failed_release;
mod failover;
mod flushed_server;
mod foreign_key;
mod frozen_server;
mod hostile_text;
mod loading;
mod lost_answer;
mod no_redis;
mod out_of_memory;
mod paused_server;
mod read_only_replica;
mod restarted_server;
mod rights;
mod secrets;
#[cfg(target_os = "linux")]
mod server_clock;
mod server_down;
mod sharded;
#[cfg(feature = "tls")]
mod tls;
mod too_few_replicas;
mod too_many_clients;
mod wrong_password;
