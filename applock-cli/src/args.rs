//! The command line: what there is, and what `--help` teaches about it. Values are read as text
//! here, and judged in `input.rs`, so that a bad one gets a line of ours.

use std::ffi::OsString;

use applock_runtime::__private::shown_text;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Args, Parser, Subcommand};
use clap_complete::Shell;

use crate::exit::{self, Failure};

const EXAMPLES: &str = "\
Examples:
  applock run --app reports -- ./nightly-report     on one machine of the fleet at a time
  applock info --app reports                        who holds it, and who held it last
  applock check --app reports --max-age 25h         for a monitor: did it run?
  applock release --app reports --stale 30s         free what a dead holder left
  applock doctor                                    is the store fit for locks?

Each command has more of them: applock run --help";

const EXIT_CODES: &str = "\
Exit codes:
  0    done                              75  another holder has the lock
  1    no (free, nothing to release)     76  the lease was lost
  64   a command line that can't be read 77  the store refused us
  69   the store can't be reached        78  a value that can't be used";

/// Runs a program on one machine of a fleet at a time, and shows who holds which lock.
#[derive(Debug, Parser)]
#[command(name = "applock", version, after_help = EXAMPLES, after_long_help = format!("{EXAMPLES}\n\n{EXIT_CODES}"))]
#[command(disable_help_subcommand = true, max_term_width = 100)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) store: StoreArgs,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct StoreArgs {
    /// The store, in place of APPLOCK_URL [without either: redis://127.0.0.1:6379]
    ///
    /// redis://host:6379, rediss://host, redis+sentinel://host:26379/mymaster,
    /// redis+cluster://host:6379, or dir:/var/lock/app on one machine. Other users of this machine
    /// can see a command line: put a URL with a password into APPLOCK_URL.
    #[arg(long, global = true, value_name = "URL")]
    pub(crate) url: Option<String>,
    /// What stands before an application's name in a key [without it: QUEUE:]
    #[arg(long, global = true, value_name = "PREFIX")]
    pub(crate) key_prefix: Option<String>,
}

// Only the arguments of the one that is named are built: all of them are 2 % of a short run.
#[derive(Debug, Subcommand)]
#[command(defer = true)]
pub(crate) enum Command {
    Run(RunArgs),
    Ls(LsArgs),
    Info(InfoArgs),
    Wait(WaitArgs),
    Release(ReleaseArgs),
    Check(CheckArgs),
    Watch(WatchArgs),
    Doctor(DoctorArgs),
    Completions(CompletionsArgs),
}

/// Which lock.
#[derive(Clone, Debug, Args)]
pub(crate) struct LockArgs {
    /// The application
    #[arg(long, value_name = "APP", required_unless_present = "key")]
    pub(crate) app: Option<String>,
    /// A lock inside the application
    #[arg(long, value_name = "NAME", requires = "app")]
    pub(crate) name: Option<String>,
    /// The whole key, in place of --app and --name
    #[arg(long, value_name = "KEY", conflicts_with_all = ["app", "name"])]
    pub(crate) key: Option<String>,
}

const RUN: &str = "\
Examples:
  applock run --app reports -- ./nightly-report
      On one machine at a time. Where another one is at it: exit code 75, and a line that says who.

  17 3 * * *  applock run --app reports --every 24h --ok-if-busy -- nightly-report
      A line of every machine's crontab. One machine runs it; for the others that is no error, and
      they say nothing. --every has the store refuse a second run of the same night, however short
      the job is and however far the machines' clocks differ. With --retry-failed another machine
      may take up a run that failed. Without a fixed rhythm, --at-least 30s does much the same.

  applock run --app deploy --wait 10m -- sh -c 'migrate && restart'
      Waits for its turn: first come, first served, over all machines.

  applock run --app import --at-most 2h -- sh -c 'import --fence \"$APPLOCK_TOKEN\"'
      The command gets the fencing token, a number that grows with each run.

The command:
  It gets APPLOCK_TOKEN, APPLOCK_KEY and APPLOCK_OWNER, and is in a process group of its own. TERM,
  INT, HUP, QUIT, USR1 and USR2 are passed on to that group. If the lease is lost, the group gets
  TERM, and KILL after --kill-after. What the command leaves behind in its group is ended before the
  lock is released. If applock itself dies, also by kill -9, the group is killed.

