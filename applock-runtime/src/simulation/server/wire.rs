//! The protocol: requests as they come in, answers and messages as they go out, in RESP2
//! or RESP3.

/// What a command answers.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Reply {
    Nil,
    Int(i64),
    Status(&'static str),
    /// A status that a script made.
    Said(String),
    Bulk(String),
    Error(String),
    Array(Vec<Reply>),
    Map(Vec<(Reply, Reply)>),
    /// What comes unasked, and what is answered where such comes: an array, in RESP2.
    Push(Vec<Reply>),
}

/// What Redis answers where a command can't be carried out.
pub(super) struct CommandError(pub(super) &'static str);

impl From<CommandError> for Reply {
    fn from(error: CommandError) -> Self {
        Self::Error(error.0.to_owned())
    }
}

impl Reply {
    pub(super) fn bulk(text: &str) -> Self {
        Self::Bulk(text.to_owned())
    }

    pub(super) fn write(&self, resp3: bool, out: &mut Vec<u8>) {
        let mut put = |text: String| out.extend((text + "\r\n").as_bytes());
        match self {
            Self::Nil if resp3 => put("_".to_owned()),
            Self::Nil => put("$-1".to_owned()),
            Self::Int(number) => put(format!(":{number}")),
            Self::Status(text) => put(format!("+{text}")),
            Self::Said(text) => put(format!("+{text}")),
            Self::Error(text) => put(format!("-{text}")),
            Self::Bulk(text) => put(format!("${}\r\n{text}", text.len())),
            Self::Array(items) => {
                put(format!("*{}", items.len()));
                items.iter().for_each(|item| item.write(resp3, out));
            }
            Self::Push(items) => {
                let kind = if resp3 { '>' } else { '*' };
                put(format!("{kind}{}", items.len()));
                items.iter().for_each(|item| item.write(resp3, out));
            }
            Self::Map(pairs) => {
                put(if resp3 {
                    format!("%{}", pairs.len())
                } else {
                    format!("*{}", pairs.len() * 2)
                });
                for (name, value) in pairs {
                    name.write(resp3, out);
                    value.write(resp3, out);
                }
            }
        }
    }
}

/// The first whole request in `received`, and its length in bytes.
pub(super) fn request(received: &[u8]) -> Option<(Vec<String>, usize)> {
    let mut at = 0;
    let number = |kind: u8, at: &mut usize| -> Option<usize> {
        let end = received[*at..].windows(2).position(|two| two == b"\r\n")? + *at;
        assert_eq!(received[*at], kind);
        let text = std::str::from_utf8(&received[*at + 1..end]).unwrap();
        *at = end + 2;
        Some(text.parse().unwrap())
    };
    let count = number(b'*', &mut at)?;
    let mut words = Vec::with_capacity(count);
    for _ in 0..count {
        let length = number(b'$', &mut at)?;
        let word = received.get(at..at + length)?;
        received.get(at + length..at + length + 2)?;
        words.push(String::from_utf8(word.to_vec()).unwrap());
        at += length + 2;
    }
    Some((words, at))
}
