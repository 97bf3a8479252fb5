//! The text of a record file: one line a field, closed by a digest of all before
//! it, so that whatever is cut short, changed or foreign is told from a record.
//!
//! ```text
//! applock 1
//! beat 00000000101000000000 00000000161000000000 00000000060000000000 001789999900000 3d5e…
//! key QUEUE:reports
//! app reports
//! owner 6f1c…            unique to the acquisition
//! token 1790000000000000
//! instance web-1
//! host db7
//! pid 4711
//! phase held             or kept, released, forced
//! ended 1790000000000    only where it ended; milliseconds of the wall clock
//! taken 81000000000      when it was taken, nanoseconds of the uptime
//! wall 1790000000000     the same, milliseconds of the wall clock
//! boot 0a1b…             absent where the system has no boot id
//! sum 9c0d…
//! ```
//!
//! The second line is the heartbeat: when it was, when the lease ends, the ttl (all
//! three in nanoseconds, the first two of the uptime), when the machine started
//! (milliseconds of the wall clock), and a digest of its own. It has always the same
//! length and lies within the first 512 bytes, so it can be written in place: a disk
//! writes a sector at once or not at all.
//!
//! Fields come in this order. In texts `%` and control characters are written as
//! `%XX`. This is the format of every process that shares the directory: a change
//! needs a new number in the first line, and a place in `Damage::Newer`.

use std::fmt::{self, Write as _};
use std::sync::Arc;

use uuid::Uuid;

use super::text::{Fields, escape, line};
use super::time::{Boot, LAST_WALL_MS};
use crate::protocol::MAX_TOKEN;
use crate::store::OwnerId;

/// The largest record, in bytes: three texts of 64 KiB, each byte escaped, and the
/// rest. A larger file is none of ours and is not read.
pub(super) const MAX_RECORD: u64 = 1 << 20;

/// The first word of every record.
const MAGIC: &str = "applock";
const VERSION: &str = "1";

/// Where the heartbeat begins: after the first line.
pub(super) const HEARTBEAT_AT: u64 = 10;

/// Where the rest begins.
const BODY_AT: usize = 131;

/// What a record lacks whose heartbeat is wrong, or was being written.
pub(super) const HEARTBEAT: &str = "beat";

/// What stands between the digest of a record and every other use of SHA-1.
const SUM: Uuid = Uuid::from_u128(0x5b2f_4f0a_9d53_4e0d_8f21_7a61_70c4_b1d1);

/// The newest holding of a lock, be it over or not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Holding {
    pub(super) key: Arc<str>,
    pub(super) app: Option<String>,
    pub(super) name: Option<String>,
    pub(super) owner: OwnerId,
    pub(super) token: u64,
    pub(super) instance: String,
    pub(super) host: String,
    pub(super) pid: u32,
    pub(super) phase: Phase,
    pub(super) ttl_ns: u64,
    pub(super) taken_ns: u64,
    pub(super) beat_ns: u64,
    pub(super) end_ns: u64,
    pub(super) taken_ms: u64,
    pub(super) boot: Boot,
}

/// Where a holding stands. That a lease ran out is never written: it follows from
/// the time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Held,
    /// Released by its holder, but taken until the lease's end (`at_least`).
    Kept,
    Released {
        wall_ms: u64,
    },
    Forced {
        wall_ms: u64,
    },
}

/// Why a file is no record that we may use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Damage {
    Foreign,
    Newer,
    Broken(&'static str),
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Foreign => f.write_str("was not written by applock"),
            Self::Newer => f.write_str("was written by a newer version of applock"),
            Self::Broken(what) => write!(f, "is damaged (its {what} is missing or wrong)"),
        }
    }
}

impl Holding {
    pub(super) fn render(&self) -> String {
        let mut text = format!("{MAGIC} {VERSION}\n");
        text.push_str(&self.heartbeat());
        line(&mut text, "key", &escape(&self.key));
        if let Some(app) = &self.app {
            line(&mut text, "app", &escape(app));
        }
        if let Some(name) = &self.name {
            line(&mut text, "name", &escape(name));
        }
        line(&mut text, "owner", &self.owner);
        line(&mut text, "token", &self.token);
        line(&mut text, "instance", &escape(&self.instance));
        line(&mut text, "host", &escape(&self.host));
        line(&mut text, "pid", &self.pid);
        let (phase, ended) = match self.phase {
            Phase::Held => ("held", None),
            Phase::Kept => ("kept", None),
            Phase::Released { wall_ms } => ("released", Some(wall_ms)),
            Phase::Forced { wall_ms } => ("forced", Some(wall_ms)),
        };
        line(&mut text, "phase", &phase);
        if let Some(ended) = ended {
            line(&mut text, "ended", &ended);
        }
        line(&mut text, "taken", &self.taken_ns);
        line(&mut text, "wall", &self.taken_ms);
        if let Some(boot) = &self.boot.id {
            line(&mut text, "boot", boot);
        }
        // Without the heartbeat, which changes alone.
        let body = text.get(BODY_AT..).unwrap_or_default();
        let sum = Uuid::new_v5(&SUM, body.as_bytes());
        line(&mut text, "sum", &sum);
        text
    }

