//! Restarts of the machine, clocks that are set, and files of version 1.

use std::fs;

use tokio::sync::mpsc::unbounded_channel;

use super::super::file_names::Files;
use super::*;
use crate::info::Ending;

const HOUR: Duration = Duration::from_secs(60 * 60);

/// The directory after a restart of the machine: an hour later by the wall clock.
fn restarted(path: &Path, up_ns: u64) -> Home {
    let booted = boot_clock::now().up_ns;
    Home::with_clock(path, move |now| BootTime {
        up_ns: now.up_ns - booted + up_ns,
        wall_us: now.wall_us + 1_000 * 1_000 * HOUR.as_secs(),
        boot: Some(Uuid::from_u128(7)),
    })
}

async fn wait(home: &Home, key: &Key, owner: u128) -> Acquired {
    let request = Acquire {
        notifications: Some(unbounded_channel().0),
        ..ask(key, owner)
    };
    let mut answers = home.store().acquire(vec![request], LONG).await;
    answers.pop().unwrap().unwrap()
}

#[tokio::test]
async fn a_restart_of_the_machine_ends_leases_and_queues_and_tokens_grow_on() {
    // The new start's uptime is before, at, and after that of the old one.
    let up = boot_clock::now().up_ns;
    for up_ns in [1, up, up + nanos(TTL / 2), up + nanos(HOUR)] {
        let directory = scratch();
        let before = Home::at(directory.path());
        let key = key("a");
        let token = before.acquire(&key, 1).await.unwrap();
        assert!(matches!(wait(&before, &key, 2).await, Acquired::Queued(_)));
        let after = restarted(directory.path(), up_ns);
        let seen = after.inspect(&key).await;
        assert!(seen.holder.is_none(), "{up_ns}");
        let last = seen.last.unwrap();
        assert_eq!((last.ending, last.fencing_token), (Ending::Expired, token));
        let length = last.until.unwrap().duration_since(last.from).unwrap();
        assert_eq!(length, TTL);
        assert!(!after.renew(&key, 1).await);
        assert!(!after.release(&key, 1, None).await);
        // The waiter of the old start is dead, and is not in the way.
        assert!(after.acquire(&key, 3).await.unwrap() > token);
        let holder = after.acquire(&key, 4).await.unwrap_err();
        assert_eq!(holder.waiters(), Some(0));
    }
}

#[tokio::test]
async fn a_wall_clock_that_is_set_neither_ends_nor_prolongs_a_lease() {
    for wall_us in [1, 1_000_000_000_000_000, 8_000_000_000_000_000] {
        let directory = scratch();
        let usual = Home::at(directory.path());
        let set = Home::with_clock(directory.path(), move |now| BootTime { wall_us, ..now });
        let key = key("a");
        let token = usual.acquire(&key, 1).await.unwrap();
        for ahead in [Duration::ZERO, TTL / 2] {
            set.advance(ahead);
            let holder = set.acquire(&key, 2).await.unwrap_err();
            assert_eq!(holder.fencing_token(), Some(token));
            assert!(holder.remaining() <= Some(TTL));
        }
        set.advance(TTL / 2);
        assert!(set.acquire(&key, 2).await.unwrap() > token);
    }
}

/// A lock of version 1 may be held: it is never taken for a free one, nor changed.
#[tokio::test]
async fn a_record_of_version_1_is_refused_by_every_step_with_the_way_out() {
    let text = "applock 1\n\
        beat 00000000101000000000 00000000161000000000 00000000060000000000 \
        001789999919000 0ac6b3fa-b09e-57a8-a70b-399607310931\n\
        key QUEUE:reports:eu\napp reports\nname eu\n\
        owner 00000000-0000-0000-0000-000000000007\ntoken 1790000000000000\n\
        instance web-1\nhost db7\npid 4711\nphase held\ntaken 81000000000\n\
        wall 1790000000000\nboot 00000000-0000-0000-0000-000000000009\n\
        sum 5ab88191-2f7b-586d-9a57-9d5d31969bc0\n";
    let directory = scratch();
    let home = Home::at(directory.path());
    let key = key("QUEUE:reports:eu");
    let path = Files::of(directory.path(), &key.lock).record;
    fs::write(&path, text).unwrap();
    let renew = Renew {
        token: 1,
        remember: std::time::Duration::from_secs(3_600),
        key: key.clone(),
        owner: Uuid::from_u128(7),
        ttl: TTL,
    };
    let release = Release {
        outcome: crate::protocol::Outcome::Released,
        token: None,
        remember: std::time::Duration::from_secs(3_600),
        key: key.clone(),
        owner: Uuid::from_u128(7),
        keep: None,
    };
    let store = || home.store();
    let refusals = [
        home.try_acquire(&key, 7, LONG).await.err(),
        store().renew(vec![renew], LONG).await.remove(0).err(),
        store().release(vec![release], LONG).await.remove(0).err(),
        store().inspect(key.clone(), LONG).await.err(),
        store()
            .force_release(key.clone(), None, By::of_a_test(), LONG)
            .await
            .err(),
    ];
    for refusal in refusals {
        let refusal = refusal.unwrap();
        assert_eq!(refusal.kind, StoreErrorKind::Misconfigured);
        assert!(refusal.what.contains("older version"), "{}", refusal.what);
        assert!(refusal.what.contains(&format!("{path:?}")));
        assert!(
            refusal
                .remedy
                .contains("end the processes of the older version")
        );
        assert!(refusal.remedy.contains("move the file away"));
    }
    assert_eq!(fs::read_to_string(&path).unwrap(), text);
    fs::remove_file(&path).unwrap();
    home.acquire(&key, 7).await.unwrap();
}
