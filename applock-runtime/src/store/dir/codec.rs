//! The text of a lock's record, as JSON: who holds it, or held it last. (That of its wait queue
//! is in `queue_file.rs`.)
//!
//! ```text
//! applock 3
//! {"heartbeat_at":101000000000,"expires_at":161000000000,"claimed":false,…}      3d5e…
//! {"key":"QUEUE:reports","app":"reports","owner":"6f1c…","token":1790000000000000,…}
//! {"sum":"9c0d…"}
//! ```
//!
//! The second line of a record is the heartbeat: what a renewal changes, and a digest of it.
//! It is padded with spaces to one length and lies within the first 512 bytes, so it can be written in
//! place: a disk writes a sector at once or not at all. Times are nanoseconds of the uptime, and
//! microseconds or milliseconds of the wall clock where their names say so.
//!
//! The danger that this file guards against: a record that was cut short, changed, or written by
//! another program must never be taken for a lock that is free. So only the very text that
//! we would write passes, and each text is closed by a digest. This is the format of every process that
//! shares the directory: a change needs a new number in the first line.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::boot_clock::{Boot, BootTime};
use crate::protocol::{Begun, Holding, MAX_TOKEN, Outcome, Phase, StoreTime};
use crate::store::view::{LAST_DATE_MS, Who};
use crate::store::{By, Identity};

/// The largest record, in bytes: of two holdings three texts of 64 KiB each, each byte escaped,
/// and the rest. A
/// larger file is none of ours and is not read.
pub(super) const MAX_RECORD: u64 = 4 << 20;

/// The first word of every record.
const RECORD: &str = "applock";
const VERSION: u32 = 3;

/// Where the heartbeat begins: after the first line.
pub(super) const HEARTBEAT_AT: u64 = 10;

/// How long the JSON of a heartbeat is, with its padding.
const PADDED: usize = 140;

/// What a record lacks whose heartbeat is wrong, or was being written.
pub(super) const HEARTBEAT: &str = "heartbeat";

/// What stands between the digest of a file and every other use of SHA-1.
pub(super) const SUM: Uuid = Uuid::from_u128(0x5b2f_4f0a_9d53_4e0d_8f21_7a61_70c4_b1d1);

/// The protocol's time counts from so long before the machine's start, so that times of an
/// earlier start can be expressed in it.
const BEFORE_START: u64 = 1 << 62;

/// The newest holding of a lock, and the start of the machine in which it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RecordFile {
    pub(super) holding: Holding<Who, By>,
    /// The newest before it that ended well.
    pub(super) success: Option<Holding<Who, By>>,
    pub(super) boot: Boot,
}

/// Why a file is none that we may use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Damage {
    Foreign,
    Older,
    Newer,
    Broken(&'static str),
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Foreign => f.write_str("was not written by applock"),
            Self::Older => f.write_str("was written by an older version of applock"),
            Self::Newer => f.write_str("was written by a newer version of applock"),
            Self::Broken(what) => write!(f, "is damaged (its {what} is missing or wrong)"),
        }
    }
}

/// What a renewal writes.
#[derive(Serialize, Deserialize)]
struct HeartbeatLine {
    heartbeat_at: u64,
    expires_at: u64,
    /// It was granted to a waiter, and has no heartbeat yet.
    claimed: bool,
    boot_began_ms: u64,
}

/// The rest of a record.
#[derive(Serialize, Deserialize)]
struct Body {
    key: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    app: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    function: Option<String>,
    owner: Uuid128,
    token: u64,
    instance: String,
    host: String,
    pid: u32,
    phase: WrittenPhase,
    /// How it ended, where its holder has said it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    outcome: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    forced_by: Option<Operator>,
    /// Its number, and the token of the run that began it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    tick: Option<(u64, u64)>,
    ttl: u64,
    remember: u64,
    #[serde(default, skip_serializing_if = "is_zero")]
    ticks_remember: u64,
    acquired_at: u64,
    acquired_micros: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    boot: Option<Uuid128>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    success: Option<Box<Past>>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// An earlier holding.
#[derive(Serialize, Deserialize)]
struct Past {
    heartbeat_at: u64,
    expires_at: u64,
    holding: Body,
}

/// Who has ended a holding by force.
#[derive(Serialize, Deserialize)]
struct Operator {
    instance: String,
    host: String,
    pid: u32,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    reason: String,
}

/// [`Phase`], but for what stands in the heartbeat.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum WrittenPhase {
    Held,
    Kept,
    Released { at: u64, micros: u64 },
    Forced { at: u64, micros: u64 },
}