    /// The second line.
    pub(super) fn heartbeat(&self) -> String {
        let mut line = format!(
            "{:020} {:020} {:020} {:015} ",
            self.beat_ns, self.end_ns, self.ttl_ns, self.boot.began_ms
        );
        let sum = beat_sum(&line);
        line.insert_str(0, "beat ");
        // Writing to a String cannot fail.
        let _ = writeln!(line, "{sum}");
        line
    }

    pub(super) fn parse(bytes: &[u8]) -> Result<Self, Damage> {
        let first = bytes.split(|byte| *byte == b'\n').next().unwrap_or(bytes);
        match std::str::from_utf8(first)
            .ok()
            .and_then(|first| first.split_once(' '))
        {
            Some((MAGIC, VERSION)) => {}
            Some((MAGIC, other)) if other.parse::<u32>().is_ok() => return Err(Damage::Newer),
            _ => return Err(Damage::Foreign),
        }
        let text = std::str::from_utf8(bytes).map_err(|_| Damage::Broken("encoding"))?;
        let holding = Self::read(&mut Fields::of(text))?;
        // Whatever the fields say, only the very text that we would write passes:
        // nothing missing at the end, nothing after it, no second spelling.
        if holding.render() == text {
            Ok(holding)
        } else {
            Err(Damage::Broken("digest"))
        }
    }

    fn read(fields: &mut Fields<'_>) -> Result<Self, Damage> {
        fields.skip();
        let beat = fields.raw(HEARTBEAT)?;
        let number = |index| {
            let number = beat.split(' ').nth(index).and_then(|n| n.parse().ok());
            number.ok_or(Damage::Broken(HEARTBEAT))
        };
        let (beat_ns, end_ns, ttl_ns, began_ms) = (number(0)?, number(1)?, number(2)?, number(3)?);
        let told = beat.rfind(' ').and_then(|at| beat.get(..=at));
        let sum = told.map(|told| beat_sum(told).to_string());
        if began_ms > LAST_WALL_MS || beat.split(' ').nth(4) != sum.as_deref() {
            return Err(Damage::Broken(HEARTBEAT));
        }
        let key = fields.text("key")?.into();
        let app = fields.text_if_there("app")?;
        let name = fields.text_if_there("name")?;
        let owner = fields.value("owner")?;
        let token = fields.at_most("token", MAX_TOKEN)?;
        let instance = fields.text("instance")?;
        let host = fields.text("host")?;
        let pid = fields.value("pid")?;
        let phase = match fields.raw("phase")? {
            "held" => Phase::Held,
            "kept" => Phase::Kept,
            "released" => Phase::Released {
                wall_ms: fields.at_most("ended", LAST_WALL_MS)?,
            },
            "forced" => Phase::Forced {
                wall_ms: fields.at_most("ended", LAST_WALL_MS)?,
            },
            _ => return Err(Damage::Broken("phase")),
        };
        Ok(Self {
            key,
            app,
            name,
            owner,
            token,
            instance,
            host,
            pid,
            phase,
            beat_ns,
            end_ns,
            ttl_ns,
            taken_ns: fields.value("taken")?,
            taken_ms: fields.at_most("wall", LAST_WALL_MS)?,
            boot: Boot {
                began_ms,
                id: fields.value_if_there("boot")?,
            },
        })
    }
}

