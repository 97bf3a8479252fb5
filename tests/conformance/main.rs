//! One suite for every store: each case is a promise from the list of behaviours
//! that lock libraries are tested for (sections 2.1 to 2.10 and 2.12 to 2.16),
//! with the number of its line beside it, and runs on `redis://`, `redis+cluster://`,
//! `redis+sentinel://`, `dir:` and `memory:`.
//! Lines that are not about stores, or about one of them, have test files of their own
//! ([`BESIDE`]).
//!
//! Cases don't sleep for their verdict: they compare what the store answered, and moments
//! noted before a question and after its answer; what must come they wait for.
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

mod asking;
mod children;
mod server;
mod store;

mod acquire;
mod cancellation;
mod expiry;
mod fencing;
mod force_release;
mod heartbeat;
mod introspection;
mod names;
mod queue;
mod release;
mod scheduler;
mod try_acquire;
mod waiting;

/// The lines that have no test here, and why.
const NOT_HERE: &[(u16, &str)] = &[
    (
        27,
        "no waiter sleeps between polls for a length that could be given: a wait ends at its own \
         end (26, 28)",
    ),
    (
        34,
        "no number of tries and no pause can be given: a waiter stands in the queue and is notified",
    ),
    (
        45,
        "a guard is never renewed into a new acquisition: what is lost stays lost (R4)",
    ),
    (
        57,
        "a lease is extended by its heartbeat only, never by a length that a caller gives",
    ),
    (
        58,
        "nothing extends a lease by hand, so there is no old handle and no new one",
    ),
    (
        61,
        "every lock has an end: one without can't be asked for (see 165)",
    ),
    (
        67,
        "tagged [file]: ours end by time, too; the store's own tests have the OS locks, in \
         applock-runtime/src/store/dir/tests",
    ),
    (
        75,
        "an owner id can't be given: a holding belongs to the guard that took it (R6)",
    ),
    (
        76,
        "nothing restores a guard from an owner id, so there is nothing to restore",
    ),
    (
        87,
        "no lock is set up or torn down: it exists while it is held",
    ),
    (
        88,
        "nothing releases locks by prefix; an operator forces them one by one, by name",
    ),
    (
        152,
        "there is no unfair mode: waiters are served in order (144)",
    ),
    (
        153,
        "a queue has no limit: a wait has a length, and busy tells how many wait",
    ),
    (
        162,
        "tagged [file]: the store's own tests have it, in applock-runtime/src/store/dir/tests",
    ),
    (
        166,
        "no list of held locks: a locker keeps none, and no store is scanned by prefix",
    ),
    (
        173,
        "nothing here can be serialised: no dependency could, and an owner id is text",
    ),
    (
        181,
        "no store keeps its user's data, so there is no guarded write to make",
    ),
];

