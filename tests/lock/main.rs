//! What a lock promises on a server that is well: one holder at a time, for as long as it
//! lives, and free when its holder is done.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

#[path = "../support/mod.rs"]
mod support;

mod at_least_at_most;
mod bad_input;
mod blocking;
mod events;
mod exclusion;
mod fencing_tokens;
mod force_release;
mod health;
mod heartbeat;
mod late_release;
mod listing;
mod lost_lease;
mod once_per_tick;
mod release;
mod remember;
mod short_ttl;
mod shutdown;
mod who_holds;
