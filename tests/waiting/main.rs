//! What the wait queue promises: order, fairness, and that a waiter who dies, is stopped or
//! gives up costs the others nothing.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

#[path = "../support/mod.rs"]
mod support;

mod cancelled_waiters;
mod dead_waiter;
mod fairness;
mod forged_grants;
mod hung_up;
mod many_waiters;
mod no_notifications;
mod queue_order;
