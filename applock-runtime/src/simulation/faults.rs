//! What goes wrong in a run, and when: a plan drawn from the seed, and the hand that
//! carries it out between two steps of the simulation.

use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use std::time::Duration;

use turmoil::Sim;

use super::failovers::{self, Episodes, FleetStep};
use super::history::{Switch, What};
use super::server::fleet::Layout;
use super::world::{Ambush, HOSTS, SERVER, World, between, host_name, millis};

/// One step of the simulation. No message is faster: within a step hosts run one after
/// the other, and what one sends must not reach another in its past.
pub(super) const STEP: Duration = Duration::from_millis(10);

/// The slowest that a message travels when nothing is wrong.
pub(super) const SLOW: Duration = Duration::from_millis(30);

/// The longest that a message is delayed, and so comes to life after its connection was
/// given up: less than the kernel keeps sending it (`TCP_USER_TIMEOUT`).
const LONGEST_DELAY: Duration = Duration::from_millis(3_500);

/// The longest that a subscription over which nothing arrives is taken for alive.
const SILENCE: Duration = Duration::from_secs(8);

/// A run's length until the faults heal.
const CHAOS: Duration = Duration::from_secs(11);

/// Where the server forgets: when first, and how long nothing else happens before and
/// after, so that holders can notice.
const FIRST_FORGETTING: Duration = Duration::from_secs(2);
const CALM: Duration = Duration::from_secs(8);

#[derive(Clone, Copy, Debug)]
enum FaultStep {
    /// Nothing gets through between a host and the server; or in one direction only.
    Cut(usize),
    CutRequests(usize),
    CutAnswers(usize),
    Mend(usize),
    /// Whatever is on its way waits, and arrives when it is let go.
    Hold(usize),
    LetGo(usize),
    /// Every message takes so long.
    Slow(usize, Duration),
    Fast(usize),
    /// The connection fails at the host; what was sent over it arrives.
    GiveUp(usize),
    /// The same, but its subscription stays.
    GiveUpCommands(usize),
    /// The server closes the connection; or does so instead of answering.
    Reset(usize),
    LoseAnswer(usize),
    /// The server closes the subscription; or what it sends there gets lost.
    EndSubscription(usize),
    Mute(usize, bool),
    /// When it is notified of a grant next, nothing that it sends gets through.
    Ambush(usize),
    /// The server loses a wait queue.
    LoseQueue(usize),
    /// The server dies, with or without what it knew.
    Crash {
        forget: bool,
    },
    Restart {
        forgot: bool,
    },
    /// Of several servers.
    Fleet(FleetStep),
}

/// What is to go wrong.
pub(super) struct Plan {
    steps: VecDeque<(Duration, FaultStep)>,
    troubles: Vec<(Duration, Duration, Option<usize>)>,
    faults: Vec<(Duration, Duration, Option<usize>)>,
    switches: Vec<Switch>,
    pub(super) heal: Duration,
}

impl Plan {
    /// Draws a plan. Only where `forgetting` does the server ever lose its data.
    pub(super) fn draw(rng: &mut fastrand::Rng, forgetting: bool) -> Self {
        let mut plan = Self {
            steps: VecDeque::new(),
            troubles: Vec::new(),
            faults: Vec::new(),
            switches: Vec::new(),
            heal: CHAOS,
        };
        if forgetting {
            let back = FIRST_FORGETTING + outage(rng);
            plan.outage(FIRST_FORGETTING, back, true);
            plan.heal = FIRST_FORGETTING + CALM + CHAOS / 2;
            plan.chaos(rng, FIRST_FORGETTING + CALM, plan.heal, true);
        } else {
            plan.chaos(rng, Duration::ZERO, CHAOS, false);
        }
        plan.end_what_was_begun();
        plan
    }

    /// Draws a plan for several servers. `shards` is where each lock is, in a cluster.
    pub(super) fn draw_fleet(
        rng: &mut fastrand::Rng,
        layout: Layout,
        acknowledged: bool,
        shards: Vec<usize>,
    ) -> Self {
        let mut plan = Self::calm(CHAOS);
        let episodes = Episodes::draw(rng, layout, acknowledged, shards, CHAOS);
        let steps = episodes.steps.into_iter();
        let steps = steps.map(|(at, step)| (at, FaultStep::Fleet(step)));
        plan.steps.extend(steps);
        plan.switches = episodes.switches;
        if acknowledged {
            let lags = episodes.lags.into_iter();
            plan.faults.extend(lags.map(|(from, to)| (from, to, None)));
        }
        // Every other time the hosts have troubles of their own.
        if rng.bool() {
            plan.chaos_of_hosts(rng);
        }
        plan.end_what_was_begun();
        plan
    }

