//! Dialling a server: TCP, TLS or a Unix socket, the login, and a look at its first answer.
//!
//! Here: all that needs the bytes themselves. Not here: when to dial, and for how long
//! (`connection.rs`); certificates (`tls.rs`). The redis crate would dial as well, but it lets
//! nobody name a connection that subscribes, hides what a server that is no Redis has said, and
//! tells every fault of a certificate as an I/O error.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs as _};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_util::future::select_ok;
use redis::aio::{MultiplexedConnection, PubSub};
use redis::io::tcp::socket2::{SockRef, TcpKeepalive};
use redis::{
    AsyncConnectionConfig, Cmd, ConnectionAddr, ConnectionInfo, ProtocolVersion,
    RedisConnectionInfo, RedisResult, Value,
};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::net::TcpStream;
use tokio::task::AbortHandle;

use crate::blocking::on_a_thread;
use crate::store::{Identity, StoreErrorKind, StoreFuture};

use super::acknowledge::Replicas;
use super::address::Address;
use super::error::{Refused, too_many_clients};
#[cfg(feature = "tls")]
use super::tls::{Session, Tls};

/// Makes connections. A test puts a simulated network in its place.
pub(crate) trait Connector: Send + Sync + fmt::Debug + 'static {
    /// Dials, authenticates, and spawns the connection's driver.
    fn connect(&self, to: &Address) -> StoreFuture<RedisResult<Dialled>>;

    /// The same for a connection that subscribes; by what name it is to be seen.
    fn subscribe(&self, to: &Address, name: Option<String>) -> StoreFuture<RedisResult<PubSub>>;

    /// Whether it speaks TLS with the servers.
    fn is_encrypted(&self) -> bool {
        false
    }

    /// How many replicas of a server have to have what is written to it.
    fn replicas(&self) -> Option<Replicas> {
        None
    }

    /// The name of its connections, for people who look at the server (`CLIENT LIST`).
    fn name(&self) -> Option<String> {
        None
    }
}

/// Unacknowledged data for so long, and the kernel gives the connection up
/// (`TCP_USER_TIMEOUT`, tcp(7)): four command time-outs.
#[cfg(any(target_os = "linux", target_os = "android", target_os = "fuchsia"))]
const USER_TIMEOUT: Duration = Duration::from_secs(4);

/// So many commands may be on their way to the socket, so that none waits for its turn to be sent:
/// `acknowledge.rs` relies on it. Nothing is set aside for them.
const MOST_UNSENT: usize = 1 << 16;

/// An idle connection is probed so often, so that firewalls do not forget it.
const KEEPALIVE: Duration = Duration::from_secs(15);

/// Connections to one server.
#[derive(Clone)]
pub(crate) struct Dialer {
    address: ConnectionAddr,
    login: RedisConnectionInfo,
    #[cfg(feature = "tls")]
    tls: Option<Arc<Tls>>,
    /// The name that a person gave this instance.
    instance: Option<Arc<str>>,
    replicas: Option<Replicas>,
}

/// Danger: a password is in there.
impl fmt::Debug for Dialer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dialer").finish_non_exhaustive()
    }
}

impl Dialer {
    /// To the server and with the login of `info`, in the name of this instance, if a person gave
    /// it one. Does no I/O.
    pub(crate) fn new(info: &ConnectionInfo, instance: Option<&str>) -> Self {
        Self {
            address: info.addr().clone(),
            // Not `CLIENT SETINFO`: one round trip more for each dial, and the crate drops its
            // answer, also where that says why the server hangs up.
            login: info.redis_settings().clone().set_skip_set_lib_name(),
            #[cfg(feature = "tls")]
            tls: None,
            instance: instance.map(Into::into),
            replicas: None,
        }
    }

    /// The same, for servers of which so many replicas have to have each write.
    pub(crate) fn with_replicas(self, replicas: Option<Replicas>) -> Self {
        Self { replicas, ..self }
    }

    /// The same through TLS.
    #[cfg(feature = "tls")]
    pub(crate) fn through(mut self, tls: Arc<Tls>) -> Self {
        self.tls = Some(tls);
        self
    }

    /// The bytes to and from the server.
    async fn dial(&self, to: &Address) -> io::Result<Watched> {
        let named = match to {
            Address::Given => None,
            Address::Named(host, port) => Some(ConnectionAddr::Tcp(host.to_string(), *port)),
        };
        match named.as_ref().unwrap_or(&self.address) {
            ConnectionAddr::Tcp(host, port) => {
                let stream = tcp(host, *port).await?;
                #[cfg(feature = "tls")]
                if let Some(tls) = &self.tls {
                    let (stream, session) = tls.connect(host, stream).await?;
                    return Ok(Watched {
                        session: Some(session),
                        ..Watched::new(stream)
                    });
                }
                Ok(Watched::new(stream))
            }
            #[cfg(unix)]
            ConnectionAddr::Unix(path) => {
                Ok(Watched::new(tokio::net::UnixStream::connect(path).await?))
            }
            // `url.rs` makes no other.
            _ => Err(io::Error::from(io::ErrorKind::Unsupported)),
        }
    }
}

