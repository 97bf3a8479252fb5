//! The signals that are not for applock, but for the command.
//!
//! The keeper is forked off with these handlers, so that none of them ends it, for then nothing would
//! end the command as it should be ended: a service manager sends TERM to all processes of a service.
//! What comes to the keeper's copies goes nowhere; and the command inherits no handler, but would
//! inherit what is ignored.

use std::io;

use rustix::process::{Signal, getpid, kill_process};
use tokio::signal::unix::{Signal as Listener, SignalKind, signal};

/// What came.
pub(super) enum Received {
    /// To be passed on.
    Pass(Signal),
    /// Ctrl-Z.
    Stop,
}

const PASSED: [Signal; 6] = [
    Signal::TERM,
    Signal::INT,
    Signal::HUP,
    Signal::QUIT,
    Signal::USR1,
    Signal::USR2,
];

pub(super) struct Signals {
    passed: Vec<(Signal, Listener)>,
    stop: Option<Listener>,
}

impl Signals {
    pub(super) fn listen() -> io::Result<Self> {
        let is_ignored = are_ignored();
        let mut passed = Vec::new();
        for one in PASSED {
            // nohup, and a shell that starts a job in the background: it stays ignored.
            if !is_ignored(one) {
                passed.push((one, signal(SignalKind::from_raw(one.as_raw()))?));
            }
        }
        let stop = if is_ignored(Signal::TSTP) {
            None
        } else {
            Some(signal(SignalKind::from_raw(Signal::TSTP.as_raw()))?)
        };
        if is_ignored(Signal::CHILD) {
            // Danger: the kernel would reap the keeper's children, and nothing would tell how the
            // command ended. The handler stays when the listener goes.
            drop(signal(SignalKind::child())?);
        }
        Ok(Self { passed, stop })
    }

    /// The next one. Cancellation safe.
    pub(super) async fn next(&mut self) -> Received {
        std::future::poll_fn(|context| {
            for (signal, listener) in &mut self.passed {
                if listener.poll_recv(context).is_ready() {
                    return std::task::Poll::Ready(Received::Pass(*signal));
                }
            }
            if let Some(stop) = &mut self.stop
                && stop.poll_recv(context).is_ready()
            {
                return std::task::Poll::Ready(Received::Stop);
            }
            std::task::Poll::Pending
        })
        .await
    }
}

/// As the terminal's Ctrl-Z would, had we no handler. Returns when a shell lets us go on.
///
/// Danger: of several threads another one may take the signal, so that this one runs on for a moment:
/// it would let the command go on, and then stand still. What it waits for comes after the stop.
pub(super) async fn stop_here() {
    let go_on = signal(SignalKind::from_raw(Signal::CONT.as_raw()));
    // A process may always stop itself.
    let _ = kill_process(getpid(), Signal::STOP);
    if let Ok(mut go_on) = go_on {
        go_on.recv().await;
    }
}

/// Whether a signal is ignored. Where that can't be known: no.
fn are_ignored() -> impl Fn(Signal) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status
        .lines()
        .find_map(|line| line.strip_prefix("SigIgn:"))
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .unwrap_or_default();
    move |signal| (mask >> (signal.as_raw() - 1)) & 1 == 1
}