Exit codes:
  those of the command (128 + n if signal n ended it), and
  69   the store can't be reached       77   the store refused us
  75   another holder has the lock, or   78   a value that can't be used
       it already ran (--every)
  76   the lease was lost               125  applock itself failed
  126  the command can't be run         127  there is no such command";

/// Runs a command under a lock: on one machine of the fleet at a time
#[derive(Clone, Debug, Args)]
#[command(after_long_help = RUN, after_help = "More, with examples: applock run --help")]
pub(crate) struct RunArgs {
    #[command(flatten)]
    pub(crate) lock: LockArgs,
    /// How soon the lock of a machine that has died is free; the command may take longer
    #[arg(long, value_name = "TIME", default_value = "60s")]
    pub(crate) ttl: String,
    /// How long to wait while another holder has the lock: a time, or `forever`
    #[arg(long, value_name = "TIME")]
    pub(crate) wait: Option<String>,
    /// Once in so long: refused, as by another holder, if the last run began less than nine tenths of
    /// that ago, by the store's clock
    #[arg(long, value_name = "TIME")]
    pub(crate) every: Option<String>,
    /// With --every: a run that failed does not count
    #[arg(long, requires = "every")]
    pub(crate) retry_failed: bool,
    /// Keep the lock for at least so long from the start, however soon the command ends
    #[arg(long, value_name = "TIME")]
    pub(crate) at_least: Option<String>,
    /// End the command so long after its start
    #[arg(long, value_name = "TIME")]
    pub(crate) at_most: Option<String>,
    /// The exit code when another holder has the lock [without it: 75]
    #[arg(short = 'E', long, value_name = "CODE", conflicts_with = "ok_if_busy")]
    pub(crate) busy_code: Option<String>,
    /// That another holder has the lock is no error: exit code 0, and not a word
    #[arg(long)]
    pub(crate) ok_if_busy: bool,
    /// After the lease was lost: from TERM to KILL
    #[arg(long, value_name = "TIME", default_value = "10s")]
    pub(crate) kill_after: String,
    /// Leave the command in the terminal's foreground group: it may read from the terminal, and gets
    /// Ctrl-C from there
    #[arg(long)]
    pub(crate) foreground: bool,
    /// No message of applock's own: the exit code says it
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// The command and its arguments, after a `--`
    #[arg(last = true, required = true, value_name = "CMD")]
    pub(crate) command: Vec<OsString>,
}

const LS: &str = "\
Examples:
  applock ls
  applock ls 'QUEUE:billing:*'
  applock ls --json | jq -r '.[] | select(.heartbeat_age_ms > 30000) | .key'

The pattern is a glob for the whole key: * any text, ? one character, [a-c] one of these. Only locks
under the prefix are listed. A user that may only read is enough; Redis is read with SCAN, a cluster
at each of its masters. A last heartbeat in red is older than half of the lease.

Exit codes: 0, also if there is none; 69, 77, 78 as ever.";

/// Who holds what: since when, the last heartbeat, the time left, who waits
#[derive(Clone, Debug, Args)]
#[command(after_help = LS)]
pub(crate) struct LsArgs {
    /// Which keys [without it: all]
    #[arg(value_name = "PATTERN", default_value = "*", hide_default_value = true)]
    pub(crate) pattern: String,
    /// For programs: one JSON array of holders
    #[arg(long)]
    pub(crate) json: bool,
}

const WATCH: &str = "\
Examples:
  applock watch
  applock watch 'QUEUE:billing:*' --interval 200ms
  applock watch --json | jq -c 'select(.event == \"expired\")'

A line for each change: held, kept (at_least), ok, failed, released, lost, expired, forced, over (the next one has it),
silent (no heartbeat for half of the lease), waiting, unavailable, available. It looks once an
--interval: a lock that is taken and released between two looks is not seen. Where Redis sends
notifications of keys (notify-keyspace-events with K$gx), each change is seen as it happens; the first
line, on standard error, says which. Ends by Ctrl-C.";

/// A line for each change
#[derive(Clone, Debug, Args)]
#[command(after_help = WATCH)]
pub(crate) struct WatchArgs {
    /// Which keys [without it: all]
    #[arg(value_name = "PATTERN", default_value = "*", hide_default_value = true)]
    pub(crate) pattern: String,
    /// How often to look
    #[arg(long, value_name = "TIME", default_value = "1s")]
    pub(crate) interval: String,
    /// For programs: a JSON object for each change
    #[arg(long)]
    pub(crate) json: bool,
}

