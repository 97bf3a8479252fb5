//! A sorted set: names in the order of their scores, and of themselves where these are
//! equal.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};

#[derive(Clone, Default)]
pub(super) struct Sorted {
    scores: BTreeMap<String, f64>,
    order: BTreeSet<Member>,
}

#[derive(Clone)]
struct Member(f64, String);

impl Ord for Member {
    fn cmp(&self, other: &Self) -> Ordering {
        let scores = self.0.total_cmp(&other.0);
        scores.then_with(|| self.1.cmp(&other.1))
    }
}

impl PartialOrd for Member {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Member {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Member {}

impl Sorted {
    pub(super) fn len(&self) -> usize {
        self.scores.len()
    }

    pub(super) fn score(&self, name: &str) -> Option<f64> {
        self.scores.get(name).copied()
    }

    pub(super) fn rank(&self, name: &str) -> Option<usize> {
        let place = Member(self.score(name)?, name.to_owned());
        Some(self.order.range(..place).count())
    }

    pub(super) fn put(&mut self, name: String, score: f64) {
        self.remove(&name);
        self.order.insert(Member(score, name.clone()));
        self.scores.insert(name, score);
    }

    /// `false`: it was not there.
    pub(super) fn remove(&mut self, name: &str) -> bool {
        let known = self.scores.remove(name);
        known.is_some_and(|score| self.order.remove(&Member(score, name.to_owned())))
    }

    pub(super) fn in_order(&self) -> impl Iterator<Item = (&str, f64)> {
        self.order
            .iter()
            .map(|Member(score, name)| (name.as_str(), *score))
    }
}
