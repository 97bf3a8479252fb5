//! The file of a wait queue: a journal, so that a step costs the same however many wait.
//!
//! ```text
//! applock-queue 4
//! {"id":"5d0c…","boot_began_ms":…,"boot":"…"} 9c0d…
//! 00000000101000000000 {"process":{"process":"77aa…","key":"QUEUE:reports",…}} 41b7…
//! {"joins":[1790000000000000,"6f1c…",0,60000000000,604800000000000,null]} c0de…
//! {"leaves":"6f1c…"} 0b7e…
//! ```
//!
//! | line | what it says |
//! |---|---|
//! | the first two | the version; which file this is, and the start of the machine that it is of |
//! | process | processes are counted from 0; the number before it is when it last polled, and is written in place |
//! | joins | ticket, owner id, which process, ttl, remember, what an earlier run forbids |
//! | leaves | that owner stands in the queue no longer |
//!
//! Who waits joins by one line, and leaves by one; a poll writes twenty digits at most. A reader
//! that has read a file before (it knows it by its id) reads what was added since, and when the
//! processes polled. Where most lines are of waiters that have left, the file is replaced by a new
//! one.
//!
//! The dangers: a line that was cut short by a crash, or is being written (each line ends with a
//! digest; what follows one that is wrong is not believed, and the next writer replaces the
//! file); and a reader that takes one file for another (an id is used once).

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::Path;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::boot_clock::{Boot, BootTime};
use super::codec::{Damage, SUM, Uuid128, in_protocol, json, up_ns, version_of};
use super::directory::{Directory, ReadError};
use super::error::{damaged, io_fault};
use super::file_names::Files;
use super::threads::CommitPermit;
use crate::protocol::{Due, Process, Tick, Timing, WaitQueue, Waiter};
use crate::store::view::Who;
use crate::store::{Identity, StoreErrorKind, StoreResult};

/// The largest file that is read, in bytes.
const MAX_QUEUE: u64 = 4 << 20;

/// The largest that a waiter joins, in bytes: the rest of what is read is room for leaving.
const MAX_JOINED: u64 = 3 << 20;

/// A queue that is longer takes no more waiters.
pub(super) const MAX_WAITERS: usize = 10_000;

/// So many lines beside two for each waiter, and the file is replaced.
const SLACK: usize = 64;

/// The first word of every queue.
const QUEUE: &str = "applock-queue";
const VERSION: u32 = 4;

/// How many digits say when a process last polled.
const DIGITS: usize = 20;

/// When the processes of a queue last polled, by the protocol's time.
pub(super) type Polls = Vec<(Process, u64)>;

/// What is known of a file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct QueueFile {
    /// The first two lines. Empty: there is no file.
    head: String,
    id: Uuid,
    boot: Boot,
    processes: Vec<KnownProcess>,
    /// The waiters. When their processes polled is in [`Polls`].
    pub(super) queue: WaitQueue<Who>,
    /// How much of it was read, in bytes and in lines, up to the first that is no line of ours.
    length: u64,
    lines: usize,
    /// Something follows that is none.
    is_torn: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct KnownProcess {
    process: Process,
    who: Who,
    /// Where it stands when the process last polled.
    polled_at: u64,
}

#[derive(Serialize, Deserialize)]
struct Head {
    id: Uuid128,
    boot_began_ms: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    boot: Option<Uuid128>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Line {
    Process(WrittenProcess),
    Joins(u64, Uuid128, usize, u64, u64, Option<WrittenDue>),
    Leaves(Uuid128),
}

/// [`Due`].
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum WrittenDue {
    Gap(u64, bool),
    Tick(u64, bool),
}

impl WrittenDue {
    fn of(due: Due) -> Self {
        match due.tick {
            Tick::Gap(gap) => Self::Gap(gap, due.retry_failed),
            Tick::Number(number) => Self::Tick(number, due.retry_failed),
        }
    }