/// 128 bits, as text.
#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(super) struct Uuid128(pub(super) u128);

impl From<Uuid128> for String {
    fn from(id: Uuid128) -> Self {
        format!("{:032x}", id.0)
    }
}

impl TryFrom<String> for Uuid128 {
    type Error = std::num::ParseIntError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        u128::from_str_radix(&text, 16).map(Self)
    }
}

/// The protocol's time, of a reading of the machine's clocks.
pub(super) fn store_time(now: &BootTime) -> StoreTime {
    StoreTime {
        at: in_protocol(now.up_ns),
        micros: now.wall_us,
    }
}

pub(super) fn in_protocol(up_ns: u64) -> u64 {
    up_ns.saturating_add(BEFORE_START)
}

/// A time of the protocol's, in nanoseconds of the uptime.
pub(super) fn up_ns(at: u64) -> u64 {
    at.saturating_sub(BEFORE_START)
}

impl Body {
    /// Without what belongs to the record as a whole.
    fn of(holding: &Holding<Who, By>) -> Self {
        let who = &holding.who;
        let end = |at: StoreTime| (up_ns(at.at), at.micros);
        Self {
            key: who.key.to_string(),
            app: who.app.as_deref().map(str::to_owned),
            name: who.name.as_deref().map(str::to_owned),
            function: who.function.as_deref().map(str::to_owned),
            owner: Uuid128(holding.owner),
            token: holding.token,
            instance: who.identity.instance.clone(),
            host: who.identity.host.clone(),
            pid: who.identity.pid,
            phase: match holding.phase {
                Phase::Held | Phase::Claimed => WrittenPhase::Held,
                Phase::Kept => WrittenPhase::Kept,
                Phase::Released(at) => {
                    let (at, micros) = end(at);
                    WrittenPhase::Released { at, micros }
                }
                Phase::Forced(at) => {
                    let (at, micros) = end(at);
                    WrittenPhase::Forced { at, micros }
                }
            },
            outcome: (holding.outcome != Outcome::Released)
                .then(|| holding.outcome.name().to_owned()),
            forced_by: holding.forced_by.as_ref().map(|by| Operator {
                instance: by.identity.instance.clone(),
                host: by.identity.host.clone(),
                pid: by.identity.pid,
                reason: by.reason.clone(),
            }),
            tick: holding.tick.map(|begun| (begun.number, begun.token)),
            ttl: holding.ttl,
            remember: holding.remember,
            ticks_remember: holding.ticks_remember,
            acquired_at: up_ns(holding.acquired.at),
            acquired_micros: holding.acquired.micros,
            boot: None,
            success: None,
        }
    }

    /// `None`: an outcome that there is not.
    fn into_holding(
        self,
        heartbeat_at: u64,
        expires_at: u64,
        claimed: bool,
    ) -> Option<Holding<Who, By>> {
        let end = |at, micros| StoreTime {
            at: in_protocol(at),
            micros,
        };
        Some(Holding {
            owner: self.owner.0,
            forced_by: self.forced_by.map(|by| By {
                identity: Arc::new(Identity {
                    instance: by.instance,
                    host: by.host,
                    pid: by.pid,
                }),
                reason: by.reason,
            }),
            who: Who {
                key: self.key.into(),
                app: self.app.map(Arc::from),
                name: self.name.map(Arc::from),
                function: self.function.map(Arc::from),
                identity: Arc::new(Identity {
                    instance: self.instance,
                    host: self.host,
                    pid: self.pid,
                }),
            },
            token: self.token,
            phase: match self.phase {
                WrittenPhase::Held if claimed => Phase::Claimed,
                WrittenPhase::Held => Phase::Held,
                WrittenPhase::Kept => Phase::Kept,
                WrittenPhase::Released { at, micros } => Phase::Released(end(at, micros)),
                WrittenPhase::Forced { at, micros } => Phase::Forced(end(at, micros)),
            },
            outcome: match self.outcome {
                Some(name) => Outcome::named(&name)?,
                None => Outcome::Released,
            },
            tick: self.tick.map(|(number, token)| Begun { number, token }),
            ttl: self.ttl,
            remember: self.remember,
            ticks_remember: self.ticks_remember,
            acquired: end(self.acquired_at, self.acquired_micros),
            heartbeat_at: in_protocol(heartbeat_at),
            expires_at: in_protocol(expires_at),
        })
    }
}

