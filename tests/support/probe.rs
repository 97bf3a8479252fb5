//! A value that, when it is dropped, checks whether a lock's key is still there.

use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use super::redis::RedisServer;
use super::wait;

/// Put one into a body or an argument; ask its [`Witness`] afterwards.
pub struct Probe {
    check: Box<dyn Fn() -> bool + Send + Sync>,
    witness: Witness,
}

/// What a [`Probe`] saw.
#[derive(Clone, Default)]
pub struct Witness(Arc<Mutex<Option<(bool, SystemTime)>>>);

impl Probe {
    pub fn new(server: &RedisServer, key: &str) -> (Self, Witness) {
        let client = ::redis::Client::open(server.url()).expect("a client");
        let key = key.to_owned();
        Self::checking(move || {
            // Time enough for a lock that was released too early to be gone.
            std::thread::sleep(Duration::from_millis(50));
            let mut connection = client.get_connection().expect("a connection");
            ::redis::cmd("EXISTS")
                .arg(&key)
                .query::<bool>(&mut connection)
                .expect("an answer")
        })
    }

    /// Only notes that and when it was dropped.
    pub fn blind() -> (Self, Witness) {
        Self::checking(|| false)
    }

    fn checking(check: impl Fn() -> bool + Send + Sync + 'static) -> (Self, Witness) {
        let witness = Witness::default();
        let probe = Self {
            check: Box::new(check),
            witness: witness.clone(),
        };
        (probe, witness)
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        let at = SystemTime::now();
        let taken = (self.check)();
        *self.witness.0.lock().expect("the witness") = Some((taken, at));
    }
}

impl Witness {
    fn saw(&self) -> Option<(bool, SystemTime)> {
        *self.0.lock().expect("the witness")
    }

    pub fn is_dropped(&self) -> bool {
        self.saw().is_some()
    }

    /// Whether the lock was still taken while the probe was dropped; waits for that.
    #[track_caller]
    pub fn saw_the_lock_taken(&self) -> bool {
        wait::until("the probe is dropped", Duration::from_secs(20), || {
            self.is_dropped()
        });
        self.saw().expect("it was dropped").0
    }

    pub fn dropped_at(&self) -> SystemTime {
        self.saw().expect("it was dropped").1
    }
}
