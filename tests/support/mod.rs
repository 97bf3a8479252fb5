//! What the tests share: real servers that they start for themselves.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::expect_used,
    reason = "each test binary uses a part of it"
)]

#[cfg(feature = "tls")]
pub mod certificates;
pub mod child;
pub mod clock;
pub mod cluster;
pub mod fault;
pub mod lease;
pub mod log;
pub mod panics;
pub mod ports;
pub mod probe;
pub mod proxy;
pub mod queue;
pub mod redis;
pub mod refusal;
pub mod sentinel;
pub mod sets;
pub mod stalls;
pub mod steps;
pub mod wait;
