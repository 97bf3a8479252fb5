//! One suite for every store: each case is a promise of `CONFORMANCE`, sections 2.1,
//! 2.2, 2.4 to 2.7, 2.9 and 2.13 to 2.16, with the number of its line beside it, and runs
//! on `redis://`, `dir:` and `memory:`.
//!
//! What a store can't be asked stands in [`store::lacking`], with the reason. Lines that
//! our interface can't express stand in [`NOT_HERE`]. Three tests at the end see to it
//! that nothing is forgotten: no case for a store, no case in the list, and no line.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    unreachable_pub,
    reason = "tests"
)]

#[path = "../support/mod.rs"]
mod support;

mod children;
mod server;
mod store;

mod acquire;

/// The lines that have no test, and why.
const NOT_HERE: &[(u16, &str)] = &[];

struct Case {
    section: &'static str,
    name: &'static str,
    need: store::Need,
}

macro_rules! cases {
    ($place:expr, $section:ident, [$($name:ident),* $(,)?]) => {
        $(
            #[test]
            fn $name() {
                crate::$section::$name(&$place);
            }
        )*
    };
}

/// Makes the tests of every store, and the list of them, from one text.
macro_rules! conformance {
    ($($section:ident {
        every: $every:tt
        outside: $outside:tt
        fragile: $fragile:tt
        processes: $processes:tt
    })*) => {
        mod redis_store {
            $(mod $section {
                cases!(crate::store::RedisPlace::fresh(), $section, $every);
                cases!(crate::store::RedisPlace::fresh(), $section, $outside);
                cases!(crate::store::RedisPlace::fragile(), $section, $fragile);
                cases!(crate::store::RedisPlace::fresh(), $section, $processes);
            })*
        }
        mod dir_store {
            $(mod $section {
                cases!(crate::store::DirPlace::fresh(), $section, $every);
                cases!(crate::store::DirPlace::fresh(), $section, $outside);
                cases!(crate::store::DirPlace::fragile(), $section, $fragile);
                cases!(crate::store::DirPlace::fresh(), $section, $processes);
            })*
        }
        mod memory_store {
            $(mod $section {
                cases!(crate::store::MemoryPlace::fresh(), $section, $every);
            })*
        }

        fn all_cases() -> Vec<Case> {
            let mut all = Vec::new();
            $(
                listed!(all, $section, Nothing, $every);
                listed!(all, $section, Outside, $outside);
                listed!(all, $section, Fragile, $fragile);
                listed!(all, $section, Processes, $processes);
            )*
            all
        }
    };
}

macro_rules! listed {
    ($all:ident, $section:ident, $need:ident, [$($name:ident),* $(,)?]) => {
        $($all.push(Case {
            section: stringify!($section),
            name: stringify!($name),
            need: store::Need::$need,
        });)*
    };
}

conformance! {
    acquire {
        every: [
            a_fresh_lock_can_be_taken_is_shown_as_held_and_is_free_after_the_release,
            a_second_owner_is_refused_and_leaves_the_holders_state_and_lease_as_they_were,
            locks_of_different_names_never_block_each_other,
            a_lock_is_taken_and_released_ten_times_in_a_row_with_a_competitor_refused_each_time,
            two_instances_take_turns,
            of_a_hundred_who_want_it_at_once_never_two_are_inside_and_all_come_to_an_end,
            counters_that_are_not_atomic_come_out_right_under_their_locks,
            who_holds_it_is_stored_with_the_lock_and_can_be_read_back,
            every_acquisition_has_an_owner_id_of_its_own,
            the_lease_in_the_store_is_the_one_that_was_asked_for_to_the_millisecond,
            a_lock_that_expired_and_was_never_removed_can_be_taken,
            what_remains_of_a_lease_is_counted_from_before_the_request_less_a_margin,
        ]
        outside: [
            garbage_at_the_key_is_told_and_left_as_it_is,
        ]
        fragile: [
            an_acquire_whose_answer_comes_after_its_lease_has_ended_fails_and_cleans_up,
            a_store_that_hangs_is_told_as_unavailable_within_the_command_timeout,
            a_store_that_is_gone_is_an_error_and_never_busy,
            an_acquire_whose_answer_was_lost_is_not_busy_by_itself_when_it_is_repeated,
        ]
        processes: [
            of_many_processes_released_by_one_barrier_exactly_one_gets_the_lock,
            processes_exclude_one_another,
            a_crashed_holders_lock_can_be_had_once_its_lease_has_ended_and_not_before,
        ]
    }
}