/// A connection for commands. When the last clone is dropped its driver is stopped: by itself it
/// would wait for what a silent server owes.
#[derive(Clone, Debug)]
pub(crate) struct Dialled {
    pub(crate) commands: MultiplexedConnection,
    _driver: Option<Arc<Driver>>,
}

/// Over a connection whose driver ends by itself.
impl From<MultiplexedConnection> for Dialled {
    fn from(commands: MultiplexedConnection) -> Self {
        Self {
            commands,
            _driver: None,
        }
    }
}

#[derive(Debug)]
struct Driver(AbortHandle);

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Connector for Dialer {
    fn connect(&self, to: &Address) -> StoreFuture<RedisResult<Dialled>> {
        let (this, to) = (self.clone(), to.clone());
        Box::pin(async move {
            // Deadlines are ours: the crate's would not say what was late.
            let config = AsyncConnectionConfig::new()
                .set_connection_timeout(None)
                .set_response_timeout(None)
                .set_pipeline_buffer_size(MOST_UNSENT);
            let stream = this.dial(&to).await?;
            let (commands, driver) =
                MultiplexedConnection::new_with_config(&this.login, stream, config).await?;
            let driver = tokio::spawn(driver).abort_handle();
            Ok(Dialled {
                commands,
                _driver: Some(Arc::new(Driver(driver))),
            })
        })
    }

    fn subscribe(&self, to: &Address, name: Option<String>) -> StoreFuture<RedisResult<PubSub>> {
        let (this, to) = (self.clone(), to.clone());
        Box::pin(async move {
            let mut stream = this.dial(&to).await?;
            if let Some(name) = name {
                log_in(&mut stream, &this.login, &name).await?;
                let done = RedisConnectionInfo::default()
                    .set_protocol(ProtocolVersion::RESP2)
                    .set_skip_set_lib_name();
                return PubSub::new(&done, stream).await;
            }
            // In RESP2, whatever the URL says: the crate's subscriptions speak it.
            let login = this.login.set_protocol(ProtocolVersion::RESP2);
            PubSub::new(&login, stream).await
        })
    }

    #[cfg(feature = "tls")]
    fn is_encrypted(&self) -> bool {
        self.tls.is_some()
    }

    fn replicas(&self) -> Option<Replicas> {
        self.replicas
    }

    fn name(&self) -> Option<String> {
        let instance = match &self.instance {
            Some(given) => given.to_string(),
            // As it is now: the process may have been forked off.
            None => Identity::instance_of_this_process(),
        };
        // Redis takes no spaces, line breaks or letters beyond ASCII.
        let fitting = |c: char| if c.is_ascii_graphic() { c } else { '-' };
        let name = instance.chars().map(fitting);
        Some("applock:".chars().chain(name).collect())
    }
}

/// Connects to the first address of a host that answers.
async fn tcp(host: &str, port: u16) -> io::Result<TcpStream> {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let addresses = match bare.parse::<IpAddr>() {
        Ok(address) => vec![SocketAddr::new(address, port)],
        Err(_) => {
            let name = bare.to_owned();
            let look_up = move || Ok((name.as_str(), port).to_socket_addrs()?.collect());
            on_a_thread(look_up).await.flatten()?
        }
    };
    if addresses.is_empty() {
        let none = "the host's name has no address";
        return Err(io::Error::new(io::ErrorKind::AddrNotAvailable, none));
    }
    let dials = addresses
        .into_iter()
        .map(|address| Box::pin(TcpStream::connect(address)));
    let (stream, _) = select_ok(dials).await?;
    stream.set_nodelay(true)?;
    let keepalive = TcpKeepalive::new()
        .with_time(KEEPALIVE)
        .with_interval(KEEPALIVE / 3);
    let socket = SockRef::from(&stream);
    socket.set_tcp_keepalive(&keepalive)?;
    #[cfg(any(target_os = "linux", target_os = "android", target_os = "fuchsia"))]
    socket.set_tcp_user_timeout(Some(USER_TIMEOUT))?;
    Ok(stream)
}

