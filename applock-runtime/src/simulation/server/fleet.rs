//! The servers of a run, and what each of them believes: who is master, who follows whom how far
//! behind, which slots are whose; and the sentinels.
//!
//! Nothing here goes over the simulated network, but for what clients ask: servers learn of one
//! another what the plan of the run has them learn, and when.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::time::Duration;

use crate::store::redis::slot;

use super::data::Data;

/// Half of a cluster's slots are those of the first shard.
pub(in crate::simulation) const SHARDS: usize = 2;
const SLOTS: u16 = 16_384;

/// How many sentinels there are.
pub(in crate::simulation) const SENTINELS: usize = 3;

/// How the servers of a run belong together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::simulation) enum Layout {
    Single,
    /// A master and a replica, watched by sentinels.
    Sentinels,
    /// Two masters, each with a replica: servers 0 and 1 begin as masters, 2 and 3 follow them.
    Cluster,
}

/// All servers and sentinels.
pub(in crate::simulation) struct Fleet {
    pub(in crate::simulation) layout: Layout,
    pub(in crate::simulation) servers: Vec<Server>,
    pub(in crate::simulation) sentinels: Vec<Sentinel>,
    /// Who has which slots in truth: of what the others say, nothing lasts. Without a cluster the
    /// first shard has all.
    pub(in crate::simulation) map: SlotMap,
    /// A slot that is on its way, and the shard that it goes to.
    pub(in crate::simulation) migrating: Option<(u16, usize)>,
    /// The slot that has moved last, and since when it is there.
    pub(in crate::simulation) migrated: Option<(u16, Duration)>,
}

/// One server.
pub(in crate::simulation) struct Server {
    pub(in crate::simulation) data: Rc<RefCell<Data>>,
    /// Whom it follows, in its own belief. `None`: it is a master.
    pub(in crate::simulation) follows: Option<Following>,
    /// Who has which slots, in its own belief.
    pub(in crate::simulation) map: SlotMap,
    /// It thinks that the cluster is down.
    pub(in crate::simulation) is_down: bool,
    /// It was reset, and knows of no slot.
    pub(in crate::simulation) is_reset: bool,
    /// It does nothing.
    pub(in crate::simulation) is_frozen: bool,
    /// How often it became a master.
    pub(in crate::simulation) term: u64,
    /// What it had after each of its writes, as far back as a replica may be.
    log: VecDeque<(Duration, u64, Data)>,
    written: u64,
}

/// How a replica follows its master.
#[derive(Clone, Copy)]
pub(in crate::simulation) struct Following {
    pub(in crate::simulation) master: usize,
    /// It has what was written there until then. Never goes back.
    until: Duration,
    pub(in crate::simulation) lag: Duration,
    /// Nothing comes from the master any more.
    pub(in crate::simulation) is_cut: bool,
}

/// Which server is master of which slots.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::simulation) struct SlotMap {
    pub(in crate::simulation) epoch: u64,
    pub(in crate::simulation) masters: [usize; SHARDS],
    /// The slots that are not where they were at first, with their shard.
    pub(in crate::simulation) moved: BTreeMap<u16, usize>,
}

impl SlotMap {
    pub(in crate::simulation) fn shard(&self, slot: u16) -> usize {
        let first = usize::from(slot >= SLOTS / 2);
        self.moved.get(&slot).copied().unwrap_or(first)
    }

    pub(in crate::simulation) fn owner(&self, slot: u16) -> usize {
        self.masters[self.shard(slot)]
    }

    /// Slots in a row that one server has: the first and the last, and who.
    pub(super) fn ranges(&self) -> Vec<(u16, u16, usize)> {
        let mut starts: Vec<u16> = vec![0, SLOTS / 2];
        starts.extend(self.moved.keys().flat_map(|slot| [*slot, *slot + 1]));
        starts.retain(|start| *start < SLOTS);
        starts.sort_unstable();
        starts.dedup();
        let ends = starts.iter().skip(1).copied().chain([SLOTS]);
        let ranges = starts.iter().zip(ends);
        ranges
            .map(|(first, end)| (*first, end - 1, self.owner(*first)))
            .collect()
    }
}

/// One sentinel.
#[derive(Default)]
pub(in crate::simulation) struct Sentinel {
    /// The server that it names, and the epoch of that.
    pub(in crate::simulation) names: usize,
    pub(in crate::simulation) epoch: u64,
    pub(in crate::simulation) is_down: bool,
}

