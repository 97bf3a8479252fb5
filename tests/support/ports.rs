//! Ports for servers that go down and come back: held for as long as the test has them, also
//! while nothing listens there.

use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::sync::{Mutex, PoisonError};

/// A node of a cluster talks to the others at its own port and so much: the default, and the
/// only choice before Redis 7.
const BUS: u16 = 10_000;

/// Below the ports that a system gives to outgoing connections (Linux: from 32,768), and with
/// room for the bus. Elsewhere a port may be taken all the same: then another one is.
const RANGE: std::ops::Range<u16> = 10_000..22_768;

/// A port and its bus port, given to one test of all processes of this machine.
///
/// The mark is a UDP socket of the same number: Redis needs only TCP, and the system takes the
/// mark away however the process ends.
#[derive(Debug)]
pub struct ReservedPort {
    port: u16,
    _marks: [UdpSocket; 2],
}

impl ReservedPort {
    pub fn new() -> Self {
        (0..10_000)
            .find_map(|_| Self::try_new(fastrand::u16(RANGE)))
            .expect("of ten thousand ports none is free")
    }

    fn try_new(port: u16) -> Option<Self> {
        let both = [port, port + BUS];
        let [one, other] = both.map(|port| UdpSocket::bind((Ipv4Addr::LOCALHOST, port)));
        let marks = [one.ok()?, other.ok()?];
        let is_free = |port: &u16| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok();
        both.iter().all(is_free).then_some(Self {
            port,
            _marks: marks,
        })
    }

    pub fn number(&self) -> u16 {
        self.port
    }
}

/// A port where nothing listens, and no server of a test will while this process lives: another one at
/// each call, for an address in the log belongs to one test.
pub fn nowhere() -> u16 {
    static KEPT: Mutex<Vec<ReservedPort>> = Mutex::new(Vec::new());
    let reserved = ReservedPort::new();
    let port = reserved.number();
    let mut kept = KEPT.lock().unwrap_or_else(PoisonError::into_inner);
    kept.push(reserved);
    port
}
