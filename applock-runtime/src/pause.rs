//! Pauses of which a part is random, so that a fleet does not act in step. How long a pause is, and
//! what for, is each caller's.

use std::time::Duration;

/// Of which up to half is left out.
pub(crate) fn jittered(pause: Duration) -> Duration {
    pause.mul_f64(1.0 - fastrand::f64() / 2.0)
}

/// The same, of one that begins with `first` and doubles up to `longest`.
pub(crate) fn growing(first: Duration, longest: Duration, doublings: u32) -> Duration {
    jittered(first.saturating_mul(1 << doublings.min(16)).min(longest))
}

/// Give or take a fifth, so that it is so long on the average.
pub(crate) fn around(pause: Duration) -> Duration {
    pause.mul_f64(0.8 + fastrand::f64() * 0.4)
}
