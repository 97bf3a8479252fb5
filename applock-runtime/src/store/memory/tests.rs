//! What the wait queue of this store promises, each promise a test.

use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use uuid::Uuid;

use super::*;
use crate::clock::ManualClock;
use crate::store::{CLAIM, Grant, Identity, Notification, Notifications, OwnerId, QueuePosition};

const TTL: Duration = Duration::from_secs(60);

/// A store, and one engine that uses it.
struct Table {
    store: MemoryStore,
    clock: ManualClock,
    notifications: Notifications,
    notified: UnboundedReceiver<Notification>,
}

fn table() -> Table {
    let clock = ManualClock::new();
    let (notifications, notified) = unbounded_channel();
    Table {
        store: MemoryStore::with_clock(clock.clone()),
        clock,
        notifications,
        notified,
    }
}

fn key() -> Key {
    Key::whole("a").unwrap()
}

fn id(owner: u128) -> OwnerId {
    Uuid::from_u128(owner)
}

impl Table {
    fn store(&self) -> Arc<MemoryStore> {
        Arc::new(self.store.clone())
    }

    async fn ask(&self, owner: u128, queue: Option<Notifications>) -> Acquired {
        self.ask_for(key(), owner, queue).await
    }

    async fn ask_for(&self, key: Key, owner: u128, queue: Option<Notifications>) -> Acquired {
        let request = Acquire {
            due: None,
            key,
            owner: id(owner),
            ttl: TTL,
            remember: Duration::from_secs(3_600),
            identity: Arc::new(Identity {
                instance: "web-1".into(),
                host: "db7".into(),
                pid: 1,
            }),
            notifications: queue,
            ticket: None,
        };
        let mut answers = self.store().acquire(vec![request], TTL).await;
        answers.pop().unwrap().unwrap()
    }

    /// The holder, if the requester is refused.
    async fn attempt(&self, owner: u128) -> Option<String> {
        match self.ask(owner, None).await {
            Acquired::Granted { .. } => None,
            Acquired::Busy(info) => Some(info.owner_id().to_owned()),
            other => panic!("a try does not wait: {other:?}"),
        }
    }

    async fn queue(&self, owner: u128) -> QueuePosition {
        match self.ask(owner, Some(self.notifications.clone())).await {
            Acquired::Queued(position) => position,
            other => panic!("{other:?}"),
        }
    }

    async fn release(&self, owner: u128) -> bool {
        self.release_and_keep(owner, None).await
    }

    async fn release_and_keep(&self, owner: u128, keep: Option<Duration>) -> bool {
        let end = Release {
            outcome: crate::protocol::Outcome::Released,
            key: key(),
            owner: id(owner),
            token: None,
            remember: std::time::Duration::from_secs(3_600),
            keep,
        };
        let mut answers = self.store().release(vec![end], TTL).await;
        answers.pop().unwrap().unwrap().ended
    }

    async fn renew(&self, owner: u128) -> bool {
        let beat = Renew {
            key: key(),
            owner: id(owner),
            token: 1,
            remember: std::time::Duration::from_secs(3_600),
            ttl: TTL,
        };
        let mut answers = self.store().renew(vec![beat], TTL).await;
        answers.pop().unwrap().unwrap()
    }

    /// The next grant that a waiter was notified of.
    fn notified(&mut self) -> Option<Grant> {
        match self.notified.try_recv().ok()? {
            Notification::Granted(_, grant) => Some(grant),
            Notification::Poll | Notification::Moved(_) => {
                panic!("this store can notify at any time")
            }
        }
    }

    fn granted(&mut self) -> Option<OwnerId> {
        self.notified().map(|grant| grant.owner)
    }
}

fn shown(owner: u128) -> Option<String> {
    Some(id(owner).simple().to_string())
}

#[tokio::test]
async fn the_waiters_get_the_lock_in_the_order_of_their_coming() {
    let mut table = table();
    assert_eq!(table.attempt(1).await, None);
    for owner in [4, 2, 3] {
        assert!(table.queue(owner).await.is_new);
    }
    let again = table.queue(2).await;
    assert!(!again.is_new && again.is_notified);
    assert_eq!((again.ahead, again.holder.waiters()), (1, Some(3)));
    for (holder, next) in [(1, 4), (4, 2), (2, 3)] {
        assert_eq!(table.granted(), None);
        assert!(table.release(holder).await);
        assert_eq!(table.granted(), Some(id(next)));
        assert!(!table.release(holder).await);
    }
    assert!(table.release(3).await);
    assert_eq!(table.granted(), None);
    assert_eq!(table.attempt(5).await, None);
}

#[tokio::test]
async fn a_grant_is_dated_by_the_clock_that_queue_positions_are_dated_by() {
    let mut table = table();
    table.attempt(1).await;
    let position = table.queue(2).await;
    let passed = Duration::from_millis(1_500);
    table.clock.advance(passed);
    table.release(1).await;
    let grant = table.notified().unwrap();
    assert_eq!(u128::from(grant.micros - position.at), passed.as_micros());
    assert_eq!(grant.claim, CLAIM);
    let holder = table.queue(3).await.holder;
    assert_eq!(holder.fencing_token(), Some(grant.token));
    assert_eq!(holder.remaining(), Some(CLAIM));
    assert_eq!(holder.ttl(), Some(TTL));
}

