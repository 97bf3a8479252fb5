//! A driver from the outside: started, told to go, listened to, ended.

use std::io::{BufRead as _, BufReader, Read, Write as _};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use crate::driver::Report;
use crate::peers::Contestant;

/// An interpreter may take its time on a busy machine, a hundred of them more so.
const START: Duration = Duration::from_secs(30);

/// A running driver. Ended when it is dropped.
pub(crate) struct Driver {
    child: Child,
    stdin: ChildStdin,
    said: Receiver<String>,
    complaints: Receiver<String>,
}

impl Driver {
    /// Starts it, with the words of its mode.
    pub(crate) fn start(who: &Contestant, url: &str, mode: &[String]) -> Result<Self> {
        Self::spawn(who.command()?, url, mode)
    }

    /// The same under a program that watches it, and that ends when it ends.
    pub(crate) fn start_under(
        mut watcher: Command,
        who: &Contestant,
        url: &str,
        mode: &[String],
    ) -> Result<Self> {
        let command = who.command()?;
        watcher.arg(command.get_program()).args(command.get_args());
        Self::spawn(watcher, url, mode)
    }

    fn spawn(mut command: Command, url: &str, mode: &[String]) -> Result<Self> {
        let mut child = command
            .args(["--url", url, "--key", "bench"])
            .args(mode)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        let stdin = child.stdin.take().context("no stdin")?;
        let said = lines(child.stdout.take().context("no stdout")?);
        let complaints = lines(child.stderr.take().context("no stderr")?);
        Ok(Self {
            child,
            stdin,
            said,
            complaints,
        })
    }

    /// Waits until it is ready; or hears why it can't do this.
    pub(crate) fn ready(&self) -> Result<()> {
        self.word("ready", START)
    }

    /// Has it begin.
    pub(crate) fn go(&mut self) -> Result<()> {
        Ok(self.stdin.write_all(b"go\n")?)
    }

    /// Waits for a word of its own on a line.
    pub(crate) fn word(&self, word: &str, longest: Duration) -> Result<()> {
        let line = self.line(longest)?;
        if line == word {
            return Ok(());
        }
        let report: Report = serde_json::from_str(&line).with_context(|| line.clone())?;
        bail!(report.unsupported.unwrap_or(line))
    }

    /// Waits for its report.
    pub(crate) fn report(&self, longest: Duration) -> Result<Report> {
        let line = self.line(longest)?;
        let report: Report = serde_json::from_str(&line).with_context(|| line.clone())?;
        match report.unsupported {
            Some(why) => bail!(why),
            None => Ok(report),
        }
    }

    /// Waits until it has ended by itself, as it does after its report.
    pub(crate) fn ended(mut self) -> Result<()> {
        let status = self.child.wait()?;
        anyhow::ensure!(status.success(), "it ended with {status}");
        Ok(())
    }

    fn line(&self, longest: Duration) -> Result<String> {
        match self.said.recv_timeout(longest) {
            Ok(line) => Ok(line),
            Err(RecvTimeoutError::Timeout) => bail!("not done after {longest:.0?}"),
            Err(RecvTimeoutError::Disconnected) => {
                let last = self.complaints.iter().last();
                bail!(
                    "it failed: {}",
                    last.unwrap_or_else(|| "without a word".to_owned())
                )
            }
        }
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        // It has ended already, as a rule.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What is left until then.
pub(crate) fn left(until: Instant) -> Duration {
    until.saturating_duration_since(Instant::now())
}

fn lines(from: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        for line in BufReader::new(from).lines().map_while(Result::ok) {
            if !line.trim().is_empty() && sender.send(line).is_err() {
                break;
            }
        }
    });
    receiver
}
