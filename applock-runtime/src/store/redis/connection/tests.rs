//! The connection against a server that is written here, over real sockets.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use futures_util::future::join_all;
use redis::IntoConnectionInfo as _;

use super::super::dial::Dialer;
use super::*;

/// How long a command may take that is answered at once.
const SOON: Duration = Duration::from_secs(60);

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
    let dialer = Dialer::new(&url.into_connection_info().unwrap(), None);
    let connection = Arc::new(Connection::new(
        Arc::new(dialer),
        Address::Given,
        "redis://test".into(),
        Lifetime::Program,
    ));
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

/// A server that keeps back what it answers to 'late', until it is told to go on; and how
/// often it was dialled.
fn late_server() -> (String, std::sync::mpsc::Sender<()>, Arc<AtomicU32>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("redis://{}", listener.local_addr().unwrap());
    let (go_on, told) = std::sync::mpsc::channel::<()>();
    let told = Arc::new(Mutex::new(told));
    let dialled = Arc::new(AtomicU32::new(0));
    let counter = Arc::clone(&dialled);
    thread::spawn(move || {
        for client in listener.incoming() {
            counter.fetch_add(1, Ordering::SeqCst);
            let (mut client, told) = (client.unwrap(), Arc::clone(&told));
            thread::spawn(move || {
                let mut bytes = [0; 4096];
                while let Ok(count @ 1..) = client.read(&mut bytes) {
                    let sent = &bytes[..count];
                    if sent.windows(4).any(|part| part == b"late") {
                        let _ = told.lock().unwrap().recv();
                    }
                    let commands = sent.iter().filter(|byte| **byte == b'*').count();
                    if client.write_all(&b"+OK\r\n".repeat(commands)).is_err() {
                        return;
                    }
                }
            });
        }
    });
    (url, go_on, dialled)
}

fn connection_to(url: String) -> Arc<Connection> {
    let dialer = Dialer::new(&url.into_connection_info().unwrap(), None);
    Arc::new(Connection::new(
        Arc::new(dialer),
        Address::Given,
        "redis://test".into(),
        Lifetime::Program,
    ))
}

/// A slow command now and then is no sign of a dead connection.
#[tokio::test]
async fn timeouts_that_are_not_in_a_row_end_no_connection() {
    let (url, go_on, dialled) = late_server();
    let connection = connection_to(url);
    connection.open(SOON).await.unwrap();
    let ping = redis::cmd("PING");
    let mut late = redis::cmd("PING");
    late.arg("late");
    for _ in 0..2 * TIMEOUTS {
        let short = Duration::from_millis(20);
        let sent = connection.send(&late, About::default(), short).await;
        assert_eq!(
            sent.map_err(|failed| failed.error.kind).err(),
            Some(StoreErrorKind::Unknown)
        );
        go_on.send(()).unwrap();
        assert!(connection.send(&ping, About::default(), SOON).await.is_ok());
    }
    assert_eq!(dialled.load(Ordering::SeqCst), 1);
}

/// What an old connection still has to say, an error, a time-out or an answer, changes
/// nothing about the new one.
#[tokio::test]
async fn an_old_connection_that_is_heard_of_late_neither_ends_nor_excuses_the_new_one() {
    let (url, _go_on, _) = late_server();
    let connection = connection_to(url);
    let error = || StoreError::late(StoreErrorKind::Unknown);
    let live = |connection: &Connection| {
        let state = connection.state();
        state.live.as_ref().map(|live| (live.epoch, live.timeouts))
    };
    connection.open(SOON).await.unwrap();
    assert_eq!(live(&connection), Some((1, 0)));
    connection.drop_connection(1, &error(), About::default());
    assert_eq!(live(&connection), None);
    connection.open(SOON).await.unwrap();
    assert_eq!(live(&connection), Some((2, 0)));
    connection.drop_connection(1, &error(), About::default());
    for _ in 0..=TIMEOUTS {
        connection.timed_out(1, &error(), About::default());
    }
    assert_eq!(live(&connection), Some((2, 0)));
    connection.timed_out(2, &error(), About::default());
    connection.answered(1);
    assert_eq!(live(&connection), Some((2, 1)));
    assert!(
        connection.state().in_trouble,
        "nothing was answered over it"
    );
    connection.answered(2);
    assert_eq!(live(&connection), Some((2, 0)));
    for _ in 0..TIMEOUTS {
        connection.timed_out(2, &error(), About::default());
    }
    assert_eq!(live(&connection), None);
}

