//! Promise: a proxy that hangs up on subscriptions is not dialled again and again, and not at all
//! where nobody waits (F42).

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use applock::AppLocker;

use crate::support::redis::RedisServer;

const WHILE: Duration = Duration::from_secs(3);

/// Forwards to the server, but for a `SUBSCRIBE`: there it hangs up. Counts those.
fn proxy(server: &RedisServer) -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("redis://{}", listener.local_addr().unwrap());
    let subscribed = Arc::new(AtomicUsize::new(0));
    let (port, counter) = (server.port(), Arc::clone(&subscribed));
    thread::spawn(move || {
        for client in listener.incoming() {
            let (client, counter) = (client.unwrap(), Arc::clone(&counter));
            let Ok(server) = TcpStream::connect(("127.0.0.1", port)) else {
                return;
            };
            let (from, to) = (server.try_clone().unwrap(), client.try_clone().unwrap());
            thread::spawn(move || forward(from, to, |_| true));
            thread::spawn(move || {
                forward(client, server, |sent| {
                    let subscribes = sent.windows(9).any(|word| word == b"SUBSCRIBE");
                    counter.fetch_add(usize::from(subscribes), Ordering::SeqCst);
                    !subscribes
                })
            });
        }
    });
    (url, subscribed)
}

fn forward(mut from: TcpStream, mut to: TcpStream, mut passes: impl FnMut(&[u8]) -> bool) {
    let mut bytes = [0; 65_536];
    while let Ok(count @ 1..) = from.read(&mut bytes) {
        if !passes(&bytes[..count]) || to.write_all(&bytes[..count]).is_err() {
            break;
        }
    }
    let _ = from.shutdown(Shutdown::Both);
    let _ = to.shutdown(Shutdown::Both);
}

#[test]
fn a_subscription_that_is_hung_up_on_is_tried_seldom_and_only_while_a_caller_waits() {
    let server = RedisServer::start();
    let (url, subscribed) = proxy(&server);
    let holder = AppLocker::connect_blocking(server.url()).unwrap();
    let held = holder.lock("contested").acquire_blocking().unwrap();
    let locker = AppLocker::connect_blocking(&url).unwrap();
    let waiting = thread::spawn({
        let lock = locker.lock("contested").wait(3 * WHILE);
        move || lock.acquire_blocking()
    });
    thread::sleep(WHILE);
    let tried = subscribed.load(Ordering::SeqCst);
    assert!((1..30).contains(&tried), "{tried} times in {WHILE:?}");
    // It is served all the same: it polls.
    held.release_blocking().unwrap();
    waiting.join().unwrap().unwrap().release_blocking().unwrap();
    let tried = subscribed.load(Ordering::SeqCst);
    thread::sleep(WHILE);
    assert_eq!(subscribed.load(Ordering::SeqCst), tried, "and nobody waits");
}
