//! What `#[singleton]` makes of a function: what it accepts, what its callers get, and what
//! code under the lock finds.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

#[path = "../support/mod.rs"]
mod support;

mod current;
mod macro_attributes;
mod macro_lints;
mod macro_order;
mod macro_refusal;
mod macro_size;
mod names;
mod nested;
mod own_lock;
mod refusals;
mod span;
mod trybuild;