    fn read(self) -> Due {
        let (tick, retry_failed) = match self {
            Self::Gap(gap, retry) => (Tick::Gap(gap), retry),
            Self::Tick(number, retry) => (Tick::Number(number), retry),
        };
        Due { tick, retry_failed }
    }
}

/// What the waiters of a process have in common.
#[derive(Serialize, Deserialize)]
struct WrittenProcess {
    process: Uuid128,
    key: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    app: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    function: Option<String>,
    instance: String,
    host: String,
    pid: u32,
}

/// What a decision changes in a queue.
#[derive(Debug, Default)]
pub(super) struct Changes {
    left: Vec<u128>,
    joined: Vec<(u64, Waiter<Who>)>,
    /// The process, when it has polled now, and how much later that is than what is written.
    polled: Vec<(Process, u64, u64)>,
}

/// How the changes are written.
#[derive(Debug)]
pub(super) enum Plan {
    Nothing,
    Remove,
    Append {
        lines: String,
        polls: Vec<(u64, u64)>,
        /// The file as it is then, but for its queue.
        next: QueueFile,
    },
    Replace {
        text: String,
        next: QueueFile,
    },
}

impl Changes {
    /// Whether nothing has changed but that a process has polled, less than so long after the
    /// last poll that is written down.
    pub(super) fn is_less_than(&self, refresh: u64) -> bool {
        let is_recent = |(_, _, later): &(Process, u64, u64)| *later < refresh;
        self.left.is_empty() && self.joined.is_empty() && self.polled.iter().all(is_recent)
    }
}

impl Plan {
    /// Whether the file would be so long that no further waiter may join.
    pub(super) fn is_too_long(&self) -> bool {
        match self {
            Self::Replace { text, .. } => text.len() as u64 > MAX_JOINED,
            Self::Nothing | Self::Remove | Self::Append { .. } => false,
        }
    }
}

impl QueueFile {
    /// A file with nobody in it, of this start of the machine.
    fn new(boot: Boot) -> Self {
        let id = Uuid::new_v4();
        let head = json(&Head {
            id: Uuid128(id.as_u128()),
            boot_began_ms: boot.began_ms,
            boot: boot.id.map(|id| Uuid128(id.as_u128())),
        });
        let sum = Uuid::new_v5(&SUM, head.as_bytes());
        let head = format!("{QUEUE} {VERSION}\n{head} {sum}\n");
        Self {
            length: head.len() as u64,
            head,
            id,
            boot,
            ..Self::default()
        }
    }

    /// The waiters, with when their processes last polled.
    pub(super) fn queue(&self, polls: &Polls) -> WaitQueue<Who> {
        let mut queue = self.queue.clone();
        for (process, polled_at) in polls {
            if let Some(known) = queue.processes.get_mut(process) {
                known.polled_at = *polled_at;
            }
        }
        let last = queue.processes.values().map(|known| known.polled_at).max();
        let life = Timing::NANOS.queue_life;
        queue.expires_at = last.map_or(0, |last| last.saturating_add(life));
        queue
    }

    /// Whether a waiter of that process stands in the queue.
    pub(super) fn has_waiter_of(&self, process: Process) -> bool {
        self.queue.processes.contains_key(&process)
    }

    fn sum(&self, line: usize, text: &str) -> Uuid {
        Uuid::new_v5(&self.id, format!("{line} {text}").as_bytes())
    }

    /// Reads the head of a file.
    fn of_head(bytes: &[u8]) -> Result<Self, Damage> {
        let text = version_of(bytes, QUEUE, VERSION)?;
        let broken = Damage::Broken("head");
        let second = text.lines().nth(1).ok_or(broken.clone())?;
        let (head, sum) = second.rsplit_once(' ').ok_or(broken.clone())?;
        if sum != Uuid::new_v5(&SUM, head.as_bytes()).to_string() {
            return Err(broken);
        }
        let written: Head = serde_json::from_str(head).map_err(|_| broken)?;
        let head = format!("{QUEUE} {VERSION}\n{second}\n");
        Ok(Self {
            length: head.len() as u64,
            head,
            id: Uuid::from_u128(written.id.0),
            boot: Boot {
                id: written.boot.map(|id| Uuid::from_u128(id.0)),
                began_ms: written.boot_began_ms,
            },
            ..Self::default()
        })
    }

