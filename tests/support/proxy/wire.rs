//! Redis's wire format, as far as a proxy must know it: where a value ends
//! (<https://redis.io/docs/latest/develop/reference/protocol-spec/>), and which of our
//! steps a request is.

use std::sync::LazyLock;

/// A request, by the step of ours that it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    Acquire,
    Renew,
    Release,
    Force,
    Inspect,
    /// To be notified.
    Subscribe,
    /// Not a script of ours: the greeting, PING, INFO.
    Other,
}

struct Source {
    call: Call,
    text: &'static str,
    hash: String,
}

macro_rules! sources {
    ($($call:ident: $($file:literal)+),* $(,)?) => {
        [$({
            let text = concat!($(include_str!(concat!(
                "../../../applock-runtime/src/store/redis/scripts/",
                $file
            ))),+);
            Source {
                call: Call::$call,
                text,
                hash: redis::Script::new(text).get_hash().to_owned(),
            }
        }),*]
    };
}

static SOURCES: LazyLock<[Source; 5]> = LazyLock::new(|| {
    sources! {
        Acquire: "clock.lua" "acquire_short.lua" "queue.lua" "acquire.lua",
        Renew: "renew.lua",
        Release: "release_short.lua" "clock.lua" "queue.lua" "release.lua",
        Force: "clock.lua" "queue.lua" "force_release.lua",
        Inspect: "inspect.lua",
    }
});

impl Call {
    /// Of a whole request: `EVALSHA hash …` or `EVAL text …`, or `SUBSCRIBE channel`.
    pub(super) fn of(request: &[u8]) -> Self {
        let mut words = words(request);
        if words.next() == Some(b"SUBSCRIBE") {
            return Self::Subscribe;
        }
        let script = words.next().unwrap_or_default();
        SOURCES
            .iter()
            .find(|source| script == source.hash.as_bytes() || script == source.text.as_bytes())
            .map_or(Self::Other, |source| source.call)
    }
}

/// The bulk strings of a request.
fn words(request: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut at = line(request).map_or(request.len(), |(_, end)| end);
    std::iter::from_fn(move || {
        let (head, start) = line(request.get(at..)?)?;
        let start = at + start;
        let end = start + number(head)?;
        at = end + 2;
        request.get(start..end)
    })
}

/// A first line without its end, and where the next one begins.
fn line(bytes: &[u8]) -> Option<(&[u8], usize)> {
    let end = bytes.windows(2).position(|pair| pair == b"\r\n")?;
    Some((&bytes[..end], end + 2))
}

/// The number of a line such as `*3` or `$12`; `None` for a null.
fn number(head: &[u8]) -> Option<usize> {
    std::str::from_utf8(head.get(1..)?).ok()?.parse().ok()
}

/// Where the first value ends, if it is there as a whole.
pub(super) fn end_of_value(bytes: &[u8]) -> Option<usize> {
    let (head, start) = line(bytes)?;
    let length = number(head).unwrap_or(0);
    match head.first()? {
        b'$' | b'=' | b'!' if head.get(1) != Some(&b'-') => {
            let end = start + length + 2;
            (bytes.len() >= end).then_some(end)
        }
        b'*' | b'~' | b'>' => end_of_values(bytes, start, length),
        b'%' => end_of_values(bytes, start, 2 * length),
        _ => Some(start),
    }
}

fn end_of_values(bytes: &[u8], start: usize, count: usize) -> Option<usize> {
    (0..count).try_fold(start, |at, _| Some(at + end_of_value(bytes.get(at..)?)?))
}

/// A server that does not know a script yet says so, and has done nothing.
pub(super) fn is_unknown_script(reply: &[u8]) -> bool {
    reply.starts_with(b"-NOSCRIPT")
}