    fn chaos_of_hosts(&mut self, rng: &mut fastrand::Rng) {
        let mut at = Duration::ZERO;
        while at < CHAOS {
            at += between(rng, 0, 2_000);
            let end = (at + between(rng, 100, 2_000)).min(CHAOS);
            if end <= at {
                break;
            }
            let host = rng.usize(..HOSTS);
            self.trouble_one(rng, at, end, host);
            at = end;
        }
    }

    fn end_what_was_begun(&mut self) {
        let plan = self;
        plan.steps.make_contiguous().sort_by_key(|(at, _)| *at);
        // Whatever was begun at the end of its own time is over then.
        for host in 0..HOSTS {
            for step in [
                FaultStep::Mend(host),
                FaultStep::LetGo(host),
                FaultStep::Fast(host),
            ] {
                plan.steps.push_back((plan.heal, step));
            }
        }
    }

    /// Nothing goes wrong, unless it is added.
    pub(super) fn calm(heal: Duration) -> Self {
        Self {
            steps: VecDeque::new(),
            troubles: Vec::new(),
            faults: Vec::new(),
            switches: Vec::new(),
            heal,
        }
    }

    /// Whatever is on its way between a host and the server waits for so long.
    pub(super) fn hold(mut self, from: Duration, to: Duration, host: usize) -> Self {
        self.fault(
            from,
            to,
            host,
            FaultStep::Hold(host),
            FaultStep::LetGo(host),
        );
        self
    }

    /// What a host sends in that time takes `delay`, and is overtaken by what it sends over
    /// a new connection.
    pub(super) fn delay(
        mut self,
        from: Duration,
        to: Duration,
        host: usize,
        delay: Duration,
    ) -> Self {
        self.fault(
            from,
            to,
            host,
            FaultStep::Slow(host, delay),
            FaultStep::Fast(host),
        );
        self.steps.push_back((to, FaultStep::GiveUpCommands(host)));
        self
    }

    /// The server dies, and comes back without its data.
    pub(super) fn forget(mut self, from: Duration, to: Duration) -> Self {
        self.outage(from, to, true);
        self
    }

    /// A cluster's second shard has another master from then on, and the nodes of the first one do
    /// not hear of it.
    pub(super) fn unheard_failover(mut self, at: Duration) -> Self {
        let (old, new, shard) = (1, 3, 1);
        for step in [
            FleetStep::CatchUp(new),
            FleetStep::Promote { shard, to: new },
            FleetStep::Learn(new),
            FleetStep::Learn(old),
            FleetStep::Follow { server: old, shard },
        ] {
            self.steps.push_back((at, FaultStep::Fleet(step)));
        }
        self
    }

    /// Replicas are so far behind in that time that they acknowledge nothing.
    pub(super) fn lag(mut self, from: Duration, to: Duration) -> Self {
        for (at, lag) in [(from, to), (to, STEP)] {
            let step = FaultStep::Fleet(FleetStep::Lag(lag));
            self.steps.push_back((at, step));
        }
        self
    }

    /// The server loses the wait queue of a lock, and nothing else.
    pub(super) fn lose_queue(mut self, at: Duration, key: usize) -> Self {
        self.steps.push_back((at, FaultStep::LoseQueue(key)));
        self
    }

    fn chaos(&mut self, rng: &mut fastrand::Rng, from: Duration, to: Duration, forgetting: bool) {
        let mut at = from;
        while at < to {
            at += between(rng, 0, 1_000);
            let end = (at + between(rng, 100, 4_000)).min(to);
            if end <= at {
                break;
            }
            if rng.u8(..8) == 0 {
                // The server is stopped, and goes on later.
                for host in 0..HOSTS {
                    self.fault(at, end, host, FaultStep::Hold(host), FaultStep::LetGo(host));
                }
            } else {
                for host in 0..HOSTS {
                    self.trouble_one(rng, at, end, host);
                }
            }
            if rng.u8(..4) == 0 {
                let forget = forgetting && rng.bool();
                let start = at + between(rng, 0, millis(end - at));
                let start = start.min(to.saturating_sub(LONGEST_OUTAGE));
                self.outage(start, start + outage(rng), forget);
            }
            at = end;
        }
    }

