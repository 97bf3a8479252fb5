//! What time it is for a lease in a directory: one time for all processes of the
//! machine, which the wall clock cannot move.
//!
//! | system | clock | how boots are told apart |
//! |---|---|---|
//! | Linux | `CLOCK_BOOTTIME`, freed of a time namespace's offset | the kernel's boot id |
//! | macOS, BSD | `CLOCK_MONOTONIC` | by its start at zero |
//! | others | the wall clock: a jump forward ends leases early | never needed |

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use uuid::Uuid;

use crate::store::view::{self, LAST_DATE_MS};

/// How far apart the starts of two boots must lie, by the wall clock, to be two.
/// One boot's start moves by what the wall clock is set, seconds at most while a
/// machine runs well; two boots lie apart by a whole uptime and a restart.
const SAME_START: Duration = Duration::from_secs(5);

/// One reading of both clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BootTime {
    /// Nanoseconds of the machine's steady clock: by these leases are judged.
    pub(super) up_ns: u64,
    /// Microseconds of the wall clock: for people and for fencing tokens.
    pub(super) wall_us: u64,
    /// Which boot the steady clock counts from, where the system can tell.
    pub(super) boot: Option<Uuid>,
}

/// The boot in which a record was written, and when in it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Boot {
    pub(super) id: Option<Uuid>,
    /// When it began, in milliseconds of the wall clock as it was at the writing.
    pub(super) began_ms: u64,
}

impl BootTime {
    pub(super) fn wall_ms(&self) -> u64 {
        (self.wall_us / 1_000).min(LAST_DATE_MS)
    }

    pub(super) fn boot(&self) -> Boot {
        Boot {
            id: self.boot,
            began_ms: self.wall_ms().saturating_sub(self.up_ns / 1_000_000),
        }
    }

    /// Whether what was written at `written_ns` of `boot` may be of this boot, so
    /// that its lease may still run. In doubt yes: that costs a wait of one lease
    /// at most, while a wrong no would let two holders in.
    ///
    /// A different boot id alone is no proof: containers share a kernel, and some
    /// (systemd-nspawn) are shown a boot id of their own.
    pub(super) fn is_in(&self, boot: &Boot, written_ns: u64) -> bool {
        match (self.boot, boot.id) {
            (Some(ours), Some(theirs)) if ours == theirs => true,
            _ if self.up_ns < written_ns => false,
            (Some(_), Some(_)) => {
                let apart = self.boot().began_ms.abs_diff(boot.began_ms);
                Duration::from_millis(apart) <= SAME_START
            }
            _ => true,
        }
    }
}

/// A time of the wall clock in milliseconds, as the standard library has it.
pub(super) fn system_time(wall_ms: u64) -> SystemTime {
    view::unix(wall_ms.min(LAST_DATE_MS) * 1_000)
}

/// Reads the machine's clocks.
pub(super) fn now() -> BootTime {
    let wall = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let wall_us = u64::try_from(wall.as_micros()).unwrap_or(u64::MAX);
    let (up_ns, boot) = steady(wall);
    BootTime {
        up_ns,
        wall_us,
        boot,
    }
}

#[cfg(any(target_os = "linux", target_os = "android"))]
fn steady(_wall: Duration) -> (u64, Option<Uuid>) {
    use std::fs::read_to_string;
    use std::sync::OnceLock;

    /// Neither changes while a process lives.
    static BOOT: OnceLock<(Option<Uuid>, i128)> = OnceLock::new();
    let (boot, offset) = *BOOT.get_or_init(|| {
        let boot = read_to_string("/proc/sys/kernel/random/boot_id").ok();
        let offsets = read_to_string("/proc/self/timens_offsets").ok();
        (
            boot.and_then(|id| Uuid::parse_str(id.trim()).ok()),
            offsets.as_deref().and_then(boottime_offset).unwrap_or(0),
        )
    });
    let shown = read(rustix::time::ClockId::Boottime);
    let up = u64::try_from(i128::from(shown) - offset).unwrap_or(0);
    (up, boot)
}

/// By how many nanoseconds this time namespace's `CLOCK_BOOTTIME` runs ahead of
/// the machine's (`time_namespaces(7)`): two containers must see one time.
#[cfg(any(target_os = "linux", target_os = "android", test))]
fn boottime_offset(table: &str) -> Option<i128> {
    let mut fields = table
        .lines()
        .find_map(|line| line.strip_prefix("boottime"))?
        .split_whitespace();
    let seconds: i128 = fields.next()?.parse().ok()?;
    let nanos: i128 = fields.next()?.parse().ok()?;
    Some(seconds * 1_000_000_000 + nanos)
}

