//! What goes wrong among several servers: a plan of failovers and migrations drawn from the seed,
//! and how each of its steps is carried out.
//!
//! The steps are those that real servers took when it was done to them: a planned failover of
//! sentinels leaves the old master answering 'yes' for a while; one that was killed comes back as
//! a master, perhaps an empty one; one that was frozen carries out what lay in its socket; a
//! cluster is down before it promotes; replicas are behind, so a promotion loses what was written
//! last.

use std::time::Duration;

use turmoil::Sim;

use crate::key::Side;

use super::history::{OwnerNumber, Switch, What};
use super::server::data::Holder;
use super::server::fleet::{Layout, SENTINELS, SHARDS};
use super::server::sentinel::switched;
use super::world::{World, between, server_name};

/// One step.
#[derive(Clone, Copy, Debug)]
pub(super) enum FleetStep {
    /// Nothing of what its master writes comes to a replica any more.
    CutOff(usize),
    /// A replica has all that its master has written.
    CatchUp(usize),
    /// Every replica is so far behind.
    Lag(Duration),
    Crash(usize),
    Back {
        server: usize,
        empty: bool,
    },
    Freeze(usize),
    Thaw(usize),
    /// A replica becomes the master of a shard: what counts from now on.
    Promote {
        shard: usize,
        to: usize,
    },
    /// A server follows the master of a shard: also one that thought that it was the master.
    Follow {
        server: usize,
        shard: usize,
    },
    /// A sentinel names the new master; and tells of it.
    Name(usize),
    Announce {
        sentinel: usize,
        from: usize,
        to: usize,
    },
    SentinelDown(usize, bool),
    /// A cluster's node learns who has which slots.
    Learn(usize),
    /// All nodes say that the cluster is down.
    Down(bool),
    /// A node is reset, and knows of no slot.
    Reset(usize, bool),
    /// The slot of a lock begins to move to another shard; one of its keys is there; all are.
    Migrate {
        key: usize,
        to: usize,
    },
    MoveKey {
        key: usize,
        which: usize,
    },
    Migrated {
        key: usize,
        to: usize,
    },
}

/// What is to happen among the servers.
#[derive(Default)]
pub(super) struct Episodes {
    pub(super) steps: Vec<(Duration, FleetStep)>,
    pub(super) switches: Vec<Switch>,
    /// When no write is acknowledged.
    pub(super) lags: Vec<(Duration, Duration)>,
}

/// How long it takes the hosts to find a server whose address they know: two time-outs, a dial.
const FOUND: Duration = Duration::from_millis(1_500);

/// The last episode begins so long before the faults are over.
const LAST: Duration = Duration::from_millis(4_000);

/// The end of the time in which an episode may take what it takes.
struct Draw<'a> {
    rng: &'a mut fastrand::Rng,
    acknowledged: bool,
    to: Episodes,
    masters: [usize; SHARDS],
    /// The shard that each lock is in, in a cluster.
    shards: Vec<usize>,
}

impl Episodes {
    /// Draws what happens until `end`. `shards` is where each lock is, in a cluster.
    pub(super) fn draw(
        rng: &mut fastrand::Rng,
        layout: Layout,
        acknowledged: bool,
        shards: Vec<usize>,
        end: Duration,
    ) -> Self {
        let mut draw = Draw {
            rng,
            acknowledged,
            to: Self::default(),
            masters: match layout {
                Layout::Cluster => [0, 1],
                _ => [0; SHARDS],
            },
            shards,
        };
        let mut at = draw.between(500, 1_500);
        while at + LAST < end {
            let over = match draw.rng.u8(..6) {
                0 => draw.lag(at),
                1 if acknowledged => draw.lag(at),
                _ if layout == Layout::Sentinels => draw.sentinels(at),
                1 | 2 => draw.migration(at),
                _ => draw.failover(at),
            };
            // What was granted in vain has to be undone, and to be seen to be.
            let calm = if acknowledged { 3_500 } else { 1_200 };
            at = over + draw.between(300, calm);
        }
        let mut episodes = draw.to;
        episodes.steps.sort_by_key(|(at, _)| *at);
        episodes
    }
}