/// The sections of the list that this suite covers, by their first and last line.
const SECTIONS: &[(u16, u16)] = &[(1, 122), (144, 196)];

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
        mod cluster_store {
            $(mod $section {
                cases!(crate::store::RedisPlace::in_cluster(), $section, $every);
                cases!(crate::store::RedisPlace::in_cluster(), $section, $outside);
                cases!(crate::store::RedisPlace::in_fragile_cluster(), $section, $fragile);
                cases!(crate::store::RedisPlace::in_cluster(), $section, $processes);
            })*
        }
        mod sentinel_store {
            $(mod $section {
                cases!(crate::store::RedisPlace::behind_sentinels(), $section, $every);
                cases!(crate::store::RedisPlace::behind_sentinels(), $section, $outside);
                cases!(crate::store::RedisPlace::behind_fragile_sentinels(), $section, $fragile);
                cases!(crate::store::RedisPlace::behind_sentinels(), $section, $processes);
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
        $all.extend(Vec::<Case>::from([$(Case {
            section: stringify!($section),
            name: stringify!($name),
            need: store::Need::$need,
        }),*]));
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
            of_a_hundred_callers_at_once_never_two_are_inside_and_all_come_to_an_end,
            counters_that_are_not_atomic_come_out_right_under_their_locks,
            who_holds_it_is_stored_with_the_lock_and_can_be_read_back,
            every_acquisition_has_an_owner_id_of_its_own,
            the_lease_in_the_store_is_the_one_that_was_asked_for_to_the_millisecond,
            a_lock_that_expired_and_was_never_removed_can_be_taken,
            an_acquire_whose_answer_comes_after_its_lease_has_ended_fails_and_cleans_up,
            what_remains_of_a_lease_is_counted_from_before_the_request_less_a_margin,
        ]
        outside: [
            garbage_at_the_key_is_reported_and_left_as_it_is,
        ]
        fragile: [
            a_store_that_hangs_is_reported_as_unavailable_within_the_command_timeout,
            a_store_that_is_gone_is_an_error_and_never_busy,
            an_acquire_whose_answer_was_lost_is_not_busy_by_itself_when_it_is_repeated,
        ]
        processes: [
            of_many_processes_released_by_one_barrier_exactly_one_gets_the_lock,
            processes_exclude_one_another,
            a_crashed_holders_lock_can_be_had_once_its_lease_has_ended_and_not_before,
        ]
    }
    try_acquire {
        every: [
            a_try_takes_a_free_lock_and_reports_a_held_one_as_busy_whatever_wait_says,
            of_many_callers_that_try_at_once_one_wins_and_the_others_get_busy,
            after_failed_tries_the_lock_is_free_as_soon_as_its_holder_lets_go,
            a_try_of_a_busy_lock_neither_extends_nor_shortens_its_lease,
            busy_names_the_holder_and_the_time_that_its_lease_has_left,
        ]
        outside: [
            a_failed_try_leaves_nothing_behind,
        ]
        fragile: []
        processes: []
    }
    waiting {
        every: [
            a_wait_ends_busy_when_it_is_over_and_not_before,
            a_wait_that_its_caller_cuts_short_is_over_and_leaves_no_place,
            a_wait_is_as_long_as_its_lockers_clock_says_to_the_millisecond,
            a_release_ends_the_wait,
            the_end_of_the_holders_lease_ends_the_wait,
            waits_of_extreme_lengths_are_taken_as_they_are_meant,
            a_wait_of_nothing_is_one_try,
            many_waiters_all_get_busy_when_their_time_is_over,
        ]
        outside: [
            a_wait_that_is_never_begun_does_not_touch_the_store,
        ]
        fragile: [
            a_store_that_hangs_for_a_while_does_not_end_a_wait,
            a_wait_at_a_store_that_hangs_lasts_to_its_end_and_reports_why,
        ]
        processes: []
    }
    queue {
        every: [
            waiters_are_served_in_the_order_in_which_they_came,
            the_number_of_waiters_is_reported_with_the_holder,
            a_forced_release_serves_the_waiters_in_order,
            a_try_never_comes_before_the_waiters,
            a_waiter_that_gives_up_leaves_the_queue_and_the_next_is_served,
            a_waiter_dropped_as_it_is_granted_the_lock_does_not_keep_it,
            a_release_at_the_moment_of_asking_is_not_missed,
        ]
        outside: [
            waiting_leaves_nothing_behind,
        ]
        fragile: []
        processes: [
            processes_that_die_in_the_queue_are_skipped_and_the_others_served_in_order,
        ]
    }
    heartbeat {
        every: [
            a_heartbeat_moves_the_leases_end,
            a_lock_outlives_its_ttl_many_times_while_its_heart_beats,
            many_heartbeats_in_a_row_all_keep_it,
            a_heartbeat_for_another_owners_lock_fails_and_changes_nothing,
            a_heartbeat_after_the_release_fails,
            a_heartbeat_after_the_end_fails_and_does_not_take_the_lock_again,
            a_heartbeat_never_shortens_a_lease,
            a_ttl_of_nothing_is_refused_before_it_reaches_the_store,
            the_heartbeat_stops_at_release_drop_panic_and_cancellation,
            a_cancelled_acquire_leaves_no_lock_and_no_heartbeat,
            a_release_that_races_a_heartbeat_leaves_no_lock,
            after_a_loss_the_same_name_is_taken_again_and_its_heart_beats,
            times_that_leave_no_room_for_a_second_heartbeat_are_refused,
            hundreds_of_locks_of_one_process_are_all_kept,
        ]
        outside: [
            a_heartbeat_that_is_answered_not_yours_is_a_loss_at_once,
            a_lock_that_vanished_is_noticed_by_the_next_heartbeat,
        ]
        fragile: [
            a_store_that_comes_back_within_the_lease_costs_no_holder_the_lock,
            without_any_answer_the_holder_learns_of_its_loss_before_its_lease_ends,
            an_answer_that_comes_after_the_end_does_not_revive_a_lost_guard,
        ]
        processes: []
    }
    expiry {
        every: [
            a_lease_without_a_heartbeat_ends_after_its_ttl_not_earlier_and_not_much_later,
            an_expired_lease_is_reported_as_expired,
            leases_of_extreme_lengths_are_kept_or_refused_and_never_wrap,
            a_part_of_a_millisecond_is_rounded_up_and_never_to_nothing,
            the_holder_learns_from_its_own_clock_that_its_lease_has_ended,
            what_remains_only_goes_down_between_heartbeats_and_ends_at_nothing,
            what_the_store_says_remains_goes_down_too,
        ]
        outside: [
            expired_locks_leave_no_garbage,
        ]
        fragile: []
        processes: []
    }
    release {
        every: [
            a_release_after_the_end_says_so_and_leaves_the_next_holder_alone,
            a_release_after_the_end_frees_nothing_where_no_caller_came,
            dropping_a_guard_whose_lease_has_ended_leaves_the_next_holder_alone,
            there_is_nothing_to_release_of_a_lock_that_was_never_taken,
            a_second_release_never_frees_the_successors_lock,
            a_release_touches_no_other_name,
            each_guard_knows_for_itself_whether_it_holds,
            a_release_lets_in_one_waiter_and_no_second,
            a_release_tells_what_the_store_said,
            a_release_of_a_lost_lock_says_lost,
        ]
        outside: []
        fragile: [
            a_release_that_fails_is_reported_and_goes_on_in_the_background,
            dropping_a_guard_does_not_wait_for_the_store,
            a_release_while_a_heartbeat_hangs_ends_and_frees_the_lock,
        ]
        processes: []
    }
    force_release {
        every: [
            force_release_frees_the_lock_of_any_holder,
            force_release_lets_a_waiter_in,
            only_a_lock_whose_heart_has_stopped_is_stale,
            the_evicted_holder_learns_of_it_by_its_next_heartbeat,
            a_holder_of_the_same_locker_learns_of_it_at_once,
            the_evicted_holders_release_frees_nothing_of_the_next,
            a_takeover_by_force_gives_the_lock_to_the_new_and_cancels_the_old,
            a_lock_that_was_forced_is_taken_anew_with_a_larger_token,
        ]
        outside: []
        fragile: []
        processes: []
    }
    cancellation {
        every: [
            a_panic_under_the_lock_goes_on_and_the_lock_is_free_when_it_arrives,
            a_bodys_error_comes_back_and_the_lock_is_free,
            a_leaked_guards_lock_is_freed_by_at_most,
            at_most_tells_its_holder_before_another_can_have_the_lock,
            a_lock_outlives_the_runtime_that_took_it_and_can_be_dropped_without_one,
            a_runtime_that_ends_with_a_guard_inside_releases_it,
            a_release_whose_future_is_dropped_goes_on,
            after_a_shutdown_waiters_get_closed_and_holders_lost,
            a_task_that_awaits_the_loss_and_panics_or_blocks_stops_neither_heartbeat_nor_signal,
            a_guard_outlives_its_locker,
        ]
        outside: [
            a_bodys_result_is_kept_when_the_release_fails,
        ]
        fragile: [
            an_acquire_dropped_while_its_request_is_on_its_way_leaves_no_lock,
            a_body_cancelled_while_the_store_hangs_ends_released,
        ]
        processes: [
            a_process_that_aborts_leaves_the_lock_to_its_ttl,
            a_killed_process_leaves_a_lock_that_its_ttl_frees_with_a_larger_token,
            a_process_that_shuts_down_on_sigterm_leaves_its_lock_free_at_once,
            a_process_that_was_stopped_past_its_lease_makes_no_effect_that_it_checks,
            a_process_started_by_the_holder_keeps_nothing_when_the_holder_dies,
        ]
    }
    names {
        every: [
            strange_names_are_locks_of_their_own,
            an_empty_name_is_refused,
            a_name_that_is_too_long_is_refused_and_never_cut_short,
            a_prefix_keeps_locks_apart_and_is_a_part_of_the_key,
            names_made_of_parts_never_collide,
            keys_stay_as_they_are_from_version_to_version,
            the_keys_of_fencing_counters_are_no_locks,
        ]
        outside: []
        fragile: []
        processes: [
            the_locale_does_not_change_a_name,
        ]
    }
    introspection {
        every: [
            every_caller_sees_that_it_is_held_and_only_the_owner_holds_it,
            a_free_lock_has_no_holder_and_no_time_left,
            the_age_of_the_last_heartbeat_is_reported_and_a_heartbeat_resets_it,
            every_error_names_its_lock,
            a_holder_that_was_evicted_does_not_claim_to_hold,
            code_can_tell_whether_it_runs_under_the_lock,
            the_last_holder_and_how_it_ended_can_be_read,
        ]
        outside: []
        fragile: [
            an_observer_that_cannot_see_gets_an_error_and_never_free,
            a_store_that_is_gone_is_named_with_the_lock,
        ]
        processes: []
    }
    fencing {
        every: [
            tokens_only_grow_however_a_holding_ends,
            a_heartbeat_keeps_the_token_and_an_acquisition_changes_it,
            tokens_are_unique_and_in_the_order_of_the_acquisitions,
            a_resource_that_keeps_the_largest_token_refuses_an_overtaken_holder,
        ]
        outside: [
            a_token_grows_even_where_the_record_of_the_last_is_gone,
        ]
        fragile: []
        processes: [
            the_token_of_a_later_process_is_larger,
        ]
    }
    scheduler {
        every: [
            a_job_that_ends_early_keeps_its_lock_until_the_minimum,
            a_job_that_took_longer_than_the_minimum_frees_its_lock_at_once,
            what_at_least_keeps_is_shown_as_held_and_is_never_stale,
            lengths_that_make_no_sense_are_refused,
            a_body_does_not_run_while_the_lock_is_busy_and_its_caller_learns_of_it,
            two_schedulers_with_skewed_clocks_run_a_short_job_once,
            what_is_left_of_the_minimum_is_counted_when_the_lock_is_released,
            what_a_body_returns_comes_through,
            a_body_that_fails_frees_its_lock,
            a_late_finisher_does_not_free_the_lock_of_the_next_run,
            methods_generics_and_names_from_arguments_run_under_their_own_locks,
            lengths_come_from_the_attribute_the_locker_or_the_run_time,
            a_function_without_the_attribute_takes_no_lock,
            a_loss_during_the_body_cancels_it_or_lets_it_finish_as_on_lost_says,
            every_task_that_awaits_the_loss_learns_of_it_once,
            a_leader_that_was_evicted_competes_again_and_leads_with_a_larger_token,
        ]
        outside: []
        fragile: []
        processes: []
    }
}