#[tokio::test]
async fn a_try_never_jumps_the_queue() {
    let mut table = table();
    table.attempt(1).await;
    table.queue(2).await;
    table.release(1).await;
    assert_eq!(table.attempt(9).await, shown(2));
    // Neither the claim's end, nor at_least's, nor a lease's lets one in.
    table.queue(3).await;
    table.clock.advance(CLAIM);
    assert_eq!(table.attempt(9).await, shown(3));
    assert_eq!(
        [table.granted(), table.granted()],
        [Some(id(2)), Some(id(3))]
    );
    table.queue(4).await;
    assert!(table.release_and_keep(3, Some(TTL)).await);
    assert_eq!(table.granted(), None);
    table.clock.advance(TTL);
    assert_eq!(table.attempt(9).await, shown(4));
    assert_eq!(table.granted(), Some(id(4)));
}

#[tokio::test]
async fn a_claim_becomes_a_lease_by_the_first_heartbeat_or_is_over() {
    let mut table = table();
    table.attempt(1).await;
    for owner in [2, 3, 4] {
        table.queue(owner).await;
    }
    table.release(1).await;
    assert!(table.renew(2).await);
    table.clock.advance(TTL - Duration::from_millis(1));
    assert!(table.renew(2).await);
    table.clock.advance(CLAIM);
    let force = table
        .store()
        .force_release(key(), Some(Duration::ZERO), By::of_a_test(), TTL);
    assert!(
        !force.await.unwrap(),
        "it is silent for less than half a lease"
    );
    table.release(2).await;
    table.clock.advance(CLAIM);
    assert!(!table.renew(3).await);
    // The first waiter polls, and is answered rather than notified.
    let notifications = table.notifications.clone();
    assert!(matches!(
        table.ask(4, Some(notifications)).await,
        Acquired::Granted { .. }
    ));
    assert_eq!(
        [table.granted(), table.granted()],
        [Some(id(2)), Some(id(3))]
    );
    assert_eq!(table.granted(), None);
    table.clock.advance(CLAIM);
    assert!(table.renew(4).await, "an answer is a full lease");
}

#[tokio::test]
async fn a_waiter_whose_engine_has_ended_is_skipped_and_never_shown_as_a_holder() {
    let mut table = table();
    table.attempt(1).await;
    let (gone, their_end) = unbounded_channel();
    table.ask(2, Some(gone.clone())).await;
    table.queue(3).await;
    table.ask(4, Some(gone)).await;
    drop(their_end);
    table.release(1).await;
    assert_eq!(table.granted(), Some(id(3)));
    table.release(3).await;
    let last = table.store().inspect(key(), TTL).await.unwrap().last;
    assert_eq!(Some(last.unwrap().owner_id), shown(3));
    assert_eq!(table.attempt(5).await, None);
}

#[tokio::test]
async fn a_waiter_that_leaves_is_out_of_the_queue_and_its_crossing_grant_goes_on() {
    let mut table = table();
    table.attempt(1).await;
    for owner in [2, 3, 4] {
        table.queue(owner).await;
    }
    assert!(!table.release(2).await);
    assert_eq!(table.queue(3).await.ahead, 0);
    table.release(1).await;
    // The grant is on its way while it leaves.
    assert!(table.release(3).await);
    assert_eq!(
        [table.granted(), table.granted()],
        [Some(id(3)), Some(id(4))]
    );
    assert!(!table.renew(3).await);
    assert!(table.renew(4).await);
}

#[tokio::test]
async fn a_release_by_force_serves_the_waiters_and_counts_a_claim_as_a_lease() {
    let mut table = table();
    table.attempt(1).await;
    table.queue(2).await;
    table.queue(3).await;
    let force = |stale| {
        table
            .store()
            .force_release(key(), stale, By::of_a_test(), TTL)
    };
    assert!(force(None).await.unwrap());
    assert!(!force(Some(Duration::ZERO)).await.unwrap());
    table.clock.advance(CLAIM / 2);
    assert!(force(Some(Duration::ZERO)).await.unwrap());
    let seen = table.store().inspect(key(), TTL).await.unwrap();
    let holder = seen.holder.unwrap();
    assert_eq!(Some(holder.owner_id().to_owned()), shown(3));
    assert_eq!(holder.waiters(), Some(0));
    assert_eq!(
        [table.granted(), table.granted()],
        [Some(id(2)), Some(id(3))]
    );
}

#[tokio::test]
async fn of_many_names_none_is_kept_for_longer_than_it_is_remembered_and_awaited() {
    let table = table();
    let name = |number: u128| Key::whole(&format!("job {number}")).unwrap();
    let (gone, their_end) = unbounded_channel();
    // Held, with a live waiter: never forgotten, however many others come and go.
    table.ask_for(name(0), 1, None).await;
    let live = Some(table.notifications.clone());
    table.ask_for(name(0), 2, live).await;
    for number in 1..=10_000 {
        table.ask_for(name(number), 1, None).await;
        if number % 3 == 0 {
            table.ask_for(name(number), 2, Some(gone.clone())).await;
        }
        if number % 2 == 0 {
            let end = Release {
                outcome: crate::protocol::Outcome::Released,
                key: name(number),
                owner: id(1),
                token: None,
                remember: std::time::Duration::from_secs(3_600),
                keep: None,
            };
            table.store().release(vec![end], TTL).await;
        }
    }
    let known = || table.store.locks().states.len();
    assert_eq!(known(), 10_001, "the fence of each is still remembered");
    // Also where a waiter's engine has ended, and no request will ever show that.
    drop(their_end);
    table.clock.advance(2 * Duration::from_secs(3_600));
    for number in 10_001..=20_100 {
        table.ask_for(name(number), 1, None).await;
        table.clock.advance(Duration::from_secs(60));
    }
    assert!(known() < 500, "{}", known());
    assert!(table.store.locks().states.contains_key(&name(0).lock));
}
