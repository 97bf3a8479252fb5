//! `app` is a string literal, or a constant of type `&str`.

use applock::singleton;

const NUMBER: u32 = 5;

#[singleton(app = 5)]
async fn number() {}

#[singleton(app = b"a")]
async fn bytes() {}

#[singleton(app = NUMBER)]
async fn constant_number() {}

#[singleton(app = tenant)]
async fn varies(tenant: &'static str) {}

#[singleton(app = NOWHERE)]
async fn unknown() {}

fn main() {}
