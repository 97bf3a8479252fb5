//! A checker for concurrent histories against a sequential specification.
//!
//! The search of Wing and Gong ('Testing and Verifying Concurrent Objects', 1993), with
//! Lowe's memory of what was tried ('Testing for linearizability', 2017): a history is
//! sound if every operation can be given one moment between its start and its end, such
//! that the specification allows them in the order of these moments.
//!
//! It knows nothing of locks; see `spec.rs`.

use std::collections::HashMap;
use std::fmt::Debug;
use std::hash::Hash;

/// What an object may do when nothing happens at the same time.
pub trait Spec {
    type State: Clone + Eq + Hash + Debug;
    type Action: Debug;

    fn initial() -> Self::State;

    /// The state after the action; `None` if it can't happen in this one.
    fn step(state: &Self::State, action: &Self::Action) -> Option<Self::State>;
}

#[derive(Clone, Debug)]
pub struct Operation<A> {
    pub action: A,
    pub start: u64,
    /// `None`: it is not known whether it happened, so it may have, at any time since its
    /// start, or not at all.
    pub end: Option<u64>,
    /// Open operations that are twins differ in nothing but their start and their name:
    /// where one of them will do, the earliest will.
    pub twin: bool,
}

#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    Sound,
    /// No order explains it. How far the best attempt came, and what it could not place.
    Broken(String),
    /// The search was given up.
    Undecided {
        steps: usize,
    },
}

/// What was placed, and the state after that.
#[derive(Clone)]
struct Node<S> {
    /// All closed operations before this one are placed,
    low: usize,
    /// and these after it.
    ahead: Vec<usize>,
    /// The open operations that are placed.
    used: Vec<usize>,
    state: S,
}

/// What was tried: the closed operations and the state, and with which open ones.
struct Seen<S>(HashMap<Place<S>, Vec<Vec<usize>>>);

type Place<S> = (usize, Vec<usize>, S);

impl<S: Clone + Eq + Hash> Seen<S> {
    /// Whether nothing as good was tried before. A node that has come as far with a part of
    /// the open operations has the others left, and can go on in every way that this can.
    fn is_news(&mut self, node: &Node<S>) -> bool {
        let place = (node.low, node.ahead.clone(), node.state.clone());
        let known = self.0.entry(place).or_default();
        let covers = |used: &Vec<usize>| {
            used.len() <= node.used.len()
                && used
                    .iter()
                    .all(|index| node.used.binary_search(index).is_ok())
        };
        let news = !known.iter().any(covers);
        if news {
            known.push(node.used.clone());
        }
        news
    }
}

/// Tries no more than `longest` steps.
pub fn check<S: Spec>(operations: Vec<Operation<S::Action>>, longest: usize) -> Verdict {
    let (mut closed, mut open): (Vec<_>, Vec<_>) = operations
        .into_iter()
        .partition(|operation| operation.end.is_some());
    closed.sort_by_key(|operation| operation.start);
    open.sort_by_key(|operation| operation.start);
    Search::<S> { closed, open }.run(longest)
}

struct Search<S: Spec> {
    closed: Vec<Operation<S::Action>>,
    open: Vec<Operation<S::Action>>,
}

impl<S: Spec> Search<S> {
    fn run(&self, longest: usize) -> Verdict {
        let first = Node {
            low: 0,
            ahead: Vec::new(),
            used: Vec::new(),
            state: S::initial(),
        };
        let mut best = first.clone();
        let mut seen = Seen(HashMap::new());
        let mut stack = vec![first];
        let mut steps = 0;
        while let Some(node) = stack.pop() {
            if node.low == self.closed.len() {
                return Verdict::Sound;
            }
            if !seen.is_news(&node) {
                continue;
            }
            if steps == longest {
                return Verdict::Undecided { steps };
            }
            steps += 1;
            if (node.low, node.ahead.len()) > (best.low, best.ahead.len()) {
                best = node.clone();
            }
            stack.extend(self.next(&node));
        }
        Verdict::Broken(self.tell(&best))
    }

    /// The closed operations that may come next, and the moment until which others may.
    fn due(&self, node: &Node<S::State>) -> (Vec<usize>, u64) {
        let mut until = u64::MAX;
        let mut due = Vec::new();
        for (index, operation) in self.closed.iter().enumerate().skip(node.low) {
            if operation.start > until {
                break;
            }
            if !node.ahead.contains(&index) {
                until = until.min(operation.end.unwrap_or(u64::MAX));
                due.push(index);
            }
        }
        due.retain(|index| self.closed[*index].start <= until);
        (due, until)
    }

    /// What may follow; the most promising last.
    fn next(&self, node: &Node<S::State>) -> Vec<Node<S::State>> {
        let (mut due, until) = self.due(node);
        due.sort_by_key(|index| std::cmp::Reverse(self.closed[*index].end));
        let mut next = self.next_open(node, until);
        for index in due {
            let Some(state) = S::step(&node.state, &self.closed[index].action) else {
                continue;
            };
            let after = self.placed(node, index, state);
            if after.state == node.state {
                // It changes nothing, so whatever else can come can come after it.
                return vec![after];
            }
            next.push(after);
        }
        next
    }

    fn placed(&self, node: &Node<S::State>, index: usize, state: S::State) -> Node<S::State> {
        let mut after = Node {
            state,
            ..node.clone()
        };
        let place = after.ahead.partition_point(|known| *known < index);
        after.ahead.insert(place, index);
        while after.ahead.first() == Some(&after.low) {
            after.ahead.remove(0);
            after.low += 1;
        }
        after
    }

    fn next_open(&self, node: &Node<S::State>, until: u64) -> Vec<Node<S::State>> {
        let mut next = Vec::new();
        let mut twin_tried = false;
        for (index, operation) in self.open.iter().enumerate() {
            if operation.start > until {
                break;
            }
            let Err(place) = node.used.binary_search(&index) else {
                continue;
            };
            if operation.twin && std::mem::replace(&mut twin_tried, true) {
                continue;
            }
            if let Some(state) = S::step(&node.state, &operation.action) {
                let mut after = Node {
                    state,
                    ..node.clone()
                };
                after.used.insert(place, index);
                next.push(after);
            }
        }
        next
    }

    fn tell(&self, node: &Node<S::State>) -> String {
        let (due, _) = self.due(node);
        let waiting: Vec<String> = due
            .iter()
            .map(|index| format!("{:?}", self.closed[*index]))
            .collect();
        format!(
            "{} of {} operations have an order; then the state is {:?}, and none of these can come next:\n    {}",
            node.low + node.ahead.len(),
            self.closed.len(),
            node.state,
            waiting.join("\n    ")
        )
    }
}
