//! Captures that name no argument.

use applock::singleton;

#[singleton(app = "a", name = "t-{tennant}")]
async fn misspelt(tenant: u32, day: u32) {}

#[singleton(app = "a", name = "t-{zone}")]
async fn other(tenant: u32, day: u32) {}

#[singleton(key = "t-{zone}")]
async fn no_arguments() {}

#[singleton(app = "a", name = "{day:width$}")]
async fn width(day: u32) {}

fn main() {}
