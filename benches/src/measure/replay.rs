//! One cycle's commands, recorded by `MONITOR` and sent again in a pipeline.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use redis::Cmd;

use super::Bench;
use super::race::start;

/// Cycles in one pipeline, and pipelines in one replay.
const AT_A_TIME: usize = 50;
const TIMES: usize = 40;

/// After so long without a line there is none to come.
const SILENCE: Duration = Duration::from_millis(100);

/// How long one cycle may take on a busy machine.
const LONGEST: Duration = Duration::from_secs(10);

/// What a client sent for one cycle.
pub(super) struct Recorded {
    commands: Vec<Vec<Vec<u8>>>,
    /// Commands that were sent and called.
    all: u64,
}

impl Recorded {
    /// Has a driver do one cycle.
    pub(super) fn of(bench: &mut Bench, who: usize) -> Result<Self> {
        let mut drivers = start(bench, who, 1, &["once"], 1.0)?;
        let mut monitor = BufReader::new(TcpStream::connect(("127.0.0.1", bench.server.port()))?);
        monitor.get_mut().write_all(b"MONITOR\r\n")?;
        let mut line = Vec::new();
        monitor.read_until(b'\n', &mut line)?;
        ensure!(line.starts_with(b"+OK"), "the server refuses to be watched");
        bench.commands.reset()?;
        drivers[0].go()?;
        drivers[0].report(LONGEST)?;
        let all = bench.commands.count(&[])?.all;
        monitor.get_mut().set_read_timeout(Some(SILENCE))?;
        let mut commands = Vec::new();
        loop {
            line.clear();
            // A time-out: there is no more.
            if monitor.read_until(b'\n', &mut line).unwrap_or(0) == 0 {
                break;
            }
            commands.extend(sent(&line).filter(|words| of_the_lock(words)));
        }
        ensure!(!commands.is_empty(), "nothing was recorded");
        Ok(Self { commands, all })
    }

    /// Run time of the server's main thread, in µs a cycle.
    pub(super) fn replay(&self, bench: &mut Bench, who: usize) -> Result<f64> {
        let mut pipeline = redis::Pipeline::new();
        for words in std::iter::repeat_n(&self.commands, AT_A_TIME).flatten() {
            let mut command = Cmd::new();
            words.iter().for_each(|word| {
                command.arg(word.as_slice());
            });
            pipeline.add_command(command).ignore();
        }
        let mut connection = bench.server.connect()?;
        bench.commands.clear()?;
        bench.commands.reset()?;
        for _ in 0..TIMES {
            pipeline.exec(&mut connection)?;
        }
        let counts = bench.commands.count(bench.contestants[who].sends)?;
        let cycles = (AT_A_TIME * TIMES) as f64;
        let all = counts.all as f64 / cycles;
        ensure!(
            (all - self.all as f64).abs() < 0.5,
            "sent again, a cycle is {all} commands, and was {}",
            self.all
        );
        Ok(counts.server as f64 / 1e3 / cycles)
    }
}

fn of_the_lock(words: &[Vec<u8>]) -> bool {
    let mut words = words.iter();
    words.any(|word| word.windows(5).any(|part| part == b"bench"))
}

/// The words of a command that a client sent: none of what a script called.
/// `+1700000000.123456 [0 127.0.0.1:50000] "GET" "key"`
fn sent(line: &[u8]) -> Option<Vec<Vec<u8>>> {
    let line = line.trim_ascii_end();
    let end = line.iter().position(|byte| *byte == b']')?;
    if line[..end].ends_with(b" lua") {
        return None;
    }
    words(&line[end + 1..]).ok()
}

/// Words in quotes, as the server escapes them.
fn words(text: &[u8]) -> Result<Vec<Vec<u8>>> {
    let mut words = Vec::new();
    let mut bytes = text.iter().copied();
    while let Some(byte) = bytes.next() {
        if byte != b'"' {
            continue;
        }
        let mut word = Vec::new();
        loop {
            match bytes.next().context("a word has no end")? {
                b'"' => break,
                b'\\' => word.push(match bytes.next().context("nothing is escaped")? {
                    b'n' => b'\n',
                    b'r' => b'\r',
                    b't' => b'\t',
                    b'a' => 7,
                    b'b' => 8,
                    b'x' => {
                        let digits = [bytes.next(), bytes.next()];
                        let digits: Vec<u8> = digits.into_iter().flatten().collect();
                        u8::from_str_radix(std::str::from_utf8(&digits)?, 16)?
                    }
                    other => other,
                }),
                other => word.push(other),
            }
        }
        words.push(word);
    }
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_monitored_command_is_read_back() {
        let line = br#"+1.2 [0 127.0.0.1:5] "GET" "a \"b\" \x00\n"
"#;
        assert_eq!(
            sent(line),
            Some(vec![b"GET".to_vec(), b"a \"b\" \0\n".to_vec()])
        );
    }

    #[test]
    fn what_a_script_calls_was_not_sent() {
        assert_eq!(sent(b"+1.2 [0 lua] \"GET\" \"a\"\r\n"), None);
    }
}
