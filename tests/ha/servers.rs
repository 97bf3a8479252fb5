//! What the tests of this program rest on: the servers do what `tests/support` says of them.
//! No locker takes part.

use redis::RedisResult;

use crate::support::cluster::{Cluster, SOON, Takes};
use crate::support::proxy::FaultProxy;
use crate::support::redis::RedisServer;
use crate::support::sentinel::SentinelSet;
use crate::support::wait;

/// A key that belongs to that master, with a value.
fn written(cluster: &Cluster, master: usize) -> String {
    let key = format!("QUEUE:{}", cluster.app(master, 0));
    let () = cluster.nodes[master].run(&format!("SET {key} here"));
    key
}

/// What was read, or the code of the error.
fn read(server: &RedisServer, key: &str) -> String {
    let value: RedisResult<Option<String>> = server.try_run(&["GET", key]);
    match value {
        Ok(value) => value.unwrap_or_else(|| "nothing".to_owned()),
        Err(error) => error.code().unwrap_or("no code").to_owned(),
    }
}

/// The replica has got all that its master has sent.
fn until_has_all(master: &RedisServer, replica: &RedisServer) {
    wait::until("the replica has all", SOON, || {
        let size = |server: &RedisServer| server.run::<i64>("DBSIZE");
        size(master) == size(replica)
    });
}

#[test]
fn replicas_of_a_cluster_take_over_and_lose_only_what_never_reached_them() {
    let cluster = Cluster::start();
    let all = [Takes::Over, Takes::Force, Takes::Power];
    for (master, takes) in all.into_iter().enumerate() {
        let key = written(&cluster, master);
        let replica = cluster.replica_of(master);
        assert_eq!(read(&cluster.nodes[replica], &key), "MOVED");
        until_has_all(&cluster.nodes[master], &cluster.nodes[replica]);
        let parted = master > 0;
        if parted {
            let late = format!("{{{key}}}:late");
            cluster.nodes[master].part_from_replicas();
            let () = cluster.nodes[master].run(&format!("SET {late} here"));
            cluster.promote(replica, takes);
            assert_eq!(read(&cluster.nodes[replica], &late), "nothing");
        } else {
            cluster.promote(replica, takes);
        }
        assert_eq!(read(&cluster.nodes[replica], &key), "here", "{takes:?}");
        wait::until("the old master has no slots", SOON, || {
            read(&cluster.nodes[master], &key) == "MOVED"
        });
        assert!(cluster.masters_by(replica).contains(&replica));
        assert!(!cluster.masters_by(replica).contains(&master));
    }
}

#[test]
fn a_master_that_is_killed_or_frozen_is_replaced_and_one_that_is_restarted_keeps_its_data_or_not() {
    let mut cluster = Cluster::quick();
    let keys = [0, 1, 2].map(|master| written(&cluster, master));
    for master in [0, 1] {
        until_has_all(
            &cluster.nodes[master],
            &cluster.nodes[cluster.replica_of(master)],
        );
    }
    cluster.nodes[0].kill();
    cluster.until_promoted(3);
    assert_eq!(read(&cluster.nodes[3], &keys[0]), "here");
    cluster.nodes[0].restart();
    wait::until("it comes back as a replica", SOON, || {
        read(&cluster.nodes[0], &keys[0]) == "MOVED"
    });

    cluster.nodes[1].freeze();
    cluster.until_promoted(4);
    cluster.nodes[1].thaw();
    assert_eq!(read(&cluster.nodes[4], &keys[1]), "here");
    wait::until("it learns of that", SOON, || {
        read(&cluster.nodes[1], &keys[1]) == "MOVED"
    });

    // Back at once, before it is missed.
    cluster.nodes[2].keep_data();
    cluster.nodes[2].restart_elsewhere();
    wait::until("it serves at its new port", SOON, || {
        read(&cluster.nodes[2], &keys[2]) == "here"
    });
    cluster.until_well();
}

