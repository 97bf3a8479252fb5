//! What the documentation says: the README, the guarantees, the examples, and how a process
//! is configured.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

#[path = "../support/mod.rs"]
mod support;

mod configuration;
mod examples;
mod grafana;
mod guarantees;
mod probes;
mod readme;
mod registry;
mod servers;
mod testing;