impl Fleet {
    pub(in crate::simulation) fn new(layout: Layout) -> Self {
        let (servers, masters) = match layout {
            Layout::Single => (1, 1),
            Layout::Sentinels => (2, 1),
            Layout::Cluster => (2 * SHARDS, SHARDS),
        };
        let map = SlotMap {
            epoch: 1,
            masters: match layout {
                Layout::Cluster => [0, 1],
                _ => [0; SHARDS],
            },
            moved: BTreeMap::new(),
        };
        let server = |number: usize| Server {
            data: Rc::default(),
            follows: number
                .checked_sub(masters)
                .map(|master| Following::of(master, Duration::ZERO)),
            map: map.clone(),
            is_down: false,
            is_reset: false,
            is_frozen: false,
            term: 1,
            log: VecDeque::from([(Duration::ZERO, 0, Data::default())]),
            written: 0,
        };
        let sentinel = |_| Sentinel {
            epoch: 1,
            ..Sentinel::default()
        };
        Self {
            layout,
            servers: (0..servers).map(server).collect(),
            sentinels: match layout {
                Layout::Sentinels => (0..SENTINELS).map(sentinel).collect(),
                _ => Vec::new(),
            },
            map,
            migrating: None,
            migrated: None,
        }
    }

    /// The server whose word counts about a lock.
    pub(in crate::simulation) fn serving(&self, key: &str) -> usize {
        self.map.owner(slot(key))
    }

    /// Whether a server's word about a lock counts: of one that is on its way, that of both.
    pub(in crate::simulation) fn serves(&self, server: usize, key: &str) -> bool {
        let goes_there = |(moving, shard)| moving == slot(key) && self.map.masters[shard] == server;
        self.serving(key) == server || self.migrating.is_some_and(goes_there)
    }

    /// Replication goes on until now.
    pub(in crate::simulation) fn replicate(&mut self, now: Duration) {
        for server in &mut self.servers {
            if let Some(following) = &mut server.follows
                && !following.is_cut
            {
                let until = now.saturating_sub(following.lag);
                following.until = following.until.max(until);
            }
        }
    }

    /// A server has written something, perhaps: what it has now, for its replicas. Gives the
    /// number of its last write.
    pub(in crate::simulation) fn wrote(&mut self, server: usize, now: Duration) -> u64 {
        if self.layout == Layout::Single {
            return 0;
        }
        let oldest = self
            .servers
            .iter()
            .filter_map(|one| one.follows)
            .filter(|following| following.master == server)
            .map(|following| following.until)
            .min()
            .unwrap_or(now);
        let server = &mut self.servers[server];
        server.written += 1;
        let data = server.data.borrow().clone();
        server.log.push_back((now, server.written, data));
        while server.log.get(1).is_some_and(|(at, ..)| *at <= oldest) {
            server.log.pop_front();
        }
        server.written
    }

    /// How many replicas have a server's write of that number.
    pub(super) fn acknowledged(&self, server: usize, written: u64) -> i64 {
        let log = &self.servers[server].log;
        let has = |following: Following| {
            let mut had = log.iter().take_while(|(at, ..)| *at <= following.until);
            had.any(|(_, number, _)| *number >= written)
        };
        let replicas = self.servers.iter().filter_map(|one| one.follows);
        let count = replicas.filter(|following| following.master == server && has(*following));
        i64::try_from(count.count()).unwrap()
    }

    /// A replica becomes a master, with what it has.
    pub(in crate::simulation) fn promote(&mut self, server: usize) {
        let Some(following) = self.servers[server].follows.take() else {
            return;
        };
        let log = &self.servers[following.master].log;
        let had = log.iter().rev().find(|(at, ..)| *at <= following.until);
        let data = had.map(|(.., data)| data.clone()).unwrap_or_default();
        let promoted = &mut self.servers[server];
        *promoted.data.borrow_mut() = data;
        promoted.term += 1;
        promoted.log.clear();
    }

    /// A server becomes a replica of that one, and has all that it has.
    pub(in crate::simulation) fn follow(&mut self, server: usize, master: usize, now: Duration) {
        let follower = &mut self.servers[server];
        let lag = follower.follows.map(|following| following.lag);
        follower.follows = Some(Following {
            lag: lag.unwrap_or(Following::LAG),
            ..Following::of(master, now)
        });
        self.wrote(master, now);
    }

    /// The replicas of a master, as it knows them.
    pub(super) fn replicas(&self, master: usize) -> Vec<usize> {
        let follows = |server: &Server| server.follows.is_some_and(|it| it.master == master);
        let servers = self.servers.iter().enumerate();
        servers
            .filter(|(_, server)| follows(server))
            .map(|(number, _)| number)
            .collect()
    }
}

impl Following {
    /// How far a replica is behind where nothing is wrong.
    const LAG: Duration = Duration::from_millis(20);

    fn of(master: usize, until: Duration) -> Self {
        Self {
            master,
            until,
            lag: Self::LAG,
            is_cut: false,
        }
    }
}