    /// Reads what follows what was read before.
    fn read_on(&mut self, bytes: &[u8]) {
        self.is_torn = false;
        for line in bytes.split_inclusive(|byte| *byte == b'\n') {
            if self.read_line(line).is_none() {
                self.is_torn = true;
                return;
            }
            self.length += line.len() as u64;
            self.lines += 1;
        }
    }

    fn read_line(&mut self, line: &[u8]) -> Option<()> {
        let text = std::str::from_utf8(line.strip_suffix(b"\n")?).ok()?;
        let (polled_at, text) = match text.split_at_checked(DIGITS + 1) {
            Some((digits, rest)) if !text.starts_with('{') => {
                (Some(up_time(digits.strip_suffix(' ')?)?), rest)
            }
            _ => (None, text),
        };
        let (text, sum) = text.rsplit_once(' ')?;
        if sum != self.sum(self.lines, text).to_string() {
            return None;
        }
        match serde_json::from_str(text).ok()? {
            Line::Process(written) => {
                polled_at?;
                self.processes.push(KnownProcess {
                    process: written.process.0,
                    who: Who {
                        key: written.key.into(),
                        app: written.app.map(Arc::from),
                        name: written.name.map(Arc::from),
                        function: written.function.map(Arc::from),
                        identity: Arc::new(Identity {
                            instance: written.instance,
                            host: written.host,
                            pid: written.pid,
                        }),
                    },
                    polled_at: self.length,
                });
            }
            Line::Joins(ticket, owner, which, ttl, remember, due) => {
                let known = self.processes.get(which)?;
                let waiter = Waiter {
                    owner: owner.0,
                    process: known.process,
                    ttl,
                    remember,
                    due: due.map(WrittenDue::read),
                    who: known.who.clone(),
                };
                // No process can be notified here: a grant is found by polling.
                self.queue.restore(ticket, waiter, 0, false);
            }
            Line::Leaves(owner) => drop(self.queue.leave(owner.0)?),
        }
        Some(())
    }

    /// What has to be written so that the file has this queue.
    pub(super) fn changes(&self, polls: &Polls, decided: &WaitQueue<Who>) -> Changes {
        let mut changes = Changes::default();
        let mut before = self.queue.waiters.iter().peekable();
        let mut after = decided.waiters.iter().peekable();
        loop {
            let order = match (before.peek(), after.peek()) {
                (None, None) => break,
                (Some(_), None) => std::cmp::Ordering::Less,
                (None, Some(_)) => std::cmp::Ordering::Greater,
                (Some((old, _)), Some((new, _))) => old.cmp(new),
            };
            let old = order.is_le().then(|| before.next()).flatten();
            let new = order.is_ge().then(|| after.next()).flatten();
            if old == new {
                continue;
            }
            if let Some(((_, owner), _)) = old {
                changes.left.push(*owner);
            }
            if let Some(((ticket, _), waiter)) = new {
                changes.joined.push((*ticket, waiter.clone()));
            }
        }
        // One that was not asked for has not polled by this step; a new one has a line of its own.
        for (process, written) in polls {
            let now = decided
                .processes
                .get(process)
                .map_or(0, |now| now.polled_at);
            if now > *written {
                changes.polled.push((*process, now, now - written));
            }
        }
        changes
    }

    /// How the changes are written. The decided queue is in the plan's file once it is carried
    /// out.
    pub(super) fn plan(&self, changes: &Changes, decided: &WaitQueue<Who>, boot: Boot) -> Plan {
        if changes.is_less_than(1) && !self.is_torn {
            return Plan::Nothing;
        }
        if decided.is_empty() {
            return Plan::Remove;
        }
        let is_ours = !self.head.is_empty() && !self.is_torn;
        if is_ours && self.lines + changes.left.len() <= 2 * decided.len() + SLACK {
            let mut next = Self {
                head: self.head.clone(),
                id: self.id,
                boot: self.boot,
                processes: self.processes.clone(),
                length: self.length,
                lines: self.lines,
                ..Self::default()
            };
            let mut lines = String::new();
            for owner in &changes.left {
                next.add(&mut lines, None, &Line::Leaves(Uuid128(*owner)));
            }
            for (ticket, waiter) in &changes.joined {
                next.add_waiter(&mut lines, *ticket, waiter, decided);
            }
            if next.length <= MAX_JOINED {
                let polls = next.polls_of(changes);
                return Plan::Append { lines, polls, next };
            }
        }
        let mut next = Self::new(boot);
        let mut text = next.head.clone();
        for ((ticket, _), waiter) in &decided.waiters {
            next.add_waiter(&mut text, *ticket, waiter, decided);
        }
        Plan::Replace { text, next }
    }