/// Every case runs for every store, but for what a store declares that it can't.
#[test]
fn every_case_runs_for_every_store_or_says_why_not() {
    let listed = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--list", "--format", "terse"])
        .output()
        .unwrap();
    let listed = String::from_utf8(listed.stdout).unwrap();
    let tests: std::collections::HashSet<&str> = listed
        .lines()
        .filter_map(|line| line.strip_suffix(": test"))
        .collect();
    for case in all_cases() {
        for store in ["redis", "cluster", "sentinel", "dir", "memory"] {
            let test = format!("{store}_store::{}::{}", case.section, case.name);
            let runs = tests.contains(test.as_str());
            match store::lacking(store, case.need) {
                None => assert!(runs, "{test} is missing"),
                Some(why) => assert!(!runs && why.len() > 20, "{test} runs, though {why}"),
            }
        }
    }
}

/// The text of every section.
const TEXTS: &[(&str, &str)] = &[
    ("acquire", include_str!("acquire.rs")),
    ("cancellation", include_str!("cancellation.rs")),
    ("expiry", include_str!("expiry.rs")),
    ("fencing", include_str!("fencing.rs")),
    ("force_release", include_str!("force_release.rs")),
    ("heartbeat", include_str!("heartbeat.rs")),
    ("introspection", include_str!("introspection.rs")),
    ("queue", include_str!("queue.rs")),
    ("names", include_str!("names.rs")),
    ("release", include_str!("release.rs")),
    ("scheduler", include_str!("scheduler.rs")),
    ("try_acquire", include_str!("try_acquire.rs")),
    ("waiting", include_str!("waiting.rs")),
];