    /// Perhaps something is wrong between a host and the server, for a part of the time.
    fn trouble_one(&mut self, rng: &mut fastrand::Rng, at: Duration, end: Duration, host: usize) {
        let from = at + between(rng, 0, millis(end - at));
        let to = from + between(rng, 0, millis(end - from));
        match rng.u8(..20) {
            0 => self.fault(from, to, host, FaultStep::Cut(host), FaultStep::Mend(host)),
            1 => self.fault(
                from,
                to,
                host,
                FaultStep::CutRequests(host),
                FaultStep::Mend(host),
            ),
            2 | 3 => self.fault(
                from,
                to,
                host,
                FaultStep::CutAnswers(host),
                FaultStep::Mend(host),
            ),
            4 => self.fault(
                from,
                to,
                host,
                FaultStep::Hold(host),
                FaultStep::LetGo(host),
            ),
            5 => {
                let delay = between(rng, 50, 900);
                self.fault(
                    at,
                    end,
                    host,
                    FaultStep::Slow(host, delay),
                    FaultStep::Fast(host),
                );
            }
            6..=8 => {
                // Late answers, and then none in time.
                let delay = between(rng, 50, 900);
                self.fault(
                    at,
                    end,
                    host,
                    FaultStep::Slow(host, delay),
                    FaultStep::Fast(host),
                );
                self.steps
                    .push_back((from, FaultStep::Slow(host, LONGEST_DELAY)));
            }
            9 | 10 => {
                // So late that others overtake it, over another connection.
                let delay = between(rng, 900, millis(LONGEST_DELAY));
                let to = to.min(from + Duration::from_millis(400));
                self.fault(
                    from,
                    to,
                    host,
                    FaultStep::Slow(host, delay),
                    FaultStep::Fast(host),
                );
                self.steps.push_back((to, FaultStep::GiveUp(host)));
            }
            11 => self.steps.push_back((from, FaultStep::Reset(host))),
            12 => self.steps.push_back((from, FaultStep::LoseAnswer(host))),
            13 => self
                .steps
                .push_back((from, FaultStep::EndSubscription(host))),
            15 | 16 => {
                // The server knows that it is gone.
                self.steps
                    .push_back((from, FaultStep::EndSubscription(host)));
                let from = from + 2 * STEP;
                self.fault(
                    from,
                    to.max(from),
                    host,
                    FaultStep::Cut(host),
                    FaultStep::Mend(host),
                );
            }
            17 => self.steps.push_back((from, FaultStep::Ambush(host))),
            14 => {
                self.fault(
                    from,
                    to,
                    host,
                    FaultStep::Mute(host, true),
                    FaultStep::Mute(host, false),
                );
                self.troubles.push((from, to + SILENCE, Some(host)));
            }
            _ => (),
        }
    }

    fn fault(
        &mut self,
        from: Duration,
        to: Duration,
        host: usize,
        begin: FaultStep,
        end: FaultStep,
    ) {
        self.steps.push_back((from, begin));
        self.steps.push_back((to, end));
        // What was under way takes a while to recover.
        self.troubles.push((from, to + LONGEST_DELAY, Some(host)));
        let delay = match begin {
            FaultStep::Slow(..) => LONGEST_DELAY,
            _ => Duration::ZERO,
        };
        self.faults.push((from, to + delay, Some(host)));
    }

    fn outage(&mut self, from: Duration, to: Duration, forget: bool) {
        self.steps.push_back((from, FaultStep::Crash { forget }));
        self.steps
            .push_back((to, FaultStep::Restart { forgot: forget }));
        self.troubles.push((from, to, None));
        self.faults.push((from, to, None));
    }
}

const LONGEST_OUTAGE: Duration = Duration::from_millis(1_200);

/// How long the server is down.
fn outage(rng: &mut fastrand::Rng) -> Duration {
    between(rng, 20, millis(LONGEST_OUTAGE))
}

/// Carries a plan out.
pub(super) struct Hand {
    plan: Plan,
    is_down: bool,
}

impl Hand {
    pub(super) fn new(plan: Plan, world: &World) -> Self {
        let mut history = world.history.borrow_mut();
        history.troubles.extend(&plan.troubles);
        history.faults.extend(&plan.faults);
        history.switches.extend(&plan.switches);
        history.acknowledged = world.acknowledged;
        Self {
            plan,
            is_down: false,
        }
    }