impl Draw<'_> {
    fn between(&mut self, least: u64, most: u64) -> Duration {
        between(self.rng, least, most)
    }

    fn step(&mut self, at: Duration, step: FleetStep) {
        self.to.steps.push((at, step));
    }

    /// Replicas are far behind.
    fn lag(&mut self, at: Duration) -> Duration {
        let end = at + self.between(300, 2_500);
        let lag = self.between(300, 3_000);
        self.step(at, FleetStep::Lag(lag));
        self.step(end, FleetStep::Lag(Duration::from_millis(20)));
        self.to.lags.push((at, end + Duration::from_millis(300)));
        end
    }

    /// A failover by sentinels. Gives when it is over.
    fn sentinels(&mut self, at: Duration) -> Duration {
        let old = self.masters[0];
        let new = 1 - old;
        self.masters = [new; SHARDS];
        let kind = self.rng.u8(..4);
        let mut named = match kind {
            0 => {
                // Planned.
                let promoted = at;
                self.step(promoted, FleetStep::Promote { shard: 0, to: new });
                promoted + self.between(20, 1_000)
            }
            1 => {
                // Cut off, but not from the hosts.
                self.step(at, FleetStep::CutOff(new));
                let promoted = at + self.between(300, 1_000);
                self.step(promoted, FleetStep::Promote { shard: 0, to: new });
                promoted + self.between(20, 600)
            }
            2 => {
                self.step(at, FleetStep::CutOff(new));
                self.step(at, FleetStep::Crash(old));
                let promoted = at + self.between(300, 1_000);
                self.step(promoted, FleetStep::Promote { shard: 0, to: new });
                let empty = self.rng.bool();
                let back = promoted + self.between(20, 600);
                self.step(back, FleetStep::Back { server: old, empty });
                promoted + self.between(20, 300)
            }
            _ => {
                self.step(at, FleetStep::CutOff(new));
                self.step(at, FleetStep::Freeze(old));
                let promoted = at + self.between(300, 1_000);
                self.step(promoted, FleetStep::Promote { shard: 0, to: new });
                let thawed = promoted + self.between(0, 1_200);
                self.step(thawed, FleetStep::Thaw(old));
                promoted + self.between(20, 300)
            }
        };
        let promoted = self.promoted();
        let mut sentinels: Vec<usize> = (0..SENTINELS).collect();
        self.rng.shuffle(&mut sentinels);
        let announce = |sentinel| FleetStep::Announce {
            sentinel,
            from: old,
            to: new,
        };
        // The leader names it, and tells of it a second later.
        self.step(named, FleetStep::Name(sentinels[0]));
        self.step(named + Duration::from_millis(1_100), announce(sentinels[0]));
        named += self.between(20, 100);
        self.step(named, FleetStep::Name(sentinels[1]));
        self.step(named, announce(sentinels[1]));
        let known = named;
        let end = known + self.between(1_300, 2_500);
        let last = match self.rng.u8(..3) {
            0 => {
                self.step(at, FleetStep::SentinelDown(sentinels[2], true));
                self.step(end, FleetStep::SentinelDown(sentinels[2], false));
                end
            }
            // It does not see the others.
            1 => end,
            _ => known + self.between(20, 100),
        };
        self.step(last, FleetStep::Name(sentinels[2]));
        self.step(last, announce(sentinels[2]));
        self.step(
            end,
            FleetStep::Follow {
                server: old,
                shard: 0,
            },
        );
        let over = match self.acknowledged {
            true => end + FOUND / 2,
            false => known + FOUND,
        };
        self.to.switches.push(Switch {
            from: at,
            promoted,
            to: new,
            known,
            is_published: true,
            over,
        });
        end + Duration::from_millis(300)
    }

    /// When the last promotion is.
    fn promoted(&self) -> Duration {
        let steps = self.to.steps.iter().rev();
        let mut promotions = steps.filter(|(_, step)| matches!(step, FleetStep::Promote { .. }));
        promotions.next().map_or(Duration::ZERO, |(at, _)| *at)
    }

    /// A failover of a cluster's shard.
    fn failover(&mut self, at: Duration) -> Duration {
        let shard = self.rng.usize(..SHARDS);
        let old = self.masters[shard];
        let new = (old + SHARDS) % (2 * SHARDS);
        self.masters[shard] = new;
        let promote = FleetStep::Promote { shard, to: new };
        let follow = FleetStep::Follow { server: old, shard };
        // When it is the new one that serves, and when the old one knows.
        let (promoted, demoted) = match self.rng.u8(..4) {
            0 => {
                self.step(at, FleetStep::CatchUp(new));
                (at, at)
            }
            1 => {
                self.step(at, FleetStep::CutOff(new));
                let promoted = at + self.between(300, 1_000);
                (promoted, promoted + self.between(50, 1_500))
            }
            2 => {
                self.step(at, FleetStep::CutOff(new));
                self.step(at, FleetStep::Crash(old));
                let promoted = self.outage(at);
                let demoted = promoted + self.between(50, 1_000);
                let back = FleetStep::Back {
                    server: old,
                    empty: false,
                };
                self.step(demoted, back);
                (promoted, demoted)
            }
            _ => {
                self.step(at, FleetStep::CutOff(new));
                self.step(at, FleetStep::Freeze(old));
                let promoted = self.outage(at);
                let thawed = promoted + self.between(0, 1_500);
                self.step(thawed, FleetStep::Thaw(old));
                // It carries out what lay there.
                (promoted, thawed + Duration::from_millis(20))
            }
        };
        self.step(promoted, promote);
        self.step(promoted, FleetStep::Learn(new));
        self.step(demoted, FleetStep::Learn(old));
        self.step(demoted, follow);
        let other = self.masters[1 - shard];
        let heard = promoted + self.between(0, 100);
        self.step(heard, FleetStep::Learn(other));
        let over = demoted.max(heard) + FOUND;
        let its_replica = (other + SHARDS) % (2 * SHARDS);
        let end = over + self.between(500, 1_500);
        match self.rng.u8(..3) {
            // It does not hear of it for long, and tells the old map.
            0 => self.step(end, FleetStep::Learn(its_replica)),
            1 if !self.acknowledged => {
                self.step(heard, FleetStep::Learn(its_replica));
                self.step(heard, FleetStep::Reset(its_replica, true));
                self.step(end, FleetStep::Reset(its_replica, false));
                self.step(end, FleetStep::Learn(its_replica));
            }
            _ => self.step(heard, FleetStep::Learn(its_replica)),
        }
        self.to.switches.push(Switch {
            from: at,
            promoted,
            to: new,
            known: demoted,
            is_published: false,
            over,
        });
        end
    }

    /// The cluster is down until it promotes: gives when that is.
    fn outage(&mut self, at: Duration) -> Duration {
        let down = at + self.between(200, 500);
        let promoted = down + self.between(200, 800);
        self.step(down, FleetStep::Down(true));
        self.step(promoted, FleetStep::Down(false));
        promoted
    }

    /// The slot of a lock moves to the other shard.
    fn migration(&mut self, at: Duration) -> Duration {
        let key = self.rng.usize(..self.shards.len());
        let to = 1 - self.shards[key];
        self.shards[key] = to;
        let length = self.between(60, 1_500);
        let end = at + length;
        self.step(at, FleetStep::Migrate { key, to });
        let mut moves: Vec<usize> = (0..SIDES.len() + 1).collect();
        self.rng.shuffle(&mut moves);
        for which in moves {
            let when = at + length.mul_f64(self.rng.f64());
            self.step(when, FleetStep::MoveKey { key, which });
        }
        self.step(end, FleetStep::Migrated { key, to });
        let (from, target) = (self.masters[1 - to], self.masters[to]);
        for server in [from, target] {
            self.step(end, FleetStep::Learn(server));
            let heard = end + self.between(0, 200);
            let replica = (server + SHARDS) % (2 * SHARDS);
            self.step(heard, FleetStep::Learn(replica));
        }
        self.to.switches.push(Switch {
            from: at,
            promoted: end,
            to: target,
            known: end,
            is_published: false,
            over: end + FOUND / 2,
        });
        end + Duration::from_millis(300)
    }
}