impl RecordFile {
    /// The holding as it is now: one of an earlier start of the machine is over.
    pub(super) fn into_holding(self, now: &BootTime) -> Holding<Who, By> {
        self.into_holdings(now).0
    }

    /// The same, and the newest before it that ended well.
    pub(super) fn into_holdings(
        self,
        now: &BootTime,
    ) -> (Holding<Who, By>, Option<Holding<Who, By>>) {
        let at = in_protocol(now.up_ns);
        let is_now = now.is_in(&self.boot, up_ns(self.holding.heartbeat_at));
        let as_now = |mut holding: Holding<Who, By>| {
            if !is_now && holding.expires_at > at {
                let by = holding.expires_at - at;
                holding.expires_at = at;
                holding.heartbeat_at = holding.heartbeat_at.saturating_sub(by);
                holding.acquired.at = holding.acquired.at.saturating_sub(by);
            }
            holding
        };
        (as_now(self.holding), self.success.map(as_now))
    }

    pub(super) fn render(&self) -> String {
        let body = Body {
            boot: self.boot.id.map(|id| Uuid128(id.as_u128())),
            success: self.success.as_ref().map(|success| {
                Box::new(Past {
                    heartbeat_at: up_ns(success.heartbeat_at),
                    expires_at: up_ns(success.expires_at),
                    holding: Body::of(success),
                })
            }),
            ..Body::of(&self.holding)
        };
        // Without the heartbeat, which changes alone.
        let body = json(&body);
        let sum = sum(&body);
        format!("{RECORD} {VERSION}\n{}{body}\n{sum}\n", self.heartbeat())
    }

    /// The second line.
    pub(super) fn heartbeat(&self) -> String {
        let beat = json(&HeartbeatLine {
            heartbeat_at: up_ns(self.holding.heartbeat_at),
            expires_at: up_ns(self.holding.expires_at),
            claimed: self.holding.phase == Phase::Claimed,
            boot_began_ms: self.boot.began_ms,
        });
        let padded = format!("{beat:PADDED$}");
        let sum = Uuid::new_v5(&SUM, padded.as_bytes());
        format!("{padded} {sum}\n")
    }

    pub(super) fn parse(bytes: &[u8]) -> Result<Self, Damage> {
        let text = version_of(bytes, RECORD, VERSION)?;
        let mut lines = text.lines().skip(1);
        let heartbeat = lines.next().unwrap_or_default();
        let (padded, sum) = heartbeat
            .split_at_checked(PADDED)
            .ok_or(Damage::Broken(HEARTBEAT))?;
        let expected = Uuid::new_v5(&SUM, padded.as_bytes()).to_string();
        if sum.strip_prefix(' ') != Some(&expected) {
            return Err(Damage::Broken(HEARTBEAT));
        }
        let beat: HeartbeatLine =
            serde_json::from_str(padded.trim_end()).map_err(|_| Damage::Broken(HEARTBEAT))?;
        let body: Body = serde_json::from_str(lines.next().unwrap_or_default())
            .map_err(|_| Damage::Broken("body"))?;
        let is_possible = body.token <= MAX_TOKEN && beat.boot_began_ms <= LAST_DATE_MS;
        // Whatever the fields say, only the very text that we would write passes: nothing missing
        // at the end, nothing after it, no second spelling.
        read(&beat, body)
            .filter(|record| is_possible && record.render() == text)
            .ok_or(Damage::Broken("digest"))
    }
}

fn read(beat: &HeartbeatLine, mut body: Body) -> Option<RecordFile> {
    let boot = Boot {
        id: body.boot.map(|id| Uuid::from_u128(id.0)),
        began_ms: beat.boot_began_ms,
    };
    let past = body.success.take();
    let success = match past.map(|past| *past) {
        Some(past) => Some(
            past.holding
                .into_holding(past.heartbeat_at, past.expires_at, false)?,
        ),
        None => None,
    };
    Some(RecordFile {
        holding: body.into_holding(beat.heartbeat_at, beat.expires_at, beat.claimed)?,
        success,
        boot,
    })
}