/// The digest of what a heartbeat tells.
fn beat_sum(told: &str) -> Uuid {
    Uuid::new_v5(&SUM, told.as_bytes())
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in super::super) fn sample() -> Holding {
        Holding {
            key: "QUEUE:reports:eu".into(),
            app: Some("reports".into()),
            name: Some("eu".into()),
            owner: Uuid::from_u128(7),
            token: 1_790_000_000_000_000,
            instance: "web-1".into(),
            host: "db7".into(),
            pid: 4711,
            phase: Phase::Held,
            ttl_ns: 60_000_000_000,
            taken_ns: 81_000_000_000,
            beat_ns: 101_000_000_000,
            end_ns: 161_000_000_000,
            taken_ms: 1_790_000_000_000,
            boot: Boot {
                id: Some(Uuid::from_u128(9)),
                began_ms: 1_789_999_919_000,
            },
        }
    }

    #[test]
    fn every_holding_is_read_back_as_it_was_written() {
        let long = "\0/%\n".repeat(16_384);
        for text in [
            "",
            " ",
            "a",
            "%41",
            "\n",
            "\r\n",
            "\0\u{7f}\u{85}",
            "ıİ🦀\u{2028}",
            "sum x\nend",
            &long,
        ] {
            for phase in [
                Phase::Held,
                Phase::Kept,
                Phase::Released { wall_ms: 0 },
                Phase::Forced {
                    wall_ms: LAST_WALL_MS,
                },
            ] {
                for id in [None, Some(Uuid::max())] {
                    if text.len() > 1_000 && (phase != Phase::Kept || id.is_none()) {
                        continue; // Once is enough for the longest.
                    }
                    let holding = Holding {
                        key: text.into(),
                        app: Some(text.into()),
                        name: (phase != Phase::Held).then(|| text.into()),
                        instance: text.into(),
                        host: text.into(),
                        phase,
                        end_ns: u64::MAX,
                        boot: Boot { id, began_ms: 0 },
                        ..sample()
                    };
                    let written = holding.render();
                    assert!(written.len() as u64 <= MAX_RECORD);
                    assert_eq!(Holding::parse(written.as_bytes()), Ok(holding));
                }
            }
        }
    }

    #[test]
    fn the_text_of_version_1_stays_as_it_is() {
        let golden = "applock 1\n\
            beat 00000000101000000000 00000000161000000000 00000000060000000000 \
            001789999919000 0ac6b3fa-b09e-57a8-a70b-399607310931\n\
            key QUEUE:reports:eu\napp reports\nname eu\n\
            owner 00000000-0000-0000-0000-000000000007\ntoken 1790000000000000\n\
            instance web-1\nhost db7\npid 4711\nphase held\ntaken 81000000000\n\
            wall 1790000000000\nboot 00000000-0000-0000-0000-000000000009\n\
            sum 5ab88191-2f7b-586d-9a57-9d5d31969bc0\n";
        assert_eq!(sample().render(), golden);
    }

    #[test]
    fn the_heartbeat_lies_in_the_first_sector_and_always_has_the_same_length() {
        let far = Holding {
            beat_ns: u64::MAX,
            end_ns: u64::MAX,
            ttl_ns: u64::MAX,
            boot: Boot {
                id: None,
                began_ms: LAST_WALL_MS,
            },
            ..sample()
        };
        for holding in [sample(), far] {
            let at = usize::try_from(HEARTBEAT_AT).unwrap();
            let (text, line) = (holding.render(), holding.heartbeat());
            assert_eq!(text.get(at..BODY_AT), Some(line.as_str()));
            assert!(text.get(BODY_AT..).unwrap().starts_with("key "));
        }
        const { assert!(BODY_AT <= 512) }
    }

    #[test]
    fn a_record_cut_short_anywhere_is_damaged() {
        let written = sample().render();
        for length in 0..written.len() {
            assert!(
                Holding::parse(&written.as_bytes()[..length]).is_err(),
                "{length}"
            );
        }
    }

    #[test]
    fn a_record_with_any_bit_changed_is_damaged() {
        let written = sample().render().into_bytes();
        for place in 0..written.len() {
            for bit in 0..8 {
                let mut changed = written.clone();
                changed[place] ^= 1 << bit;
                assert!(Holding::parse(&changed).is_err(), "byte {place}, bit {bit}");
            }
        }
    }

    #[test]
    fn garbage_foreign_and_newer_files_are_told_apart() {
        let foreign: [&[u8]; 7] = [
            b"",
            b"\n",
            b"4711\n",
            b"applock",
            b"applock one",
            b"\xff\xfe",
            &[0; 4096],
        ];
        for bytes in foreign {
            assert_eq!(Holding::parse(bytes), Err(Damage::Foreign), "{bytes:?}");
        }
        assert_eq!(
            Holding::parse(b"applock 2\nwho knows\n"),
            Err(Damage::Newer)
        );
        assert_eq!(Holding::parse(b"applock 1\n"), Err(Damage::Broken("beat")));
        assert_eq!(
            Holding::parse(b"applock 1\nkey \xff\n"),
            Err(Damage::Broken("encoding"))
        );
    }

    #[test]
    fn anything_before_between_or_after_is_damage() {
        let written = sample().render();
        for changed in [
            format!("\n{written}"),
            format!("{written}\n"),
            format!("{written}{written}"),
            written.replace('\n', "\r\n"),
            written.replace("pid 4711", "pid +4711"),
            written.replace("pid 4711", "pid 4711\npid 4711"),
            written.replace("token 1790000000000000", "token 9007199254740992"),
            written.replace("pid 4711\n", ""),
        ] {
            assert!(Holding::parse(changed.as_bytes()).is_err(), "{changed}");
        }
    }
}
