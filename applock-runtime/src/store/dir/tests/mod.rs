//! What this store promises, each promise a test.

mod leases;