/// The keys beside a lock.
const SIDES: [Side; 3] = [Side::Fence, Side::Queue, Side::Waiters];

/// What a server says of a lock.
#[derive(PartialEq)]
struct Account {
    holder: Option<Holder>,
    kept: Option<Duration>,
    queue: Vec<OwnerNumber>,
}

impl Account {
    fn of(world: &World, server: usize, key: usize, now: Duration) -> Self {
        let data = world.data(server);
        let mut data = data.borrow_mut();
        data.expire(now);
        let lock = &world.keys[key].lock;
        Self {
            holder: data.holder(lock),
            kept: data.kept(lock),
            queue: data.queue(lock),
        }
    }

    /// Notes in what the new master's account differs from this one.
    fn note_loss(&self, new: &Self, key: usize, note: impl Fn(What)) {
        if self.holder != new.holder || self.kept != new.kept {
            if let Some((owner, token, _)) = self.holder {
                match new.holder {
                    // Its last heartbeat is lost.
                    Some((same, known, until)) if (same, known) == (owner, token) => {
                        note(What::Lasts(key, owner, until));
                        note(What::Lost(key, owner));
                    }
                    _ => {
                        note(What::Lost(key, owner));
                        note(What::Took(key, owner));
                    }
                }
            }
            if let Some((owner, _, until)) = new.holder
                && self.holder.is_none_or(|(before, ..)| before != owner)
            {
                note(What::Returned(key, owner, until));
            }
            if let Some(until) = new.kept {
                note(What::Kept(key, until));
            }
        }
        for owner in self.queue.iter().filter(|it| !new.queue.contains(it)) {
            note(What::Unqueued(key, *owner));
        }
        for owner in new.queue.iter().filter(|it| !self.queue.contains(it)) {
            note(What::Entered(key, *owner));
            note(What::EndedInVain(key, *owner));
        }
    }
}

