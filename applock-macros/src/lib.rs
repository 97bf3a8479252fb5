//! The `#[singleton]` attribute. Use it through the `applock` crate.