const DOCTOR: &str = "\
Examples:
  applock doctor
  applock doctor redis+sentinel://sentinel-1:26379,sentinel-2:26379/mymaster
  applock doctor --json | jq '.[] | select(.level != \"ok\")'

It looks at each server that has locks: whether it is reached, its version, its role, its clock, what
it evicts, what survives a restart, its replicas, each right that a lock needs, and how long an answer
takes. It takes a lock of its own and releases it, and leaves nothing behind.

Exit codes: 0 all is well, 1 something is to be mended; 69, 77, 78 as ever.";

/// Is the store fit for locks? Each finding with its remedy
#[derive(Clone, Debug, Args)]
#[command(after_help = DOCTOR)]
pub(crate) struct DoctorArgs {
    /// The store, in place of --url and APPLOCK_URL
    #[arg(value_name = "URL")]
    pub(crate) store: Option<String>,
    /// For programs: one JSON array of findings
    #[arg(long)]
    pub(crate) json: bool,
}

const INFO: &str = "\
Examples:
  applock info --app reports
  applock info --app reports --json | jq .holder.host
  applock info --app reports >/dev/null && echo 'it runs just now'

Exit codes: 0 held, 1 free; 69, 77, 78 as ever.";

/// Who holds a lock, who waits for it, and how its last run ended
#[derive(Clone, Debug, Args)]
#[command(after_help = INFO)]
pub(crate) struct InfoArgs {
    #[command(flatten)]
    pub(crate) lock: LockArgs,
    /// For programs: one JSON object (docs/ON_CALL.md says what is in it)
    #[arg(long)]
    pub(crate) json: bool,
}

const WAIT: &str = "\
Examples:
  applock wait --app deploy --timeout 10m && echo 'the deployment is over'

Exit codes: 0 it is free, 75 the time is over; 69, 77, 78 as ever.";

/// Waits until a lock is free, taking nothing
#[derive(Clone, Debug, Args)]
#[command(after_help = WAIT)]
pub(crate) struct WaitArgs {
    #[command(flatten)]
    pub(crate) lock: LockArgs,
    /// The longest to wait [without it: as long as it takes]
    #[arg(long, value_name = "TIME")]
    pub(crate) timeout: Option<String>,
}

const RELEASE: &str = "\
Examples:
  applock release --app reports --stale 30s
      Only if the holder's heart has stopped: no heartbeat for 30 seconds and for half of its ttl.
      Never touches a holder that lives.

  applock release --app reports --force --reason 'host db3 is off the network'
      Whoever holds it. A holder that lives is told at its next heartbeat and stops then: until
      then it may overlap with the next one.

Exit codes: 0 released, 1 there was nothing to release; 69, 77, 78 as ever.";

/// Frees a lock that a dead holder has left, or any
#[derive(Clone, Debug, Args)]
#[command(after_help = RELEASE)]
#[command(group = clap::ArgGroup::new("how").required(true).args(["stale", "force"]))]
pub(crate) struct ReleaseArgs {
    #[command(flatten)]
    pub(crate) lock: LockArgs,
    /// Only if no heartbeat came for so long
    #[arg(long, value_name = "TIME")]
    pub(crate) stale: Option<String>,
    /// Whoever holds it
    #[arg(long, requires = "reason")]
    pub(crate) force: bool,
    /// Why: remembered with the run that is ended, for those who ask later
    #[arg(
        long,
        value_name = "TEXT",
        requires = "force",
        conflicts_with = "stale"
    )]
    pub(crate) reason: Option<String>,
}

const CHECK: &str = "\
Examples:
  applock check --app reports --max-age 25h
      For a daily job: did the last run begin within 25 hours, and end as it should?

  applock check --app reports --max-age 25h --must-succeed
      Did one succeed within 25 hours, whatever came of the last one?

Exit codes, as monitors have them:
  0 OK        a run began within --max-age, and goes on or ended as it should
  1 WARNING   it began in time, and failed, was lost, or was ended by force
  2 CRITICAL  no run began within --max-age; with --must-succeed: none that ended well
  3 UNKNOWN   the store can't be reached, or refuses us
  64 and 78 are a mistake in the command line, which a monitor shows as unknown, too.";

