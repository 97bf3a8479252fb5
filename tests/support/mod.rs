//! What the tests share: real servers that they start for themselves.
#![allow(dead_code, reason = "each test binary uses a part of it")]

pub mod redis;
pub mod wait;