/// The login of a connection that subscribes, and its name, in one round trip: the crate's own
/// has no place for a name, and once subscribed it is too late.
async fn log_in(stream: &mut Watched, login: &RedisConnectionInfo, name: &str) -> RedisResult<()> {
    let Some(password) = login.password() else {
        // For people: a refusal is no news.
        ask(stream, &[set_name(name)]).await?;
        return Ok(());
    };
    let auth = |user: Option<&str>| {
        let mut auth = redis::cmd("AUTH");
        auth.arg(user).arg(password);
        auth
    };
    let named = set_name(name);
    let mut answers = ask(stream, &[auth(login.username()), named.clone()]).await?;
    let is_old = |answer: &RedisResult<Value>| {
        let said = answer.as_ref().err().map(ToString::to_string);
        said.is_some_and(|said| said.contains("wrong number of arguments"))
    };
    // A server, or a proxy, of the time before there were users.
    if login.username().is_some() && answers.first().is_some_and(is_old) {
        answers = ask(stream, &[auth(None), named]).await?;
    }
    answers.swap_remove(0).map(drop)
}

/// The command that names a connection.
pub(super) fn set_name(name: &str) -> Cmd {
    let mut command = redis::cmd("CLIENT");
    command.arg("SETNAME").arg(name);
    command
}

/// The longest answer to a login.
const LONGEST_LINE: usize = 4 << 10;

/// Sends commands that are answered by one line each, and reads the answers.
async fn ask(stream: &mut Watched, commands: &[Cmd]) -> RedisResult<Vec<RedisResult<Value>>> {
    let packed: Vec<u8> = commands.iter().flat_map(Cmd::get_packed_command).collect();
    stream.write_all(&packed).await?;
    stream.flush().await?;
    let mut answers = Vec::new();
    while answers.len() < commands.len() {
        let mut line = Vec::new();
        // Byte by byte, so that nothing is read that is not ours: it is a line or two.
        while !line.ends_with(b"\n") && line.len() < LONGEST_LINE {
            line.push(stream.read_u8().await?);
        }
        answers.push(redis::parse_redis_value(&line).and_then(Value::extract_error));
    }
    Ok(answers)
}

/// How much is kept of what was sent first.
const KEPT: usize = 64;

trait Bytes: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Bytes for T {}

/// A connection of which the first answer is looked at: what is no Redis shows there. After that
/// it is the bytes alone.
struct Watched {
    bytes: Box<dyn Bytes>,
    /// What was sent first, until the first answer has come.
    sent: Option<Vec<u8>>,
    #[cfg(feature = "tls")]
    session: Option<Session>,
}

impl Watched {
    fn new(bytes: impl Bytes + 'static) -> Self {
        Self {
            bytes: Box::new(bytes),
            sent: Some(Vec::new()),
            #[cfg(feature = "tls")]
            session: None,
        }
    }

    /// An error of the bytes, in words.
    fn explain(&self, error: io::Error) -> io::Error {
        #[cfg(feature = "tls")]
        if let Some(session) = &self.session {
            let is_tls = error.kind() == io::ErrorKind::InvalidData;
            if is_tls || self.sent.is_none() {
                return session.explain(error, false);
            }
        }
        let is_cut = matches!(
            error.kind(),
            io::ErrorKind::ConnectionReset
                | io::ErrorKind::BrokenPipe
                | io::ErrorKind::UnexpectedEof
        );
        if is_cut && self.sent.is_some() {
            return self.hung_up();
        }
        error
    }

    /// No answer at all, and the end.
    fn hung_up(&self) -> io::Error {
        #[cfg(feature = "tls")]
        let is_encrypted = match &self.session {
            Some(session) => {
                if let Some(refused) = session.hung_up() {
                    return refused.into();
                }
                true
            }
            None => false,
        };
        #[cfg(not(feature = "tls"))]
        let is_encrypted = false;
        Refused {
            kind: StoreErrorKind::Unknown,
            what: "the server hung up without any answer".to_owned(),
            remedy: match is_encrypted {
                true => "see whether it is up, and whether it is a Redis at all",
                // So does Redis where it is spoken to without.
                false => {
                    "see whether it is up, whether it is a Redis at all, and whether it wants TLS: \
                     then write rediss:// in place of redis://"
                }
            },
        }
        .into()
    }
}

