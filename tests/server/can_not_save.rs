//! Promise: a server that can't save its data, and so refuses to write (MISCONF), is
//! reported as unavailable, with the cause; a lock is kept if that is mended in time, and
//! reported as lost before its lease is over if it is not (F20).

use crate::support::fault::Fault;
use crate::support::lease::LIMIT;
use crate::support::redis::RedisServer;
use crate::support::refusal::{assert_unavailable, is_taken};
use crate::support::wait;

const MISCONF: Fault = Fault {
    server: || RedisServer::with(&["--enable-protected-configs", "local"]),
    begins: |server| {
        let () = server
            .try_run(&["CONFIG", "SET", "save", "3600 1"])
            .unwrap();
        std::fs::remove_dir_all(server.directory()).unwrap();
        save(server, "err");
    },
    reported: |server, error| {
        assert_unavailable(error, &["QUEUE:job", "can't save"]);
        assert!(!is_taken(server));
    },
    ends: |server| {
        std::fs::create_dir(server.directory()).unwrap();
        let path = server.directory().to_str().unwrap();
        let () = server.try_run(&["CONFIG", "SET", "dir", path]).unwrap();
        save(server, "ok");
    },
};

fn save(server: &RedisServer, outcome: &str) {
    let () = server.run("BGSAVE");
    let line = format!("rdb_last_bgsave_status:{outcome}");
    wait::until("the save has ended", LIMIT, || {
        let info: String = server.run("INFO persistence");
        info.contains("rdb_bgsave_in_progress:0") && info.contains(&line)
    });
}

#[test]
fn a_lock_is_kept_if_it_is_mended_in_time() {
    MISCONF.passes();
}

#[test]
fn a_holder_learns_of_its_loss_in_time_if_it_is_not() {
    MISCONF.lasts();
}