    fn add(&mut self, lines: &mut String, polled_at: Option<u64>, line: &Line) {
        let text = json(line);
        let sum = self.sum(self.lines, &text);
        let polled_at = polled_at.map(|at| format!("{} ", digits(at)));
        let line = format!("{}{text} {sum}\n", polled_at.unwrap_or_default());
        self.length += line.len() as u64;
        self.lines += 1;
        lines.push_str(&line);
    }

    fn add_waiter(
        &mut self,
        lines: &mut String,
        ticket: u64,
        waiter: &Waiter<Who>,
        decided: &WaitQueue<Who>,
    ) {
        let which = self.which(lines, waiter, decided);
        let owner = Uuid128(waiter.owner);
        let due = waiter.due.map(WrittenDue::of);
        let joins = Line::Joins(ticket, owner, which, waiter.ttl, waiter.remember, due);
        self.add(lines, None, &joins);
    }

    /// The number of a waiter's process. One stands here once, unless it shows its waiters
    /// differently.
    fn which(
        &mut self,
        lines: &mut String,
        waiter: &Waiter<Who>,
        decided: &WaitQueue<Who>,
    ) -> usize {
        let (process, who) = (waiter.process, &waiter.who);
        let is_it = |known: &KnownProcess| known.process == process && known.who == *who;
        if let Some(which) = self.processes.iter().position(is_it) {
            return which;
        }
        let known = decided.processes.get(&process);
        let written = WrittenProcess {
            process: Uuid128(process),
            key: who.key.to_string(),
            app: who.app.as_deref().map(str::to_owned),
            name: who.name.as_deref().map(str::to_owned),
            function: who.function.as_deref().map(str::to_owned),
            instance: who.identity.instance.clone(),
            host: who.identity.host.clone(),
            pid: who.identity.pid,
        };
        self.processes.push(KnownProcess {
            process,
            who: who.clone(),
            polled_at: self.length,
        });
        let polled_at = known.map_or(0, |known| known.polled_at);
        self.add(lines, Some(polled_at), &Line::Process(written));
        self.processes.len() - 1
    }

    /// What is written in place.
    fn polls_of(&self, changes: &Changes) -> Vec<(u64, u64)> {
        let place = |(process, polled_at, _): &(Process, u64, u64)| {
            let known = self.processes.iter().find(|one| one.process == *process)?;
            Some((known.polled_at, *polled_at))
        };
        changes.polled.iter().filter_map(place).collect()
    }
}

fn digits(polled_at: u64) -> String {
    format!("{:0DIGITS$}", up_ns(polled_at))
}

fn up_time(digits: &str) -> Option<u64> {
    let is_number = digits.len() == DIGITS && digits.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| digits.parse().ok())?.map(in_protocol)
}

