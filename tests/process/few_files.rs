//! Promise: a process that can open no more files gets that as the error, however many it
//! lacks.

use applock::AppLocker;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::support::child::{self, ChildProcess};

fn tries_with_ever_more_files() {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    let open = std::fs::read_dir("/proc/self/fd").unwrap().count() as u64;
    // From none that it may open to enough. What tokio opens once stays open, so upward.
    for more in 0..12 {
        let current = Some(open + more);
        setrlimit(Resource::Nofile, Rlimit { current, maximum }).unwrap();
        match AppLocker::in_memory().lock("x").acquire_blocking() {
            Ok(_) => child::say("acquired"),
            Err(error) => child::say(error),
        }
    }
    child::say("done");
}

#[test]
fn an_engine_that_can_open_no_files_says_so() {
    if child::part().is_some() {
        return tries_with_ever_more_files();
    }
    let child = ChildProcess::start(
        child::name_of(an_engine_that_can_open_no_files_says_so),
        "few files",
    );
    let said: Vec<String> = std::iter::from_fn(|| Some(child.says()))
        .take_while(|said| said != "done")
        .collect();
    let (acquired, refused): (Vec<&String>, _) = said.iter().partition(|said| *said == "acquired");
    assert!(!acquired.is_empty() && refused.len() > 1, "{said:#?}");
    for text in refused {
        assert!(
            text.contains("can't be started") && text.contains("Too many open files"),
            "{text}"
        );
    }
    child.dismiss();
}
