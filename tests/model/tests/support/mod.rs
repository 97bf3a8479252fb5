//! The two verdicts of a check.

use std::time::Instant;

use applock_model::Setup;
use stateright::{Checker, HasDiscoveries, Model};

/// So many states take well under a minute on a small machine (a million in five seconds,
/// where it is slow). A setup that needs more is too wide.
#[allow(dead_code, reason = "each test file is a program of its own")]
const A_MINUTES_STATES: usize = 4_000_000;

/// Where a check ends at the latest: the states of one that is far too wide fill the memory.
const TOO_MANY_STEPS: usize = 30_000_000;

/// Every state within the bounds is visited, and every property is as it must be.
#[allow(dead_code, reason = "each test file is a program of its own")]
pub(crate) fn holds(what: &str, setup: Setup) {
    let begun = Instant::now();
    let checker = setup
        .checker()
        .threads(2)
        .target_state_count(TOO_MANY_STEPS);
    // A broken promise is reported at once.
    let checker = checker.finish_when(HasDiscoveries::AnyFailures);
    let checker = checker.spawn_bfs().join();
    println!(
        "{what}: {} states, {} steps, in {:.1?}",
        checker.unique_state_count(),
        checker.state_count(),
        begun.elapsed()
    );
    checker.assert_properties();
    assert!(checker.unique_state_count() < A_MINUTES_STATES);
    assert!(checker.is_done(), "{what}: some states were not visited");
}

/// There is a way to a state that this property speaks of; prints one.
pub(crate) fn finds(what: &str, setup: Setup, property: &'static str) {
    let found = setup
        .checker()
        .target_state_count(TOO_MANY_STEPS)
        .finish_when(HasDiscoveries::AllOf([property].into()))
        .spawn_bfs()
        .join();
    println!("{what}: {} states until", found.unique_state_count());
    let path = found
        .discovery(property)
        .unwrap_or_else(|| panic!("{what}: nothing found against '{property}'"));
    for action in path.into_actions() {
        println!("    {action:?}");
    }
}

/// The names of what a setup is checked for.
#[allow(dead_code, reason = "each test file is a program of its own")]
pub(crate) fn properties(setup: &Setup) -> Vec<&'static str> {
    setup.properties().iter().map(|one| one.name).collect()
}