/// A load balancer whose server is not up yet takes connections, and hangs up. That is not the
/// question's fault: once the server is there, several locks share a call again.
#[tokio::test]
async fn what_hangs_up_on_everything_is_asked_again_what_it_is() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("redis://{}", listener.local_addr().unwrap());
    let is_up = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let serves = Arc::clone(&is_up);
    thread::spawn(move || {
        for client in listener.incoming() {
            let (mut client, serves) = (client.unwrap(), Arc::clone(&serves));
            thread::spawn(move || {
                let mut bytes = [0; 4096];
                while let Ok(count @ 1..) = client.read(&mut bytes) {
                    if !serves.load(Ordering::SeqCst) {
                        return;
                    }
                    let sent = String::from_utf8_lossy(&bytes[..count]).into_owned();
                    for command in sent.split('*').skip(1) {
                        let answer = match command.contains("HELLO") {
                            true => "*2\r\n$4\r\nmode\r\n$10\r\nstandalone\r\n",
                            false => "+OK\r\n",
                        };
                        if client.write_all(answer.as_bytes()).is_err() {
                            return;
                        }
                    }
                }
            });
        }
    });
    let connection = connection_to(url);
    let ping = redis::cmd("PING");
    let about = About::default();
    for _ in 0..3 {
        assert!(connection.send(&ping, about, SOON).await.is_err());
    }
    is_up.store(true, Ordering::SeqCst);
    let deadline = Instant::now() + SOON;
    while connection.send(&ping, about, SOON).await.is_err() {
        assert!(Instant::now() < deadline, "it is up");
    }
    assert!(connection.is_single(), "it was not asked again");
}

/// A server that notes the name of each command, in the order in which they come.
fn noting_server() -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("redis://{}", listener.local_addr().unwrap());
    let noted = Arc::new(Mutex::new(Vec::new()));
    let notes = Arc::clone(&noted);
    thread::spawn(move || {
        for client in listener.incoming() {
            let (mut client, notes) = (client.unwrap(), Arc::clone(&notes));
            let mut lines = BufReader::new(client.try_clone().unwrap()).lines();
            // `*1`, and for each part its length and itself.
            while let Some(Ok(count)) = lines.next() {
                let parts = 2 * count[1..].parse::<usize>().unwrap();
                let words: Vec<String> = lines.by_ref().take(parts).map(Result::unwrap).collect();
                notes.lock().unwrap().push(words[1].clone());
                let answer: &[u8] = if words[1] == "WAIT" {
                    b":1\r\n"
                } else {
                    b"+OK\r\n"
                };
                if client.write_all(answer).is_err() {
                    break;
                }
            }
        }
    });
    (url, noted)
}

/// A `WAIT` covers what was sent before it: none of the calls that rely on it may leave later,
/// however many leave at the same moment.
#[tokio::test]
async fn of_many_calls_of_one_moment_none_leaves_behind_its_wait() {
    let (url, noted) = noting_server();
    let replicas = Replicas {
        count: 1,
        timeout: Replicas::TIMEOUT,
    };
    let dialer = Dialer::new(&url.into_connection_info().unwrap(), None);
    let connection = Arc::new(Connection::new(
        Arc::new(dialer.with_replicas(Some(replicas))),
        Address::Given,
        "redis://test".into(),
        Lifetime::Program,
    ));
    connection.open(SOON).await.unwrap();
    let ping = redis::cmd("PING");
    for count in [2, 60, 200, 1_000] {
        noted.lock().unwrap().clear();
        let send = |_| connection.exchange(&ping, false, Some(replicas), About::default(), SOON);
        for sent in join_all((0..count).map(send)).await {
            let (_, acknowledged) = sent.map_err(|failed| failed.error).unwrap();
            acknowledged.unwrap();
        }
        let order = noted.lock().unwrap().clone();
        let calls = order.iter().filter(|name| *name == "PING").count();
        assert_eq!(calls, count);
        let behind = order
            .iter()
            .rev()
            .take_while(|name| *name == "PING")
            .count();
        assert_eq!(
            behind, 0,
            "of {count} calls so many left behind the last WAIT"
        );
    }
}
