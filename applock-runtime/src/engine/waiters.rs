//! The waiters of this process, lock by lock, in the order in which they came.
//!
//! The order among processes is the store's. Here is only who asks for all of them: the
//! first of each lock knocks now and then, for a grant is only ever told as a hint.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use crate::clock::Moment;
use crate::store::OwnerId;

/// The lines of one engine.
#[derive(Default)]
pub(super) struct Lines {
    by_key: HashMap<Arc<str>, Line>,
    turns: u64,
}

#[derive(Default)]
struct Line {
    waiters: BTreeMap<u64, OwnerId>,
    /// When the first asks again.
    knock: Option<Moment>,
    /// Grants are not told here: only asking again finds one.
    is_untold: bool,
}

impl Lines {
    /// Stands at the end of a line. Answers its turn.
    pub(super) fn enter(&mut self, key: &Arc<str>, owner: OwnerId) -> u64 {
        self.turns += 1;
        let line = self.by_key.entry(Arc::clone(key)).or_default();
        line.waiters.insert(self.turns, owner);
        self.turns
    }

    /// Leaves the line. If the first did, the next one knocks at `knock`, and is answered.
    pub(super) fn leave(&mut self, key: &Arc<str>, turn: u64, knock: Moment) -> Option<OwnerId> {
        let line = self.by_key.get_mut(key)?;
        let was_first = line.is_first(turn);
        line.waiters.remove(&turn);
        match line.waiters.first_key_value() {
            None => {
                self.by_key.remove(key);
                None
            }
            Some((_, next)) => was_first.then(|| {
                line.knock = Some(knock);
                *next
            }),
        }
    }

    /// When this one is to knock, if it is the first.
    pub(super) fn knock(&self, key: &Arc<str>, turn: u64) -> Option<Moment> {
        let line = self.by_key.get(key)?;
        line.knock.filter(|_| line.is_first(turn))
    }

    /// Sets when the first knocks. Nothing happens if this is not the first.
    pub(super) fn set_knock(&mut self, key: &Arc<str>, turn: u64, at: Option<Moment>) {
        if let Some(line) = self.by_key.get_mut(key)
            && line.is_first(turn)
        {
            line.knock = at;
        }
    }

    /// Notes whether the store tells of grants.
    pub(super) fn set_told(&mut self, key: &Arc<str>, is_notified: bool) {
        if let Some(line) = self.by_key.get_mut(key) {
            line.is_untold = !is_notified;
        }
    }

    /// Whether some wait here for what nobody will tell them.
    pub(super) fn is_untold(&self, key: &Arc<str>) -> bool {
        self.by_key.get(key).is_some_and(|line| line.is_untold)
    }

    /// Lets the first of a line knock at `at`, and answers who that is.
    pub(super) fn knock_at(&mut self, key: &Arc<str>, at: Moment) -> Option<OwnerId> {
        let line = self.by_key.get_mut(key)?;
        line.knock = Some(at);
        line.waiters.first_key_value().map(|(_, first)| *first)
    }

    /// Those who stand in line, in their order.
    pub(super) fn of(&self, key: &Arc<str>) -> Vec<OwnerId> {
        self.by_key
            .get(key)
            .map(|line| line.waiters.values().copied().collect())
            .unwrap_or_default()
    }

    /// The keys that anybody waits for.
    pub(super) fn keys(&self) -> Vec<Arc<str>> {
        self.by_key.keys().cloned().collect()
    }
}

impl Line {
    fn is_first(&self, turn: u64) -> bool {
        self.waiters
            .first_key_value()
            .is_some_and(|(first, _)| *first == turn)
    }
}