impl Directory {
    /// The waiters of a lock, and when their processes polled: all of them, or only that one
    /// (`poll_of`), if it did lately. Needs no lock file. A queue is a
    /// courtesy: one that is damaged, or is of an earlier start of the machine, is begun anew
    /// (`None`), and its waiters come back to their places when they poll.
    ///
    /// `known`: what was read of it before.
    pub(super) fn read_queue(
        &self,
        files: &Files,
        now: &BootTime,
        known: Option<Arc<QueueFile>>,
        poll_of: impl Fn(&QueueFile) -> Option<Process>,
    ) -> StoreResult<Option<(Arc<QueueFile>, Polls)>> {
        let read = match self.open_queue(&files.queue, known) {
            Ok(Ok((mut open, file))) => {
                let polls = self.read_polls(&mut open, &file, poll_of(&file), now);
                polls.map(|polls| (file, polls))
            }
            Ok(Err(damage @ (Damage::Newer | Damage::Older))) => {
                return Err(damaged(&files.queue, &damage));
            }
            Ok(Err(_)) | Err(ReadError::Foreign) => return Ok(None),
            Err(ReadError::Io(error)) => Err(error),
        };
        match read {
            Ok((file, polls)) => {
                let last = polls.iter().map(|(_, at)| up_ns(*at)).max();
                let is_current = now.is_in(&file.boot, last.unwrap_or_default());
                Ok(is_current.then_some((file, polls)))
            }
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Some(Default::default())),
            Err(error) => {
                let doing = "read the wait queue in";
                let kind = StoreErrorKind::NotDone;
                Err(io_fault(kind, doing, &files.queue, error))
            }
        }
    }

    fn open_queue(
        &self,
        path: &Path,
        known: Option<Arc<QueueFile>>,
    ) -> Result<Result<(File, Arc<QueueFile>), Damage>, ReadError> {
        // Opening a pipe would wait for ever.
        let found = fs::symlink_metadata(path)?;
        if !found.is_file() {
            return Err(ReadError::Foreign);
        }
        let mut open = File::open(path)?;
        let length = open.metadata()?.len();
        if length > MAX_QUEUE {
            return Err(ReadError::Foreign);
        }
        if let Some(mut known) = known
            && known.length <= length
        {
            let mut head = vec![0; known.head.len()];
            self.read_at(&mut open, 0, &mut head)?;
            if head == known.head.as_bytes() {
                if known.length < length || known.is_torn {
                    let mut more = vec![0; (length - known.length) as usize];
                    self.read_at(&mut open, known.length, &mut more)?;
                    Arc::make_mut(&mut known).read_on(&more);
                }
                return Ok(Ok((open, known)));
            }
        }
        let mut bytes = vec![0; length as usize];
        self.read_at(&mut open, 0, &mut bytes)?;
        Ok(QueueFile::of_head(&bytes).map(|mut file| {
            file.read_on(bytes.get(file.head.len()..).unwrap_or_default());
            (open, Arc::new(file))
        }))
    }

    fn read_polls(
        &self,
        open: &mut File,
        file: &QueueFile,
        poll_of: Option<Process>,
        now: &BootTime,
    ) -> io::Result<Polls> {
        let mut polls = Polls::new();
        let latest = in_protocol(now.up_ns);
        for known in &file.processes {
            let is_asked = poll_of.is_none_or(|process| process == known.process);
            // Its first line counts.
            if !is_asked || polls.iter().any(|(process, _)| *process == known.process) {
                continue;
            }
            let mut digits = [0; DIGITS];
            self.read_at(open, known.polled_at, &mut digits)?;
            // No process polls in the future.
            let polled_at = std::str::from_utf8(&digits).ok().and_then(up_time);
            polls.push((known.process, polled_at.unwrap_or_default().min(latest)));
        }
        let is_silent = |(_, at): &(Process, u64)| latest - at > Timing::NANOS.silence;
        if poll_of.is_some() && polls.iter().all(is_silent) {
            // Only another one's poll may have kept the queue from being forgotten.
            return self.read_polls(open, file, None, now);
        }
        Ok(polls)
    }

    fn read_at(&self, open: &mut File, at: u64, bytes: &mut [u8]) -> io::Result<()> {
        self.count(bytes.len());
        open.seek(SeekFrom::Start(at))?;
        open.read_exact(bytes)
    }

    /// Carries a plan out; returns the file as it is then. The caller holds the lock file.
    pub(super) fn write_queue(
        &self,
        files: &Files,
        plan: Plan,
        permit: &CommitPermit<'_>,
    ) -> StoreResult<Option<QueueFile>> {
        let path = &files.queue;
        match plan {
            Plan::Nothing => Ok(None),
            Plan::Remove => {
                permit.ask()?;
                match fs::remove_file(path) {
                    Err(error) if error.kind() != ErrorKind::NotFound => {
                        let doing = "remove the empty wait queue";
                        Err(io_fault(StoreErrorKind::Unknown, doing, path, error))
                    }
                    _ => Ok(Some(QueueFile::default())),
                }
            }
            Plan::Append { lines, polls, next } => {
                let fault =
                    |kind| move |error| io_fault(kind, "write the wait queue to", path, error);
                let mut open = OpenOptions::new()
                    .write(true)
                    .open(path)
                    .map_err(fault(StoreErrorKind::NotDone))?;
                permit.ask()?;
                self.count(lines.len() + polls.len() * DIGITS);
                (|| {
                    if !lines.is_empty() {
                        open.seek(SeekFrom::Start(next.length - lines.len() as u64))?;
                        open.write_all(lines.as_bytes())?;
                    }
                    for (place, polled_at) in &polls {
                        open.seek(SeekFrom::Start(*place))?;
                        open.write_all(digits(*polled_at).as_bytes())?;
                    }
                    Ok(())
                })()
                .map_err(fault(StoreErrorKind::Unknown))?;
                Ok(Some(next))
            }
            Plan::Replace { text, next } => {
                self.put(files, path, text.as_bytes(), false, permit)?;
                Ok(Some(next))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::boot_clock;
    use super::super::tests::scratch;
    use super::*;

    const MINUTE: u64 = 60_000_000_000;

    /// A queue's file, and one reader that knows it already.
    struct Place {
        directory: Directory,
        files: Files,
        now: BootTime,
        known: Option<Arc<QueueFile>>,
        _home: tempfile::TempDir,
    }

    impl Place {
        fn new() -> Self {
            let home = scratch();
            Self {
                directory: Directory::new(home.path()),
                files: Files::of(home.path(), "a"),
                now: boot_clock::now(),
                known: None,
                _home: home,
            }
        }

        fn read(&self, known: Option<Arc<QueueFile>>) -> Option<(Arc<QueueFile>, Polls)> {
            let read = self
                .directory
                .read_queue(&self.files, &self.now, known, |_| None);
            read.unwrap()
        }

        /// Writes what has changed, as a step does.
        fn write(&mut self, decided: &WaitQueue<Who>) {
            let (file, polls) = self.read(self.known.clone()).unwrap();
            let changes = file.changes(&polls, decided);
            let plan = file.plan(&changes, decided, self.now.boot());
            let permit = CommitPermit(&|| true);
            let written = self.directory.write_queue(&self.files, plan, &permit);
            if let Some(mut file) = written.unwrap() {
                file.queue = decided.clone();
                self.known = (!decided.is_empty()).then(|| Arc::new(file));
            }
        }

        /// What is read by one that knows the file, and by one that does not.
        fn seen(&self) -> WaitQueue<Who> {
            let seen = [self.known.clone(), None].map(|known| {
                let (file, polls) = self.read(known).unwrap();
                file.queue(&polls)
            });
            assert_eq!(seen[0], seen[1]);
            let [seen, _] = seen;
            seen
        }

        fn polled(&self, before: u64) -> u64 {
            in_protocol(self.now.up_ns - before)
        }
    }

    /// A waiter of one of three processes.
    fn waiter(number: u64) -> Waiter<Who> {
        let process = number % 3;
        Waiter {
            due: None,
            owner: u128::MAX - u128::from(number),
            process: u128::from(process),
            ttl: u64::MAX - number,
            remember: 3_600_000_000_000,
            who: Who {
                key: "QUEUE:\"a\"\n".into(),
                app: (process > 0).then(|| "reports".into()),
                name: (process > 1).then(|| "eu \u{1}".into()),
                function: (process > 2).then(|| "reports::nightly".into()),
                identity: Arc::new(Identity {
                    instance: format!("web-{process}"),
                    host: "db7".into(),
                    pid: 1,
                }),
            },
        }
    }

    fn finish(queue: &mut WaitQueue<Who>) {
        let last = queue.processes.values().map(|known| known.polled_at).max();
        queue.expires_at = last.map_or(0, |last| last + Timing::NANOS.queue_life);
    }

    fn queue(place: &Place, waiters: u64) -> WaitQueue<Who> {
        let mut queue = WaitQueue::default();
        for number in 0..waiters {
            let polled_at = place.polled(number % 3 * 1_000);
            queue.restore(
                1_790_000_000_000_000 + number,
                waiter(number),
                polled_at,
                false,
            );
        }
        finish(&mut queue);
        queue
    }

    #[test]
    fn every_queue_is_read_back_as_it_was_written_and_fits_its_file() {
        for waiters in [0, 1, 2, 50, MAX_WAITERS as u64] {
            let mut place = Place::new();
            let queue = queue(&place, waiters);
            place.write(&queue);
            assert_eq!(place.seen(), queue);
            let length = fs::metadata(&place.files.queue).map_or(0, |found| found.len());
            assert!(length <= MAX_JOINED, "{length}");
        }
    }

    #[test]
    fn whatever_joins_leaves_and_polls_all_readers_see_it() {
        let mut place = Place::new();
        let mut random = fastrand::Rng::with_seed(7);
        let mut queue = WaitQueue::default();
        let mut longest = 0;
        for step in 0..600 {
            // It grows, and shrinks to nothing.
            let joins = random.u64(..100) < if step < 300 { 65 } else { 35 };
            let number = random.u64(..400);
            if joins {
                let before = MINUTE - step * 1_000_000;
                queue.leave(waiter(number).owner);
                let polled_at = place.polled(before);
                queue.restore(random.u64(..1_000), waiter(number), polled_at, false);
            } else if let Some((_, owner)) = queue.next_after(None) {
                queue.leave(owner);
            }
            finish(&mut queue);
            place.write(&queue);
            assert_eq!(place.seen(), queue, "{step}");
            longest = longest.max(queue.len());
            assert_eq!(place.files.queue.exists(), !queue.is_empty());
        }
        assert!(longest > 50);
    }

    #[test]
    fn a_line_that_is_cut_short_or_changed_ends_what_is_believed_and_the_next_writer_mends_it() {
        let mut place = Place::new();
        let queue = queue(&place, 4);
        place.write(&queue);
        let text = fs::read(&place.files.queue).unwrap();
        let order: Vec<_> = queue.waiters.iter().collect();
        let believed = |place: &Place, changed: &[u8]| {
            fs::write(&place.files.queue, changed).unwrap();
            let read = place.read(None)?;
            let seen: Vec<_> = read.0.queue.waiters.iter().collect();
            assert_eq!(
                seen,
                order[..seen.len()],
                "{}",
                String::from_utf8_lossy(changed)
            );
            Some(seen.len())
        };
        let mut counts = std::collections::BTreeSet::new();
        for length in 0..text.len() {
            counts.insert(believed(&place, &text[..length]));
        }
        assert_eq!(counts, [None, Some(0), Some(1), Some(2), Some(3)].into());
        for at in 0..text.len() {
            for bit in 0..8 {
                let mut changed = text.clone();
                changed[at] ^= 1 << bit;
                // A version of another number is told, and is never begun anew.
                if at >= QUEUE.len() + 3 {
                    believed(&place, &changed);
                }
            }
        }
        fs::write(&place.files.queue, &text[..text.len() - 9]).unwrap();
        place.known = None;
        place.write(&queue);
        assert_eq!(place.seen(), queue);
    }

    #[test]
    fn a_reader_takes_no_other_file_for_the_one_that_it_knows() {
        let mut place = Place::new();
        let two = queue(&place, 2);
        place.write(&two);
        let known = place.known.clone();
        fs::remove_file(&place.files.queue).unwrap();
        place.known = None;
        let five = queue(&place, 5);
        place.write(&five);
        let (file, polls) = place.read(known).unwrap();
        assert_eq!(file.queue(&polls), five);
    }

    #[test]
    fn the_queue_of_another_start_of_the_machine_is_begun_anew() {
        let mut place = Place::new();
        place.now.boot = Some(Uuid::from_u128(9));
        let three = queue(&place, 3);
        place.write(&three);
        for (boot, expected) in [(9, Some(3)), (10, None)] {
            place.now = BootTime {
                wall_us: place.now.wall_us + 100_000_000,
                boot: Some(Uuid::from_u128(boot)),
                ..place.now
            };
            let seen = place.read(None).map(|(file, _)| file.queue.len());
            assert_eq!(seen, expected);
        }
    }
}