#[cfg(all(unix, not(any(target_os = "linux", target_os = "android"))))]
fn steady(_wall: Duration) -> (u64, Option<Uuid>) {
    (read(rustix::time::ClockId::Monotonic), None)
}

#[cfg(unix)]
fn read(clock: rustix::time::ClockId) -> u64 {
    let at = rustix::time::clock_gettime(clock);
    let seconds = u64::try_from(at.tv_sec).unwrap_or(0);
    let rest = u64::try_from(at.tv_nsec).unwrap_or(0);
    seconds.saturating_mul(1_000_000_000).saturating_add(rest)
}

/// The wall clock runs through restarts: one long boot.
#[cfg(not(unix))]
fn steady(wall: Duration) -> (u64, Option<Uuid>) {
    (view::nanos(wall), Some(Uuid::nil()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: u64 = 60_000_000_000;

    fn at(up_ns: u64, wall_ms: u64, boot: Option<u128>) -> BootTime {
        BootTime {
            up_ns,
            wall_us: wall_ms * 1_000,
            boot: boot.map(Uuid::from_u128),
        }
    }

    #[test]
    fn the_steady_clock_does_not_go_backward_and_names_its_boot() {
        let (before, after) = (now(), now());
        assert!(after.up_ns >= before.up_ns && before.up_ns > 0);
        assert_eq!(before.boot, after.boot);
        if cfg!(target_os = "linux") {
            assert!(before.boot.is_some());
        }
    }

    #[test]
    fn the_same_boot_is_known_by_its_id_whatever_the_wall_clock_does() {
        let written = at(5 * MINUTE, 1_000_000_000, Some(1));
        for wall in [0, 1, 999_999_999, 2_000_000_000, LAST_DATE_MS] {
            assert!(at(6 * MINUTE, wall, Some(1)).is_in(&written.boot(), written.up_ns));
        }
    }

    #[test]
    fn another_boot_is_known_at_once_even_at_the_same_uptime() {
        let written = at(5 * MINUTE, 1_000_000_000, Some(1));
        let hour_later = 1_003_600_000;
        for up in [0, 4 * MINUTE, 5 * MINUTE, 6 * MINUTE] {
            assert!(!at(up, hour_later, Some(2)).is_in(&written.boot(), written.up_ns));
        }
    }

    #[test]
    fn a_container_with_a_boot_id_of_its_own_does_not_end_the_hosts_leases() {
        let written = at(5 * MINUTE, 1_000_000_000, Some(1));
        assert!(at(6 * MINUTE, 1_000_060_000, Some(2)).is_in(&written.boot(), written.up_ns));
        assert!(at(6 * MINUTE, 1_000_063_000, Some(2)).is_in(&written.boot(), written.up_ns));
    }

    #[test]
    fn without_boot_ids_an_uptime_that_began_anew_is_another_boot() {
        let written = at(5 * MINUTE, 1_000_000_000, None);
        assert!(at(5 * MINUTE, 0, None).is_in(&written.boot(), written.up_ns));
        assert!(!at(5 * MINUTE - 1, 0, None).is_in(&written.boot(), written.up_ns));
        assert!(at(5 * MINUTE, 0, Some(1)).is_in(&written.boot(), written.up_ns));
    }

    #[test]
    fn the_offset_of_a_time_namespace_is_read() {
        let table = "monotonic           0         0\nboottime         -100         5\n";
        assert_eq!(boottime_offset(table), Some(-99_999_999_995));
        assert_eq!(boottime_offset("boottime 7 0"), Some(7_000_000_000));
        for broken in ["", "boottime", "boottime x 0", "monotonic 1 1"] {
            assert_eq!(boottime_offset(broken), None);
        }
    }

    #[test]
    fn times_beyond_every_calendar_are_capped() {
        assert_eq!(at(0, u64::MAX / 1_000, None).wall_ms(), LAST_DATE_MS);
        let shown = humantime::format_rfc3339_millis(system_time(u64::MAX)).to_string();
        assert_eq!(shown, "9999-12-31T23:59:59.999Z");
    }
}
