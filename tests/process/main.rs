//! What becomes of locks when the process of a holder is killed, stopped or suspended, when
//! its clock is set, and when its executor blocks or ends.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

#[path = "../support/mod.rs"]
mod support;

mod blocked_executor;
mod client_clock;
mod few_files;
mod forked;
mod killed_holder;
mod killed_job;
mod log_crate;
mod log_subscriber;
mod runtimes;
mod scheduled;
mod sigterm;
mod stopped_holder;
mod suspended;
