//! A second process that plays a part of a test: the test's own binary, run again for
//! that one test, which asks [`part`] first.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

const PART: &str = "APPLOCK_TEST_PART";
const MARK: &str = "[child says] ";

/// How long a child may take to say something on a busy machine.
const DEADLINE: Duration = Duration::from_secs(30);

/// The name of a test as the test runner knows it: below the program, with its modules.
pub fn name_of<Test>(_: Test) -> &'static str {
    let path = std::any::type_name::<Test>();
    path.split_once("::").map_or(path, |(_, name)| name)
}

/// In the child: what the parent gave it to do. `None` in the parent.
pub fn part() -> Option<String> {
    std::env::var(PART).ok()
}

/// In the child: tells the parent something.
pub fn say(text: impl std::fmt::Display) {
    println!("{MARK}{text}");
}

/// In the child: the next line that the parent tells it. `None`: it hung up.
pub fn hear() -> Option<String> {
    let mut line = String::new();
    let length = std::io::stdin().read_line(&mut line).ok()?;
    (length > 0).then(|| line.trim_end().to_owned())
}

/// In the child: waits until the parent hangs up, or is gone.
pub fn until_dismissed() {
    let mut rest = Vec::new();
    std::io::stdin().read_to_end(&mut rest).ok();
}

pub struct ChildProcess {
    process: Child,
    says: Receiver<String>,
    line: Option<ChildStdin>,
}

impl ChildProcess {
    /// Runs the test of that name ([`name_of`]) once more, with `part` to play.
    pub fn start(test: &str, part: &str) -> Self {
        Self::with(test, part, &[])
    }

    /// The same, with further environment.
    pub fn with(test: &str, part: &str, environment: &[(&str, &str)]) -> Self {
        let mut process = Command::new(std::env::current_exe().expect("our own path"))
            .args(["--exact", test, "--nocapture", "--test-threads=1"])
            .env(PART, part)
            .env_remove(applock::URL_VARIABLE)
            .envs(environment.iter().copied())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("a child process");
        let line = process.stdin.take();
        let out = process.stdout.take().expect("its standard output");
        let (tell, says) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(out).lines().map_while(Result::ok) {
                // The test runner's own words stand before ours.
                if let Some((_, text)) = line.split_once(MARK)
                    && tell.send(text.to_owned()).is_err()
                {
                    break;
                }
            }
        });
        Self {
            process,
            says,
            line,
        }
    }

    /// The next thing that it says.
    #[track_caller]
    pub fn says(&self) -> String {
        self.says
            .recv_timeout(DEADLINE)
            .expect("the child says something")
    }

    /// Tells it a line, which it finds on its standard input.
    pub fn tell(&mut self, text: &str) {
        let line = self.line.as_mut().expect("the line to it");
        writeln!(line, "{text}").expect("it listens");
    }

    /// Kills it; what it has said by then, the last of it perhaps in part.
    pub fn last_words(mut self) -> Vec<String> {
        self.kill();
        self.says.iter().collect()
    }

    pub fn id(&self) -> u32 {
        self.process.id()
    }

    fn pid(&self) -> Pid {
        Pid::from_child(&self.process)
    }

    /// SIGTERM: it is asked to end.
    pub fn terminate(&self) {
        kill_process(self.pid(), Signal::TERM).expect("SIGTERM");
    }

    /// Whether it ended by itself, and its test had passed.
    pub fn has_ended(&mut self) -> bool {
        let ended = self.process.try_wait().expect("its state");
        ended.is_some_and(|status| {
            assert!(status.success(), "the child ended with {status}");
            true
        })
    }

    /// SIGKILL: it has no time for anything.
    pub fn kill(&mut self) {
        self.process.kill().expect("SIGKILL");
        self.process.wait().expect("its end");
    }

    /// SIGSTOP: it stands still, and so does its heartbeat.
    pub fn freeze(&self) {
        kill_process(self.pid(), Signal::STOP).expect("SIGSTOP");
    }

    /// SIGCONT.
    pub fn thaw(&self) {
        kill_process(self.pid(), Signal::CONT).expect("SIGCONT");
    }

    /// Lets it end by itself. Its test must have passed.
    pub fn dismiss(mut self) {
        drop(self.line.take());
        assert!(self.process.wait().expect("its end").success());
    }
}

impl Drop for ChildProcess {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
