//! The hash slots of a cluster, and its map: which node has which slots.
//!
//! As the Redis Cluster specification has it: a key's slot is the CRC16 of the key modulo 16,384,
//! or of its hash tag, if it has one. The map is the answer of `CLUSTER SLOTS`, which every server
//! and every host speaks (`CLUSTER SHARDS` lists failed masters with no slots).

use std::collections::HashSet;

use redis::Value;

use super::address::Address;
use super::reply;
use super::topology::Slot;

/// How many there are.
pub(super) const SLOTS: usize = 16_384;

/// The slot of a key.
pub(crate) fn slot(key: &str) -> Slot {
    let tag = key
        .split_once('{')
        .and_then(|(_, rest)| rest.split_once('}'))
        .map(|(tag, _)| tag)
        .filter(|tag| !tag.is_empty());
    crc16(tag.unwrap_or(key).as_bytes()) % 16_384
}

/// CRC-16/XMODEM: polynomial 0x1021, from 0.
fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |crc, byte| {
        (0..8).fold(crc ^ u16::from(*byte) << 8, |crc, _| {
            if crc & 0x8000 == 0 {
                crc << 1
            } else {
                crc << 1 ^ 0x1021
            }
        })
    })
}

/// Some slots in a row, and who has them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Range {
    pub(super) first: Slot,
    pub(super) last: Slot,
    pub(super) master: Address,
    pub(super) replicas: Vec<Address>,
}

/// Reads the answer of `CLUSTER SLOTS`, which the node at `asked` has given. `None`: it is no such
/// answer, or names no slot at all, as that of a node which was reset.
pub(super) fn ranges(answer: &Value, asked: &Address) -> Option<Vec<Range>> {
    let Value::Array(items) = answer else {
        return None;
    };
    let range = |item: &Value| {
        let Value::Array(parts) = item else {
            return None;
        };
        let [Value::Int(first), Value::Int(last), master, replicas @ ..] = parts.as_slice() else {
            return None;
        };
        let slot = |number: i64| {
            Slot::try_from(number)
                .ok()
                .filter(|at| usize::from(*at) < SLOTS)
        };
        Some(Range {
            first: slot(*first)?,
            last: slot(*last)?,
            // Without an address: it can't be reached, and is as good as not there.
            master: address(master, asked)?,
            replicas: replicas
                .iter()
                .filter_map(|replica| address(replica, asked))
                .collect(),
        })
    };
    let ranges: Vec<Range> = items.iter().filter_map(range).collect();
    (!ranges.is_empty()).then_some(ranges)
}

/// The ids of all nodes in the answer of `CLUSTER SLOTS`. None: the server is older than Redis 4.
pub(super) fn ids(answer: &Value) -> HashSet<String> {
    fn parts(value: &Value) -> &[Value] {
        match value {
            Value::Array(parts) => parts,
            _ => &[],
        }
    }
    // After the first slot and the last.
    let nodes = parts(answer)
        .iter()
        .flat_map(|range| parts(range).iter().skip(2));
    nodes
        .filter_map(|node| reply::text(parts(node).get(2)?))
        .filter(|id| !id.is_empty())
        .collect()
}

/// Whether the answer leaves out where its nodes are, for they have no names, and are to be known
/// by these.
pub(super) fn is_nameless(answer: &Value) -> bool {
    let is_nameless = |node: &Value| match node {
        Value::Array(parts) => parts.first().and_then(reply::text).as_deref() == Some("?"),
        _ => false,
    };
    let Value::Array(ranges) = answer else {
        return false;
    };
    ranges.iter().any(|range| match range {
        Value::Array(parts) => parts.iter().any(is_nameless),
        _ => false,
    })
}

/// Where a node is. An empty host, or none, is that of the node that was asked; a question mark
/// means that it has no name to be reached by.
fn address(node: &Value, asked: &Address) -> Option<Address> {
    let Value::Array(parts) = node else {
        return None;
    };
    let [host, Value::Int(port), ..] = parts.as_slice() else {
        return None;
    };
    let host = match host {
        Value::Nil => None,
        host => Some(reply::text(host)?).filter(|host| !host.is_empty()),
    };
    if host.as_deref() == Some("?") {
        return None;
    }
    let port = u16::try_from(*port).ok().filter(|port| *port != 0)?;
    Some(Address::beside(host.as_deref(), port, asked))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_those_of_the_specification() {
        // The specification's check value, and what `CLUSTER KEYSLOT` has answered.
        assert_eq!(crc16(b"123456789"), 0x31C3);
        for (key, expected) in [
            ("a}b", 7_866),
            ("{}", 15_257),
            ("foo", 12_182),
            ("{user1000}.following", slot("user1000")),
            ("foo{}{bar}", crc16(b"foo{}{bar}") % 16_384),
            ("foo{{bar}}zap", slot("{bar")),
        ] {
            assert_eq!(slot(key), expected, "{key}");
        }
    }

    fn bulk(text: &str) -> Value {
        Value::BulkString(text.as_bytes().to_vec())
    }

    #[test]
    fn a_map_is_read_with_the_names_that_nodes_have() {
        let node = |host: Value, port| Value::Array(vec![host, Value::Int(port), bulk("id")]);
        let asked = Address::Named("asked".into(), 1);
        let answer = Value::Array(vec![
            Value::Array(vec![
                Value::Int(0),
                Value::Int(99),
                node(bulk("h1"), 7_000),
                node(bulk("?"), 7_001),
                node(bulk(""), 7_002),
            ]),
            Value::Array(vec![
                Value::Int(100),
                Value::Int(100),
                node(Value::Nil, 7_003),
            ]),
            // Can't be reached, or is none.
            Value::Array(vec![
                Value::Int(101),
                Value::Int(102),
                node(bulk("?"), 7_004),
            ]),
            Value::Array(vec![
                Value::Int(101),
                Value::Int(16_384),
                node(bulk("h2"), 7_004),
            ]),
        ]);
        let named = |host: &str, port| Address::Named(host.into(), port);
        assert_eq!(
            ranges(&answer, &asked).unwrap(),
            [
                Range {
                    first: 0,
                    last: 99,
                    master: named("h1", 7_000),
                    replicas: vec![named("asked", 7_002)],
                },
                Range {
                    first: 100,
                    last: 100,
                    master: named("asked", 7_003),
                    replicas: Vec::new(),
                },
            ]
        );
        assert!(is_nameless(&answer));
        assert_eq!(ids(&answer), HashSet::from(["id".to_owned()]));
        for none in [Value::Array(Vec::new()), Value::Nil, bulk("x")] {
            assert_eq!(ranges(&none, &asked), None);
            assert!(!is_nameless(&none));
            assert!(ids(&none).is_empty());
        }
    }
}