impl AsyncRead for Watched {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        if let Err(error) = ready!(Pin::new(&mut self.bytes).poll_read(context, buffer)) {
            return Poll::Ready(Err(self.explain(error)));
        }
        let had_room = buffer.filled().len() > before || buffer.remaining() > 0;
        if self.sent.is_some() && had_room {
            let answer = &buffer.filled()[before..];
            if answer.is_empty() {
                return Poll::Ready(Err(self.hung_up()));
            }
            let sent = self.sent.take().unwrap_or_default();
            let is_strange = || looks_like(answer, &sent).map(no_redis);
            if let Some(refused) = turned_away(answer).or_else(is_strange) {
                return Poll::Ready(Err(refused.into()));
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Watched {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match ready!(Pin::new(&mut self.bytes).poll_write(context, bytes)) {
            Ok(count) => {
                if let Some(sent) = &mut self.sent {
                    let room = KEPT.saturating_sub(sent.len());
                    sent.extend_from_slice(&bytes[..count.min(room)]);
                }
                Poll::Ready(Ok(count))
            }
            Err(error) => {
                // Why the server hung up may stand in what it sent before that.
                let mut unread = [0; KEPT];
                let mut unread = ReadBuf::new(&mut unread);
                let said = match self.sent {
                    Some(_) => self.as_mut().poll_read(context, &mut unread),
                    None => Poll::Pending,
                };
                match said {
                    Poll::Ready(Err(why)) => Poll::Ready(Err(why)),
                    _ => Poll::Ready(Err(self.explain(error))),
                }
            }
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = ready!(Pin::new(&mut self.bytes).poll_flush(context));
        Poll::Ready(flushed.map_err(|error| self.explain(error)))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.bytes).poll_shutdown(context)
    }
}

/// What Redis says to a client that it does not take, unasked, before it hangs up.
///
/// Danger: the crate takes it for the answer to the login, and every error of that for a wrong
/// password.
fn turned_away(answer: &[u8]) -> Option<Refused> {
    if answer.starts_with(b"-ERR max number of clients") {
        return Some(too_many_clients());
    }
    if answer.starts_with(b"-DENIED Redis is running in protected mode") {
        return Some(Refused::misconfigured(
            "this Redis is in protected mode, and takes connections from its own machine only"
                .into(),
            "give it a password (requirepass) and write that into the URL, or set protected-mode no",
        ));
    }
    None
}

/// What a first answer is that Redis does not give. `None`: it may be one of Redis's.
fn looks_like(answer: &[u8], sent: &[u8]) -> Option<Like> {
    // A greeting comes without a question, and a question that comes back was not understood.
    let known: [(&[u8], Like); 12] = [
        (b"HTTP/", "a web server"),
        (b"\x15\x03", TLS),
        (b"SSH-", "an SSH server"),
        (b"220", "a mail or FTP server"),
        (b"+OK ", "a mail server (POP3)"),
        (b"* OK", "a mail server (IMAP)"),
        (b"ERROR\r\n", "memcached"),
        (b"CLIENT_ERROR", "memcached"),
        (b"AMQP", "a message broker (AMQP)"),
        (b"INFO {", "a message broker (NATS)"),
        (b"<", "a server of web pages or XML"),
        (b"\0\0", BINARY),
    ];
    // An error, its length in four bytes, and its severity.
    if let [b'E', 0, 0, _, _, b'S', ..] = answer {
        return Some("PostgreSQL");
    }
    // Its length in three bytes, a number, and the version of its protocol, or an error.
    if let [_, _, 0, 0 | 1, 10 | 0xff, ..] = answer {
        return Some("MySQL or MariaDB");
    }
    if let Some((_, like)) = known.iter().find(|(begin, _)| answer.starts_with(begin)) {
        return Some(like);
    }
    if !sent.is_empty()
        && answer.starts_with(&sent[..sent.len().min(answer.len())])
        && answer.len() > 4
    {
        return Some("a server that sends back what it is sent (echo)");
    }
    let first = answer.first().copied().unwrap_or_default();
    if b"+-:$*_,#!=%~>(|".contains(&first) {
        return None;
    }
    Some(match first.is_ascii_graphic() {
        true => "a server of another protocol of text",
        false => BINARY,
    })
}

type Like = &'static str;

const TLS: Like = "a server that speaks TLS";
const BINARY: Like = "a server of another binary protocol";

fn no_redis(like: Like) -> Refused {
    Refused::misconfigured(
        format!("what answers there is no Redis, it looks like {like}"),
        match like {
            TLS => "write rediss:// in place of redis://",
            _ => "put the host and port of a Redis into the URL",
        },
    )
}

/// Dials nothing, for tests.
#[cfg(test)]
#[derive(Debug)]
pub(super) struct Nowhere;

#[cfg(test)]
impl Connector for Nowhere {
    fn connect(&self, _: &Address) -> StoreFuture<RedisResult<Dialled>> {
        Box::pin(std::future::pending())
    }

    fn subscribe(&self, _: &Address, _: Option<String>) -> StoreFuture<RedisResult<PubSub>> {
        Box::pin(std::future::pending())
    }
}
