//! The command `applock`, as its users have it: real processes, real servers, real signals.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    unreachable_pub,
    reason = "tests"
)]
// What these tests do to processes is Linux's: they read /proc.
#![cfg(target_os = "linux")]

mod bad_input;
mod docs;
mod doctor;
mod ends;
mod exit_codes;
mod fleets;
mod seen;
mod signals;
mod support;
mod under_lock;
