//! What one command costs at the least: a PING as the baseline would send it.

use std::time::Instant;

use anyhow::Result;

use crate::figures::quantile;
use crate::peers::baseline_connection;

/// The middle one of so many PINGs, one after the other, in µs.
pub(crate) fn measure(url: &str, times: usize) -> Result<f64> {
    crate::driver::block_on(async {
        let mut connection = baseline_connection(url).await?;
        let mut trips = Vec::with_capacity(times);
        for _ in 0..times {
            let start = Instant::now();
            redis::cmd("PING")
                .query_async::<()>(&mut connection)
                .await?;
            trips.push(start.elapsed().as_secs_f64() * 1e6);
        }
        Ok(quantile(&mut trips, 0.5))
    })
}