/// The text of the test files that have lines of the list, too.
const BESIDE: &[&str] = &[
    include_str!("../server/connection_loss.rs"),
    include_str!("../attribute/current.rs"),
    include_str!("../waiting/dead_waiter.rs"),
    include_str!("../lock/events.rs"),
    include_str!("../lock/fencing_tokens.rs"),
    include_str!("../waiting/many_waiters.rs"),
    include_str!("../attribute/nested.rs"),
    include_str!("../waiting/no_notifications.rs"),
];

#[test]
fn every_case_that_is_written_is_in_the_list() {
    for (section, text) in TEXTS {
        let written: Vec<&str> = text
            .split("\npub(crate) fn ")
            .skip(1)
            .filter_map(|function| function.split_once('('))
            .filter(|(_, rest)| rest.trim_start().starts_with("place: &dyn Place"))
            .map(|(name, _)| name)
            .collect();
        let cases = all_cases();
        let mut listed: Vec<&str> = cases
            .iter()
            .filter(|case| case.section == *section)
            .map(|case| case.name)
            .collect();
        let mut sorted = written.clone();
        sorted.sort_unstable();
        listed.sort_unstable();
        assert!(!written.is_empty(), "{section}");
        assert_eq!(sorted, listed, "{section}");
    }
}

/// The numbers that the documentation of a case begins with: `/// 38, 46: …`.
fn numbers(text: &str) -> impl Iterator<Item = u16> {
    text.lines()
        .filter_map(|line| line.strip_prefix("/// "))
        .flat_map(|line| {
            line.split(", ").map_while(|part| {
                let digits = part.find(|c: char| !c.is_ascii_digit());
                part[..digits.unwrap_or(part.len())].parse().ok()
            })
        })
}

#[test]
fn every_line_of_the_list_has_a_test_or_a_reason() {
    let texts = TEXTS.iter().map(|(_, text)| text).chain(BESIDE);
    let tested: std::collections::BTreeSet<u16> = texts.flat_map(|text| numbers(text)).collect();
    for line in SECTIONS.iter().flat_map(|(first, last)| *first..=*last) {
        let reason = NOT_HERE.iter().find(|(number, _)| *number == line);
        assert!(
            tested.contains(&line) != reason.is_some(),
            "line {line}: tested {}, and a reason not to: {}",
            tested.contains(&line),
            reason.is_some()
        );
    }
}