/// The text, if its first line says that it is of this kind and version.
pub(super) fn version_of<'a>(bytes: &'a [u8], kind: &str, known: u32) -> Result<&'a str, Damage> {
    let first = bytes.split(|byte| *byte == b'\n').next().unwrap_or(bytes);
    let first = std::str::from_utf8(first).ok();
    let version = match first.and_then(|first| first.split_once(' ')) {
        Some((found, version)) if found == kind => version.parse::<u32>().ok(),
        _ => None,
    };
    match version {
        Some(version) if version == known => {
            std::str::from_utf8(bytes).map_err(|_| Damage::Broken("encoding"))
        }
        Some(version) if version < known => Err(Damage::Older),
        Some(_) => Err(Damage::Newer),
        None => Err(Damage::Foreign),
    }
}

fn sum(body: &str) -> String {
    format!("{{\"sum\":\"{}\"}}", Uuid::new_v5(&SUM, body.as_bytes()))
}

pub(super) fn json(value: &impl Serialize) -> String {
    // Structs of texts and numbers can always be written; an empty text is damage when it is read.
    serde_json::to_string(value).unwrap_or_default()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in super::super) fn sample() -> RecordFile {
        RecordFile {
            holding: Holding {
                owner: 7,
                who: Who {
                    key: "QUEUE:reports:eu".into(),
                    app: Some("reports".into()),
                    name: Some("eu".into()),
                    function: None,
                    identity: Arc::new(Identity {
                        instance: "web-1".into(),
                        host: "db7".into(),
                        pid: 4711,
                    }),
                },
                token: 1_790_000_000_000_000,
                phase: Phase::Held,
                outcome: Outcome::Released,
                forced_by: None,
                tick: None,
                ttl: 60_000_000_000,
                remember: 604_800_000_000_000,
                ticks_remember: 0,
                acquired: StoreTime {
                    at: in_protocol(81_000_000_000),
                    micros: 1_790_000_000_000_000,
                },
                heartbeat_at: in_protocol(101_000_000_000),
                expires_at: in_protocol(161_000_000_000),
            },
            success: None,
            boot: Boot {
                id: Some(Uuid::from_u128(9)),
                began_ms: 1_789_999_919_000,
            },
        }
    }

    fn end() -> StoreTime {
        StoreTime {
            at: in_protocol(90_000_000_000),
            micros: 1_790_000_009_000_000,
        }
    }

    #[test]
    fn every_record_is_read_back_as_it_was_written() {
        let long = "\0/%\n".repeat(16_384);
        let texts = [
            "",
            " ",
            "a",
            "\"",
            "\\u0041",
            "\n",
            "\r\n",
            "\0\u{7f}\u{85}",
            "ıİ🦀\u{2028}",
            &long,
        ];
        for text in texts {
            for phase in [
                Phase::Held,
                Phase::Claimed,
                Phase::Kept,
                Phase::Released(end()),
                Phase::Forced(end()),
            ] {
                let mut record = sample();
                record.holding.phase = phase;
                record.holding.who = Who {
                    key: text.into(),
                    app: Some(text.into()),
                    name: (phase != Phase::Held).then(|| text.into()),
                    function: (phase != Phase::Kept).then(|| text.into()),
                    identity: Arc::new(Identity {
                        instance: text.into(),
                        host: text.into(),
                        pid: u32::MAX,
                    }),
                };
                record.holding.expires_at = u64::MAX;
                record.holding.ticks_remember = u64::MAX;
                record.holding.tick = Some(Begun {
                    number: u64::MAX,
                    token: MAX_TOKEN,
                });
                record.holding.forced_by = Some(By {
                    identity: Arc::clone(&record.holding.who.identity),
                    // As long as a reason may be.
                    reason: text.chars().take(200).collect(),
                });
                record.success = (phase != Phase::Kept).then(|| Holding {
                    outcome: Outcome::Ok,
                    phase: Phase::Released(end()),
                    tick: None,
                    ..record.holding.clone()
                });
                record.holding.outcome = Outcome::Cancelled;
                record.boot.id = (phase == Phase::Held).then(Uuid::max);
                let written = record.render();
                assert!(written.len() as u64 <= MAX_RECORD);
                assert_eq!(RecordFile::parse(written.as_bytes()), Ok(record));
            }
        }
    }

    #[test]
    fn the_text_of_version_3_stays_as_it_is() {
        let golden = concat!(
            "applock 3\n",
            r#"{"heartbeat_at":101000000000,"expires_at":161000000000,"claimed":false,"#,
            r#""boot_began_ms":1789999919000}                                        "#,
            "4e660d7b-2764-52bc-bea6-a1fd52275439\n",
            r#"{"key":"QUEUE:reports:eu","app":"reports","name":"eu","#,
            r#""owner":"00000000000000000000000000000007","token":1790000000000000,"#,
            r#""instance":"web-1","host":"db7","pid":4711,"phase":"held","ttl":60000000000,"#,
            r#""remember":604800000000000,"acquired_at":81000000000,"acquired_micros":1790000000000000,"#,
            r#""boot":"00000000000000000000000000000009"}"#,
            "\n",
            r#"{"sum":"b734b6cd-6f0c-5181-81d7-58efae1a4d12"}"#,
            "\n",
        );
        assert_eq!(sample().render(), golden);
    }

    #[test]
    fn the_heartbeat_lies_in_the_first_sector_and_always_has_the_same_length() {
        let mut far = sample();
        far.holding.phase = Phase::Claimed;
        far.holding.heartbeat_at = u64::MAX;
        far.holding.expires_at = u64::MAX;
        far.boot.began_ms = LAST_DATE_MS;
        for record in [sample(), far] {
            let at = usize::try_from(HEARTBEAT_AT).unwrap();
            let (text, line) = (record.render(), record.heartbeat());
            assert_eq!(line.len(), PADDED + 1 + 36 + 1);
            assert!(at + line.len() <= 512);
            assert_eq!(text.get(at..at + line.len()), Some(line.as_str()));
            assert!(text[at + line.len()..].starts_with("{\"key\""));
        }
    }

    #[test]
    fn a_record_cut_short_anywhere_is_damaged() {
        let written = sample().render();
        for length in 0..written.len() {
            let short = &written.as_bytes()[..length];
            assert!(RecordFile::parse(short).is_err(), "{length}");
        }
    }

    #[test]
    fn a_record_with_any_bit_changed_is_damaged() {
        let written = sample().render().into_bytes();
        for place in 0..written.len() {
            for bit in 0..8 {
                let mut changed = written.clone();
                changed[place] ^= 1 << bit;
                let parsed = RecordFile::parse(&changed);
                assert!(parsed.is_err(), "byte {place}, bit {bit}");
            }
        }
    }

    #[test]
    fn garbage_foreign_older_and_newer_files_are_told_apart() {
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
            assert_eq!(RecordFile::parse(bytes), Err(Damage::Foreign), "{bytes:?}");
        }
        assert_eq!(
            RecordFile::parse(b"applock 1\nbeat 0\n"),
            Err(Damage::Older)
        );
        assert_eq!(
            RecordFile::parse(b"applock 4\nwho knows\n"),
            Err(Damage::Newer)
        );
        assert_eq!(
            RecordFile::parse(b"applock 3\n"),
            Err(Damage::Broken(HEARTBEAT))
        );
        assert_eq!(
            RecordFile::parse(b"applock 3\nkey \xff\n"),
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
            written.replace("\"pid\":4711", "\"pid\": 4711"),
            written.replace("\"pid\":4711", "\"pid\":4711,\"pid\":4711"),
            written.replace("1790000000000000,\"inst", "9007199254740992,\"inst"),
            written.replace("\"pid\":4711,", ""),
        ] {
            assert!(RecordFile::parse(changed.as_bytes()).is_err(), "{changed}");
        }
    }

    #[test]
    fn a_holding_of_another_start_of_the_machine_is_over_and_keeps_its_times_apart() {
        let record = sample();
        let now = BootTime {
            up_ns: 5_000_000_000,
            wall_us: 1_790_003_600_000_000,
            boot: Some(Uuid::from_u128(10)),
        };
        let holding = record.clone().into_holding(&now);
        assert!(!holding.is_taken(store_time(&now)));
        let length = |one: &Holding<Who, By>| one.expires_at - one.acquired.at;
        assert_eq!(length(&holding), length(&record.holding));
        assert_eq!(holding.token, record.holding.token);
        let same = BootTime {
            boot: Some(Uuid::from_u128(9)),
            up_ns: 110_000_000_000,
            ..now
        };
        assert_eq!(record.clone().into_holding(&same), record.holding);
    }
}
