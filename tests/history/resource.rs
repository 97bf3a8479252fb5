//! What the locks protect: one counter for each, in the parent, behind a socket. It
//! takes part (docs/GUARANTEES.md): a token older than the newest it has seen is refused.

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counter {
    pub value: u64,
    /// The writes that were taken. Each adds one to what its writer read, so an update
    /// that was lost makes the value the smaller one.
    pub taken: u64,
    pub refused: u64,
    newest: u64,
}

impl Counter {
    fn admits(&mut self, token: u64) -> bool {
        let admitted = token >= self.newest;
        self.newest = self.newest.max(token);
        if !admitted {
            self.refused += 1;
        }
        admitted
    }

    pub fn read(&mut self, token: u64) -> Option<u64> {
        self.admits(token).then_some(self.value)
    }

    /// Whether it was taken.
    pub fn write(&mut self, token: u64, value: u64) -> bool {
        let admitted = self.admits(token);
        if admitted {
            self.value = value;
            self.taken += 1;
        }
        admitted
    }
}

pub struct Resource {
    counters: Arc<Mutex<Vec<Counter>>>,
    path: PathBuf,
    _directory: tempfile::TempDir,
}

impl Resource {
    pub fn serve(keys: usize) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("resource");
        let counters = Arc::new(Mutex::new(vec![Counter::default(); keys]));
        let listener = UnixListener::bind(&path).expect("a socket");
        let shared = Arc::clone(&counters);
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let counters = Arc::clone(&shared);
                // Ends with its client.
                std::thread::spawn(move || serve(client, &counters));
            }
        });
        Self {
            counters,
            path,
            _directory: directory,
        }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn counters(&self) -> Vec<Counter> {
        self.counters.lock().expect("the counters").clone()
    }
}

/// `KEY TOKEN` reads, `KEY TOKEN VALUE` writes; the answer is a value, or `refused`.
fn serve(client: UnixStream, counters: &Mutex<Vec<Counter>>) {
    let mut answers = client.try_clone().expect("the other half");
    let mut questions = BufReader::new(client);
    let mut line = String::new();
    while questions.read_line(&mut line).is_ok() {
        // A line without an end is a part of one: its writer was killed.
        let Some(question) = line.strip_suffix('\n') else {
            return;
        };
        let words = question
            .split(' ')
            .map(|word| word.parse().expect("a number"));
        let words: Vec<u64> = words.collect();
        line.clear();
        let [key, token, value @ ..] = words.as_slice() else {
            panic!("no question: {words:?}");
        };
        let mut counters = counters.lock().expect("the counters");
        let counter = &mut counters[usize::try_from(*key).expect("a small number")];
        let answer = match value {
            [] => counter.read(*token),
            [value, ..] => counter.write(*token, *value).then_some(*value),
        };
        drop(counters);
        let answer = answer.map_or_else(|| "refused\n".to_owned(), |value| format!("{value}\n"));
        if answers.write_all(answer.as_bytes()).is_err() {
            return;
        }
    }
}

/// In a worker: the way to the resource.
pub struct Client {
    answers: BufReader<UnixStream>,
    key: usize,
    token: u64,
}

impl Client {
    pub fn connect(path: &Path) -> Self {
        let stream = UnixStream::connect(path).expect("the resource");
        Self {
            answers: BufReader::new(stream),
            key: 0,
            token: 0,
        }
    }

    /// What follows is under that lock.
    pub fn under(&mut self, key: usize, token: u64) -> &mut Self {
        (self.key, self.token) = (key, token);
        self
    }

    /// `None`: refused.
    pub fn read(&mut self) -> Option<u64> {
        self.ask(format!("{} {}\n", self.key, self.token))
    }

    /// Whether it was taken.
    pub fn write(&mut self, value: u64) -> bool {
        self.ask(format!("{} {} {value}\n", self.key, self.token))
            .is_some()
    }

    fn ask(&mut self, question: String) -> Option<u64> {
        let stream = self.answers.get_mut();
        stream.write_all(question.as_bytes()).expect("the resource");
        let mut answer = String::new();
        self.answers.read_line(&mut answer).expect("its answer");
        answer.trim_end().parse().ok()
    }
}

#[test]
fn the_resource_refuses_a_token_older_than_the_newest_it_has_seen() {
    let resource = Resource::serve(2);
    let mut old = Client::connect(resource.path());
    let mut new = Client::connect(resource.path());
    assert_eq!(old.under(1, 5).read(), Some(0));
    assert!(old.write(1));
    // A read is enough to shut the older one out.
    assert_eq!(new.under(1, 6).read(), Some(1));
    assert!(!old.write(2));
    assert_eq!(old.read(), None);
    assert!(new.write(2));
    assert!(old.under(0, 5).write(1), "another key, other tokens");
    let counter = resource.counters()[1];
    assert_eq!((counter.value, counter.taken, counter.refused), (2, 2, 2));
}