#[test]
fn a_slot_moves_with_its_keys_step_by_step() {
    let cluster = Cluster::start();
    let key = written(&cluster, 0);
    let slot = cluster.slot(&key);
    for number in 0..250 {
        let () = cluster.nodes[0].run(&format!("SET {{{key}}}:{number} x"));
    }
    let migration = cluster.migrate(slot, 0, 1);
    assert_eq!(read(&cluster.nodes[0], &key), "here");
    migration.move_keys(std::slice::from_ref(&key));
    assert_eq!(read(&cluster.nodes[0], &key), "ASK");
    assert_eq!(read(&cluster.nodes[1], &key), "MOVED");
    assert_eq!(migration.move_some(50), 50);
    migration.move_all();
    migration.finish();
    assert_eq!(read(&cluster.nodes[1], &key), "here");
    assert_eq!(read(&cluster.nodes[0], &key), "MOVED");
    assert_eq!(cluster.nodes[1].run::<i64>("DBSIZE"), 251);
    // An empty one, and one that is not moved in the end.
    cluster.move_slot(slot + 1, 0, 2);
    cluster.migrate(slot, 1, 2).abandon();
    assert_eq!(read(&cluster.nodes[1], &key), "here");
    assert_eq!(cluster.nodes[1].errors("ASK"), 0);
    assert!(cluster.nodes[0].errors("ASK") > 0);
}

#[test]
fn a_node_that_was_reset_knows_no_slots_and_one_is_known_at_the_port_that_it_announces() {
    let cluster = Cluster::start();
    let key = written(&cluster, 0);
    cluster.reset(5);
    let slots: Vec<redis::Value> = cluster.nodes[5].run("CLUSTER SLOTS");
    assert!(slots.is_empty());
    let proxy = FaultProxy::before(&cluster.nodes[0]);
    let known = |port: u16| {
        let error: RedisResult<String> = cluster.nodes[1].try_run(&["GET", &key]);
        error.unwrap_err().to_string().contains(&format!(":{port}"))
    };
    assert!(known(cluster.nodes[0].port()));
    cluster.announce(0, proxy.port());
    assert!(known(proxy.port()));
}

#[test]
fn sentinels_name_another_master_and_for_a_while_there_are_two() {
    let set = SentinelSet::start();
    let () = set.servers[0].run("SET key here");
    let (named, _) = set.fail_over();
    assert_ne!(named, 0);
    assert!(set.servers[named].is_master());
    assert_eq!(read(&set.servers[named], "key"), "here");
    // For about ten seconds.
    assert!(set.servers[0].is_master());
    let () = set.servers[0].run("SET key there");
    set.names().until_all(named);
    wait::until("the old master follows", SOON, || {
        read(&set.servers[0], "key") == "here"
    });
    assert!(set.servers[0].is_replica());
}

#[test]
fn a_master_that_is_killed_frozen_asked_to_end_or_cut_off_is_replaced() {
    let mut set = SentinelSet::quick();
    let mut master = 0;
    for round in 0..4 {
        let mut names = set.names();
        match round {
            0 => set.servers[master].kill(),
            1 => set.servers[master].freeze(),
            2 => set.servers[master].terminate(),
            _ => set.servers[master].cut_off(),
        }
        let (named, _) = names.until_another(master);
        names.until_all(named);
        assert!(set.servers[named].is_master());
        match round {
            // Empty, and a master until the sentinels see it.
            0 => {
                set.servers[master].restart();
                assert_eq!(set.servers[master].run::<i64>("DBSIZE"), 0);
            }
            1 => {
                set.servers[master].thaw();
                assert!(set.servers[master].is_master(), "a zombie");
            }
            2 => set.servers[master].restart(),
            // It says still that it is one.
            _ => assert!(set.servers[master].is_master()),
        }
        if round < 3 {
            wait::until("it comes back as a replica", SOON, || {
                set.servers[master].is_in_sync()
            });
        }
        master = named;
    }
}

#[test]
fn a_sentinel_more_is_known_to_all_and_one_that_is_restarted_knows_the_others() {
    let mut set = SentinelSet::start();
    set.add_sentinel();
    set.until_known();
    set.sentinels[3].kill();
    set.sentinels[3].restart();
    set.until_known();
    assert_eq!(set.names().all(), [Some(0); 4]);
}
