//! What a cluster's node answers about slots, and where it sends a command that is not for it.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::simulation::world::{PORT, World, elapsed, server_name};
use crate::store::redis::slot;

use super::fleet::Fleet;
use super::wire::Reply;

/// What was asked while a slot moved arrives within so long: the slowest network takes 3.5 s. Found by
/// seed 31 of its time.
const ON_ITS_WAY: Duration = Duration::from_secs(4);

/// Why a node does not carry a command out that names these keys. `asking`: it stands behind
/// `ASKING`.
pub(super) fn refusal(world: &World, server: usize, keys: &[&str], asking: bool) -> Option<Reply> {
    let slots: BTreeSet<u16> = keys.iter().map(|key| slot(key)).collect();
    let slot = *slots.first()?;
    let blame = |what: String| world.history.borrow_mut().blame(what);
    if slots.len() > 1 {
        blame(format!(
            "crossing: one call has keys of the slots {slots:?}"
        ));
        return Some(error(
            "CROSSSLOT Keys in request don't hash to the same slot",
        ));
    }
    let fleet = world.fleet.borrow();
    let node = &fleet.servers[server];
    if node.is_down || node.is_reset {
        return Some(error("CLUSTERDOWN The cluster is down"));
    }
    let owner = node.map.owner(slot);
    let moving = fleet.migrating.filter(|(moving, _)| *moving == slot);
    let target = moving.map(|(_, shard)| fleet.map.masters[shard]);
    let is_here = |key: &&str| node.data.borrow().has(key);
    let here = keys.iter().filter(|key| is_here(key)).count();
    let has_come = |(moved, at): (u16, Duration)| moved == slot && elapsed() < at + ON_ITS_WAY;
    if asking && target != Some(server) && !fleet.migrated.is_some_and(has_come) {
        blame(format!(
            "asking: server {server} is asked for slot {slot}, which is not on its way there"
        ));
    }
    let try_again = || error("TRYAGAIN Multiple keys request during rehashing of slot");
    match target {
        Some(target) if owner == server && target != server => match here {
            0 => Some(redirect("ASK", slot, target)),
            _ if here < keys.len() => Some(try_again()),
            _ => None,
        },
        Some(target) if asking && target == server => (here < keys.len()).then(try_again),
        _ if owner == server && node.follows.is_none() => None,
        _ => Some(redirect("MOVED", slot, owner)),
    }
}

fn error(text: &str) -> Reply {
    Reply::Error(text.to_owned())
}

fn redirect(how: &str, slot: u16, to: usize) -> Reply {
    Reply::Error(format!("{how} {slot} {}:{PORT}", server_name(to)))
}

/// What `CLUSTER` and a word are answered.
pub(super) fn about(fleet: &Fleet, server: usize, word: &str) -> Option<Reply> {
    let node = &fleet.servers[server];
    Some(match word {
        "INFO" => {
            // It takes a while to notice that it was reset.
            let state = if node.is_down { "fail" } else { "ok" };
            let epoch = node.map.epoch;
            Reply::Bulk(format!(
                "cluster_state:{state}\r\ncluster_current_epoch:{epoch}\r\n"
            ))
        }
        "SLOTS" if node.is_reset => Reply::Array(Vec::new()),
        "SLOTS" => Reply::Array(node.map.ranges().into_iter().map(range(fleet)).collect()),
        _ => return None,
    })
}

fn range(fleet: &Fleet) -> impl Fn((u16, u16, usize)) -> Reply {
    |(first, last, master)| {
        let place = |server: usize| {
            Reply::Array(vec![
                Reply::Bulk(server_name(server)),
                Reply::Int(PORT.into()),
                Reply::Bulk(format!("{server:040}")),
            ])
        };
        let replicas = fleet.replicas(master);
        let mut range = vec![Reply::Int(first.into()), Reply::Int(last.into())];
        range.push(place(master));
        range.extend(replicas.into_iter().map(place));
        Reply::Array(range)
    }
}