/// For monitors: whether a job has run lately
#[derive(Clone, Debug, Args)]
#[command(after_help = CHECK)]
pub(crate) struct CheckArgs {
    #[command(flatten)]
    pub(crate) lock: LockArgs,
    /// How long ago the last run may have begun
    #[arg(long, value_name = "TIME")]
    pub(crate) max_age: String,
    /// It has to have ended well
    #[arg(long)]
    pub(crate) must_succeed: bool,
}

/// Prints the completion of a shell
#[derive(Clone, Debug, Args)]
#[command(after_help = "Example:\n  applock completions bash > /etc/bash_completion.d/applock")]
pub(crate) struct CompletionsArgs {
    #[arg(value_name = "SHELL")]
    pub(crate) shell: Shell,
}

/// What is printed in place of a command: help and version.
pub(crate) enum Parsed {
    Command(Box<Cli>),
    Text(String),
    /// The same for a command line that names no command.
    Usage(String),
}

/// `--wait -1s` as `--wait=-1s`: clap takes the value for an argument of its own and advises a `--`,
/// where what is wrong is that the length is less than nothing.
fn with_negative_values(words: impl Iterator<Item = OsString>) -> Vec<OsString> {
    let mut joined: Vec<OsString> = Vec::new();
    let mut is_command = false;
    for word in words {
        is_command |= word == "--";
        let is_negative = matches!(word.as_encoded_bytes(), [b'-', b'0'..=b'9', ..]);
        let takes_value = |option: &&mut OsString| {
            let option = option.as_encoded_bytes();
            option.starts_with(b"-") && !option.contains(&b'=')
        };
        match joined.last_mut().filter(takes_value) {
            Some(option) if is_negative && !is_command => {
                option.push("=");
                option.push(word);
            }
            _ => joined.push(word),
        }
    }
    joined
}

pub(crate) fn parse() -> Result<Parsed, Failure> {
    let words = with_negative_values(std::env::args_os());
    let error = match Cli::try_parse_from(words) {
        Ok(cli) => return Ok(Parsed::Command(Box::new(cli))),
        Err(error) => error,
    };
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            Ok(Parsed::Text(error.render().to_string()))
        }
        // `applock` alone: its user wants to know what there is.
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            Ok(Parsed::Usage(error.render().to_string()))
        }
        kind => Err(Failure::new(
            match kind {
                ErrorKind::InvalidValue | ErrorKind::ValueValidation | ErrorKind::InvalidUtf8 => {
                    exit::INVALID
                }
                _ => exit::USAGE,
            },
            one_line(&error),
        )),
    }
}

/// As people are shown it: without what would paint over a terminal, and without a URL that was
/// written in the wrong place, for it may hold a password.
fn message(text: &str) -> String {
    let words: Vec<&str> = text
        .split(' ')
        .map(|word| if word.contains("://") { "'***'" } else { word })
        .collect();
    shown_text(&words.join(" "))
}

/// What clap says in a paragraph, in one line: the mistake, the way out.
fn one_line(error: &clap::Error) -> String {
    let rendered = error.render().to_string();
    let mut parts: Vec<String> = Vec::new();
    let (told, usage) = match rendered.split_once("\n\nUsage: ") {
        Some((told, usage)) => (told, usage.lines().next()),
        None => (rendered.as_str(), None),
    };
    for paragraph in told.split("\n\n") {
        let words: Vec<&str> = paragraph.split_whitespace().collect();
        let text = words.join(" ");
        let text = text.strip_prefix("error: ").unwrap_or(&text);
        let text = message(text);
        // Without a Usage there is this.
        if !text.is_empty() && !text.starts_with("For more information") {
            parts.push(text);
        }
    }
    let command = usage
        .map(|usage| usage.split_whitespace().take(2).collect::<Vec<_>>())
        .filter(|words| {
            words
                .get(1)
                .is_some_and(|word| !word.starts_with(['-', '[', '<']))
        })
        .map_or_else(|| "applock".to_owned(), |words| words.join(" "));
    if let Some(ContextValue::String(_)) = error.get(ContextKind::InvalidSubcommand) {
        return format!("{}; see `applock --help`", parts.join("; "));
    }
    format!("{}; see `{command} --help`", parts.join("; "))
}
