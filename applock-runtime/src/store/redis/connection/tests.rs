//! The connection against a server that is written here, over real sockets.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use redis::IntoConnectionInfo as _;

use super::*;

/// How long a command may take that is answered at once.
const SOON: Duration = Duration::from_secs(10);

/// Answers every command with 'OK', until one says so: then no more, and the socket
/// stays open.
fn answer(mut client: TcpStream, silenced_by: Option<&[u8]>) {
    let mut bytes = [0; 4096];
    while let Ok(count @ 1..) = client.read(&mut bytes) {
        let sent = &bytes[..count];
        let silenced =
            silenced_by.is_some_and(|word| sent.windows(word.len()).any(|part| part == word));
        if silenced {
            // Swallows what comes, as a firewall does that has forgotten the connection.
            while let Ok(1..) = client.read(&mut bytes) {}
            return;
        }
        // Each command is an array, and none of its parts begins with a star.
        let commands = sent.iter().filter(|byte| **byte == b'*').count();
        if client.write_all(&b"+OK\r\n".repeat(commands)).is_err() {
            return;
        }
    }
}

// F2
#[tokio::test]
async fn a_connection_that_answers_nothing_is_dialled_anew() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("redis://{}", listener.local_addr().unwrap());
    let dialled = Arc::new(AtomicU32::new(0));
    let counter = Arc::clone(&dialled);
    thread::spawn(move || {
        for client in listener.incoming() {
            let first = counter.fetch_add(1, Ordering::SeqCst) == 0;
            let silenced_by = first.then_some(&b"PING"[..]);
            thread::spawn(move || answer(client.unwrap(), silenced_by));
        }
    });
    let dialer = Dialer::new(url.into_connection_info().unwrap()).unwrap();
    let connection = Arc::new(Connection::new(Arc::new(dialer), "redis://test".into()));
    connection.open(SOON).await.unwrap();
    let ping = redis::cmd("PING");
    // On a slow machine not every one of them leaves in its time.
    for _ in 0..20 {
        let short = Duration::from_millis(100);
        let _ = connection.send(&ping, About::default(), short).await;
        if dialled.load(Ordering::SeqCst) > 1 {
            break;
        }
    }
    let sent = connection.send(&ping, About::default(), SOON).await;
    assert!(sent.is_ok(), "no new connection was made");
}
