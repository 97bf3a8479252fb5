//! The releases that the store has answered lately, for they may be lost still.
//!
//! Replication is asynchronous: a master may answer a release and then be replaced by a server that
//! has not heard of it, and where the lock is held. Danger: its holder has let go, so that nothing
//! but the ttl would free it. So each answered release is kept for as long as the lock may last,
//! and is sent again where another server has come to serve the lock (`release`). It compares the
//! owner id, so one that was not lost changes nothing.
//!
//! Bounded in time and number. Nothing is kept where no other server ever comes to serve. No I/O
//! and no timer here.

use std::collections::VecDeque;
use std::time::Duration;

use crate::clock::Moment;
use crate::key::Key;
use crate::store::OwnerId;

use super::state::ReleasingEntry;

/// For how long at the most: longer than a failover takes to be known. Sentinels wait for 30
/// seconds before they begin one, and a cluster's nodes for 15, if they are not told otherwise.
pub(super) const LONGEST: Duration = Duration::from_secs(120);

/// How many at the most, the latest. Each is about half a kilobyte, and where a failover makes the
/// engine send them all it costs the server about 10 milliseconds.
pub(super) const MOST: usize = 1_024;

/// The latest answered releases of one engine.
#[derive(Default)]
pub(super) struct Remembered {
    /// In the order of their answers.
    releases: VecDeque<Release>,
    /// When the last one is forgotten.
    end: Option<Moment>,
}

struct Release {
    owner: OwnerId,
    until: Moment,
    entry: Box<ReleasingEntry>,
}

impl Remembered {
    pub(super) fn is_empty(&self) -> bool {
        self.releases.is_empty()
    }

    /// When there is none any more.
    pub(super) fn end(&self) -> Option<Moment> {
        self.end
    }

    /// Keeps a release, unless the ttl has freed its lock by now.
    pub(super) fn keep(&mut self, owner: OwnerId, entry: Box<ReleasingEntry>, now: Moment) {
        let until = entry.until.min(now + LONGEST);
        if until <= now {
            return;
        }
        let is_over = |release: &Release| release.until <= now;
        while self.releases.len() >= MOST || self.releases.front().is_some_and(is_over) {
            self.releases.pop_front();
        }
        self.releases.push_back(Release {
            owner,
            until,
            entry,
        });
        self.end = self.end.max(Some(until));
    }

    /// Forgets all, if that is due for each of them.
    pub(super) fn forget(&mut self, now: Moment) {
        if self.end.is_some_and(|end| end <= now) {
            *self = Self::default();
        }
    }

    /// Takes out the releases of such locks that the ttl has not freed.
    pub(super) fn take(
        &mut self,
        is_meant: &dyn Fn(&Key) -> bool,
        now: Moment,
    ) -> Vec<(OwnerId, Box<ReleasingEntry>)> {
        let (meant, others) = std::mem::take(&mut self.releases)
            .into_iter()
            .filter(|release| release.until > now)
            .partition(|release| is_meant(&release.entry.key));
        self.releases = others;
        let meant: VecDeque<Release> = meant;
        meant
            .into_iter()
            .map(|release| (release.owner, release.entry))
            .collect()
    }
}
