//! A server without a network: it carries commands out at a time that the caller sets, and
//! runs scripts.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;

use mlua::Function;

use super::data::Data;
use super::lua::Scripts;
use super::wire::{Reply, request};

/// A server, and all that is connected to it.
pub(in crate::simulation) struct Bare {
    scripts: Scripts,
    learned: RefCell<BTreeMap<String, Function>>,
    backend: Rc<Backend>,
}

#[derive(Default)]
struct Backend {
    data: RefCell<Data>,
    now: Cell<Duration>,
    run: RefCell<String>,
    channels: RefCell<BTreeSet<String>>,
    published: RefCell<Vec<(String, String)>>,
}

impl Bare {
    pub(in crate::simulation) fn new() -> Self {
        let backend = Rc::<Backend>::default();
        let of_scripts = Rc::clone(&backend);
        Self {
            scripts: Scripts::new(move |words| of_scripts.command(words)).unwrap(),
            learned: RefCell::default(),
            backend,
        }
    }

    /// Carries a request out, as it travels.
    pub(in crate::simulation) fn ask(&self, packed: &[u8]) -> redis::Value {
        let (words, _) = request(packed).unwrap();
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let reply = match words[..] {
            ["EVAL", text, count, ref rest @ ..] => {
                let mut learned = self.learned.borrow_mut();
                let script = learned
                    .entry(text.to_owned())
                    .or_insert_with(|| self.scripts.learn(text));
                let (keys, arguments) = rest.split_at(count.parse().unwrap());
                self.scripts.run(script, keys, arguments)
            }
            ref other => self.backend.command(other),
        };
        let mut bytes = Vec::new();
        reply.write(false, &mut bytes);
        redis::parse_redis_value(&bytes).unwrap()
    }

    pub(in crate::simulation) fn set_time(&self, since_start: Duration) {
        self.backend.now.set(since_start);
    }

    /// Begins another life, with its data: no client is connected.
    pub(in crate::simulation) fn restart(&self, run: &str) {
        run.clone_into(&mut self.backend.run.borrow_mut());
        self.backend.channels.borrow_mut().clear();
    }

    pub(in crate::simulation) fn forget(&self) {
        self.backend.data.borrow_mut().forget();
    }

    pub(in crate::simulation) fn subscribe(&self, channel: &str, listens: bool) {
        let mut channels = self.backend.channels.borrow_mut();
        if listens {
            channels.insert(channel.to_owned());
        } else {
            channels.remove(channel);
        }
    }

    /// What subscribers received since the last time: channel and message.
    pub(in crate::simulation) fn published(&self) -> Vec<(String, String)> {
        self.backend.published.take()
    }
}

impl Backend {
    fn command(&self, words: &[&str]) -> Reply {
        match words {
            ["PUBLISH", channel, message] => {
                let is_heard = self.channels.borrow().contains(*channel);
                if is_heard {
                    let heard = ((*channel).to_owned(), (*message).to_owned());
                    self.published.borrow_mut().push(heard);
                }
                Reply::Int(is_heard.into())
            }
            ["INFO", ..] => Reply::Bulk(format!("run_id:{}\r\n", self.run.borrow())),
            _ => {
                let answer = self.data.borrow_mut().command(words, self.now.get());
                answer.unwrap_or_else(|| panic!("no such command: {words:?}"))
            }
        }
    }
}
