//! Which locks there are: SCAN at each node that has keys, then each lock read by itself.
//!
//! SCAN, never KEYS, which stops the server for as long as it looks through all keys. Nothing is
//! written, so a user without any right to write can list.
//!
//! Danger: an answer that leaves locks out. A node that can't be asked fails the listing as a whole
//! (rule R9); only a key that goes or comes meanwhile may be in it or not, and one that moves between
//! two nodes of a cluster.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::try_join_all;
use tokio::time::sleep;

use crate::info::LockInfo;
use crate::key::{Key, MAX_KEY};
use crate::pattern::Pattern;
use crate::store::{Inspection, Store as _, StoreResult};

use super::connection::{About, Failed};
use super::node::Node;
use super::topology::{Turn, late};
use super::{RedisStore, reply, requests};

/// How many locks are read at a time.
const READS: usize = 50;

/// How often a listing begins anew, at other nodes, when a node has failed.
const TRIES: u32 = 3;

impl RedisStore {
    /// Who holds the locks that are meant, by their keys.
    pub(super) async fn holders(
        self: Arc<Self>,
        pattern: &Pattern,
        within: Duration,
    ) -> StoreResult<Vec<LockInfo>> {
        let keys: Vec<String> = self.keys(pattern, within).await?.into_iter().collect();
        let mut holders: Vec<LockInfo> = Vec::new();
        for some in keys.chunks(READS) {
            let reads = some.iter().map(|key| {
                let key = Key::of_lock(key);
                Arc::clone(&self).inspect(key, within)
            });
            let found: Vec<Inspection> = try_join_all(reads).await?;
            holders.extend(found.into_iter().filter_map(|found| found.holder));
        }
        // Where a foreign holder says who it is: no lock.
        let beside: BTreeSet<String> = holders
            .iter()
            .filter(|holder| holder.is_foreign())
            .map(|holder| requests::python_info(&Key::of_lock(holder.key())))
            .collect();
        holders.retain(|holder| !(holder.is_foreign() && beside.contains(holder.key())));
        Ok(holders)
    }

    /// All keys that are meant, each once: SCAN may name one several times.
    async fn keys(&self, pattern: &Pattern, within: Duration) -> StoreResult<BTreeSet<String>> {
        for tries in 1.. {
            let nodes = Arc::clone(&self.topology).all(within).await?;
            let scans = nodes.iter().map(|node| async move {
                let scanned = scan(node, pattern, within).await;
                scanned.map_err(|failed| (Arc::clone(node), failed))
            });
            let (node, failed) = match try_join_all(scans).await {
                Ok(found) => return Ok(found.into_iter().flatten().collect()),
                Err(failed) => failed,
            };
            match Arc::clone(&self.topology).turn(0, &node, &failed, tries) {
                Turn::Again(pause) if tries < TRIES => sleep(pause).await,
                _ => return Err(failed.into()),
            }
        }
        Err(late())
    }
}

/// The keys of one node that are meant.
async fn scan(node: &Node, pattern: &Pattern, within: Duration) -> Result<Vec<String>, Failed> {
    let mut found = Vec::new();
    let mut cursor = "0".to_owned();
    loop {
        let command = requests::scan(&cursor, &pattern.scan());
        let about = About::default();
        let answer = node.connection.send(&command, about, within).await?;
        let (next, keys) = reply::scanned(&answer).map_err(Failed::of_answer)?;
        let is_meant = |key: &String| key.len() <= MAX_KEY && pattern.fits(key);
        found.extend(keys.into_iter().filter(is_meant));
        if next == "0" {
            return Ok(found);
        }
        cursor = next;
    }
}

#[cfg(test)]
mod tests {
    use super::reply;
    use redis::Value;

    #[test]
    fn the_answer_to_a_scan_is_read_whole_or_not_at_all() {
        let text = |text: &str| Value::BulkString(text.as_bytes().to_vec());
        let keys = Value::Array(vec![text("a"), Value::BulkString(vec![0xff]), text("b")]);
        let read = reply::scanned(&Value::Array(vec![text("17"), keys])).unwrap();
        // No lock has a key that is no text.
        assert_eq!(
            read,
            ("17".to_owned(), vec!["a".to_owned(), "b".to_owned()])
        );
        for other in [
            Value::Okay,
            Value::Array(vec![text("x"), Value::Array(vec![])]),
        ] {
            assert!(reply::scanned(&other).is_err());
        }
    }
}