    /// Does what is due.
    pub(super) fn act(&mut self, sim: &mut Sim<'_>, world: &World) {
        self.spring(sim, world);
        while let Some((_, step)) = self.plan.steps.pop_front_if(|(at, _)| *at <= sim.elapsed()) {
            self.step(step, sim, world);
        }
    }

    /// Cuts off a host that has just been notified of a grant, where that was planned.
    fn spring(&mut self, sim: &mut Sim<'_>, world: &World) {
        let now = sim.elapsed();
        for host in 0..HOSTS {
            let ambush = &mut world.ambush.borrow_mut()[host];
            if *ambush != Ambush::Sprung || now >= self.plan.heal {
                continue;
            }
            *ambush = Ambush::None;
            let end = (now + LONGEST_DELAY).min(self.plan.heal);
            let place = self.plan.steps.partition_point(|(at, _)| *at <= end);
            self.plan.steps.insert(place, (end, FaultStep::Mend(host)));
            self.plan
                .steps
                .push_front((now, FaultStep::CutRequests(host)));
            let mut history = world.history.borrow_mut();
            let trouble = (now - STEP, end + LONGEST_DELAY, Some(host));
            history.troubles.push(trouble);
            history.faults.push(trouble);
        }
    }

    fn step(&mut self, step: FaultStep, sim: &mut Sim<'_>, world: &World) {
        let now = sim.elapsed();
        let note = |what| world.history.borrow_mut().note(now, what);
        note(What::Fault(format!("{step:?}")));
        if let FaultStep::GiveUp(host)
        | FaultStep::Reset(host)
        | FaultStep::LoseAnswer(host)
        | FaultStep::EndSubscription(host) = step
        {
            let moment = (now, now, Some(host));
            world.history.borrow_mut().faults.push(moment);
        }
        // What a host shares with each server, and with the sentinels.
        let remotes = world.remotes();
        let links = |host: usize, each: &mut dyn FnMut(&str, &str)| {
            for remote in &remotes {
                each(&host_name(host), remote);
            }
        };
        let cut = |host: usize, to| world.cut[host].store(to, Ordering::Relaxed);
        match step {
            FaultStep::Cut(host) => {
                cut(host, true);
                links(host, &mut |host, server| sim.partition(host, server));
            }
            FaultStep::CutRequests(host) => {
                cut(host, true);
                links(host, &mut |host, server| sim.partition_oneway(host, server));
            }
            FaultStep::CutAnswers(host) => {
                links(host, &mut |host, server| sim.partition_oneway(server, host));
            }
            FaultStep::Mend(host) => {
                cut(host, false);
                links(host, &mut |host, server| sim.repair(host, server));
            }
            FaultStep::Hold(host) => links(host, &mut |host, server| sim.hold(host, server)),
            FaultStep::LetGo(host) => links(host, &mut |host, server| sim.release(host, server)),
            FaultStep::Slow(host, delay) => links(host, &mut |host, server| {
                sim.set_link_latency(host, server, delay);
            }),
            FaultStep::Fast(host) => links(host, &mut |host, server| {
                sim.set_link_latency(host, server, STEP);
                sim.set_link_max_message_latency(host, server, SLOW);
            }),
            FaultStep::Fleet(step) => failovers::carry_out(step, sim, world),
            FaultStep::GiveUp(host) => {
                world.given_up[host].notify_waiters();
                world.subscription_given_up[host].notify_waiters();
            }
            FaultStep::GiveUpCommands(host) => world.given_up[host].notify_waiters(),
            FaultStep::Reset(host) => world.resets[host].notify_waiters(),
            FaultStep::LoseAnswer(host) => world.lose_answer[host].set(true),
            FaultStep::EndSubscription(host) => world.subscription_ends[host].notify_waiters(),
            FaultStep::Ambush(host) => world.ambush.borrow_mut()[host] = Ambush::Laid,
            FaultStep::Mute(host, to) => world.mute[host].set(to),
            FaultStep::LoseQueue(key) => {
                let lock = &world.keys[key].lock;
                world.data(0).borrow_mut().lose_queue(lock);
            }
            FaultStep::Crash { forget } => {
                sim.crash(SERVER);
                self.is_down = true;
                if forget {
                    world.data(0).borrow_mut().forget();
                    note(What::Forgot);
                }
            }
            FaultStep::Restart { forgot } => {
                if self.is_down {
                    sim.bounce(SERVER);
                }
                self.is_down = false;
                if forgot {
                    note(What::Back);
                }
            }
        }
    }
}