/// Carries a step out.
pub(super) fn carry_out(step: FleetStep, sim: &mut Sim<'_>, world: &World) {
    let now = sim.elapsed();
    let mut fleet = world.fleet.borrow_mut();
    match step {
        FleetStep::CutOff(server) => {
            if let Some(following) = &mut fleet.servers[server].follows {
                following.is_cut = true;
            }
        }
        FleetStep::CatchUp(server) => {
            if let Some(following) = &mut fleet.servers[server].follows {
                following.lag = Duration::ZERO;
            }
            fleet.replicate(now);
        }
        FleetStep::Lag(lag) => {
            let servers = fleet.servers.iter_mut();
            servers
                .filter_map(|server| server.follows.as_mut())
                .for_each(|following| following.lag = lag);
        }
        FleetStep::Crash(server) => {
            sim.crash(server_name(server));
            world.bus[server].take();
        }
        FleetStep::Back { server, empty } => {
            if empty {
                fleet.servers[server].data.borrow_mut().forget();
            }
            drop(fleet);
            sim.bounce(server_name(server));
        }
        FleetStep::Freeze(server) => fleet.servers[server].is_frozen = true,
        FleetStep::Thaw(server) => {
            fleet.servers[server].is_frozen = false;
            world.thawed[server].notify_waiters();
        }
        FleetStep::Promote { shard, to } => {
            drop(fleet);
            promote(world, shard, to, now);
        }
        FleetStep::Follow { server, shard } => {
            let master = fleet.map.masters[shard];
            fleet.follow(server, master, now);
            world.kicked[server].notify_waiters();
        }
        FleetStep::Name(sentinel) => {
            let (master, epoch) = (fleet.map.masters[0], fleet.map.epoch);
            let sentinel = &mut fleet.sentinels[sentinel];
            (sentinel.names, sentinel.epoch) = (master, epoch);
        }
        FleetStep::Announce { sentinel, from, to } => {
            // Nobody may be subscribed.
            let _ = world.switches[sentinel].send(switched(from, to));
        }
        FleetStep::SentinelDown(sentinel, is_down) => {
            fleet.sentinels[sentinel].is_down = is_down;
            // Its connections end.
            let _ = world.switches[sentinel].send(String::new());
        }
        FleetStep::Learn(server) => fleet.servers[server].map = fleet.map.clone(),
        FleetStep::Down(is_down) => {
            for server in &mut fleet.servers {
                server.is_down = is_down;
            }
        }
        FleetStep::Reset(server, is_reset) => fleet.servers[server].is_reset = is_reset,
        FleetStep::Migrate { key, to } => {
            let slot = crate::store::redis::slot(&world.keys[key].lock);
            fleet.migrating = Some((slot, to));
        }
        FleetStep::MoveKey { key, which } => {
            let key = &world.keys[key];
            let name = match which.checked_sub(1) {
                None => key.lock.to_string(),
                Some(side) => key.side(SIDES[side]).concat(),
            };
            let Some((slot, shard)) = fleet.migrating else {
                return;
            };
            let (from, to) = (fleet.map.owner(slot), fleet.map.masters[shard]);
            let data = [from, to].map(|server| fleet.servers[server].data.clone());
            data[0].borrow_mut().give(&name, &mut data[1].borrow_mut());
            fleet.wrote(from, now);
            fleet.wrote(to, now);
        }
        FleetStep::Migrated { key, to } => {
            drop(fleet);
            for which in 0..=SIDES.len() {
                carry_out(FleetStep::MoveKey { key, which }, sim, world);
            }
            let mut fleet = world.fleet.borrow_mut();
            let slot = crate::store::redis::slot(&world.keys[key].lock);
            fleet.map.moved.insert(slot, to);
            fleet.map.epoch += 1;
            fleet.migrating = None;
            fleet.migrated = Some((slot, now));
        }
    }
}

/// Another server becomes the master of a shard, with what it has: what is not there is lost.
fn promote(world: &World, shard: usize, to: usize, now: Duration) {
    let old = {
        let mut fleet = world.fleet.borrow_mut();
        fleet.replicate(now);
        fleet.map.masters[shard]
    };
    let of_shard = |key: &usize| world.serving(&world.keys[*key].lock) == old;
    let keys: Vec<usize> = (0..world.keys.len()).filter(of_shard).collect();
    let accounts = |server| {
        let keys = keys.iter();
        keys.map(|key| Account::of(world, server, *key, now))
            .collect::<Vec<_>>()
    };
    let before = accounts(old);
    {
        let mut fleet = world.fleet.borrow_mut();
        fleet.promote(to);
        let layout = fleet.layout;
        for (number, master) in fleet.map.masters.iter_mut().enumerate() {
            if number == shard || layout != Layout::Cluster {
                *master = to;
            }
        }
        fleet.map.epoch += 1;
    }
    let mut history = world.history.borrow_mut();
    let notes = std::cell::RefCell::new(&mut *history);
    for ((key, before), after) in keys.iter().zip(before).zip(accounts(to)) {
        before.note_loss(&after, *key, |what| notes.borrow_mut().note(now, what));
    }
}
