//! TLS: which authorities are trusted, which certificate we show, and what went wrong, in words.
//!
//! | in the URL | what it does |
//! |---|---|
//! | nothing | the authorities that this machine trusts |
//! | `?ca=FILE` | those in the file, and no others |
//! | `?cert=FILE&key=FILE` | shown to a server that asks for a client certificate |
//! | `#insecure` | no certificate is checked; one warning says so |
//!
//! The files are read when the locker is built, so that a mistake is told there, and again with
//! each dial, for certificates are renewed while a process runs. Files that can't be used at such
//! a time are half written: those of the last time stay.
//!
//! # The dangers
//!
//! - *A certificate that is wrong, told as trouble of the network.* A caller that waits would wait
//!   for ever. What can't mend itself is [`Refused`] as misconfigured.
//! - *A key in a message.* No text here shows what a file holds, only its name.
//! - *A server that wants a client certificate says so late:* in TLS 1.3 the client's handshake is
//!   over by then, and the alert comes in place of the first answer. So each session notes whether
//!   it was asked for one.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, UNIX_EPOCH};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ResolvesClientCert, Resumption};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::sign::CertifiedKey;
use rustls::{
    AlertDescription, CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore,
    SignatureScheme,
};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::blocking::on_a_thread;
use crate::shown::shown;
use crate::store::StoreErrorKind;

use super::error::{NO_TLS, OTHER_NAME, Refused};

/// What to do where a server asks for a client certificate.
const SHOW_ONE: &str = "name one in the URL: ?cert=/path/client.pem&key=/path/client.key";

/// The parameters of a URL that are about TLS, as they were written.
#[derive(Clone, Debug, Default)]
pub(crate) struct TlsOptions {
    pub(crate) ca: Option<PathBuf>,
    pub(crate) cert: Option<PathBuf>,
    pub(crate) key: Option<PathBuf>,
    /// Nothing is checked.
    pub(crate) insecure: bool,
}

/// What is wrong with a parameter, and what to do about it.
pub(crate) type Mistake = (String, &'static str);

/// TLS as one locker speaks it, with each of its servers.
pub(crate) struct Tls {
    options: TlsOptions,
    /// What the files held when they were last of use.
    loaded: Mutex<Loaded>,
    /// The warning about `#insecure` was logged.
    warned: AtomicBool,
}

/// Danger: a key is in there.
impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls")
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

/// The files' bytes, and what was made of them.
#[derive(Clone, Default)]
struct Loaded {
    ca: Option<Vec<u8>>,
    cert: Option<Vec<u8>>,
    key: Option<Vec<u8>>,
    /// The authorities of `ca`; without that, the machine's, once a dial has asked for them.
    roots: Option<Arc<RootCertStore>>,
    shown: Option<Arc<CertifiedKey>>,
}

impl Tls {
    /// Reads the files. Blocking I/O.
    ///
    /// # Errors
    ///
    /// One that names the parameter: of two that go together one is missing, or a file can't be
    /// used.
    pub(crate) fn new(options: TlsOptions) -> Result<Self, Mistake> {
        let alone = match (&options.cert, &options.key) {
            (Some(_), None) => Some("it has ?cert= without ?key="),
            (None, Some(_)) => Some("it has ?key= without ?cert="),
            _ => None,
        };
        if let Some(alone) = alone {
            return Err((
                alone.to_owned(),
                "a client certificate needs both: ?cert=/path/client.pem&key=/path/client.key",
            ));
        }
        if options.insecure && options.ca.is_some() {
            return Err((
                "it has ?ca= and #insecure, which checks nothing".to_owned(),
                "leave #insecure out",
            ));
        }
        let loaded = Loaded::default().newer(&options)?.unwrap_or_default();
        Ok(Self {
            options,
            loaded: Mutex::new(loaded),
            warned: AtomicBool::new(false),
        })
    }

    fn loaded(&self) -> MutexGuard<'_, Loaded> {
        self.loaded.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a dial goes by: the files as they are now. Blocking I/O.
    fn load(&self) -> Result<Loaded, Refused> {
        let mut loaded = self.loaded().clone();
        if let Ok(Some(newer)) = loaded.newer(&self.options) {
            loaded = newer;
        }
        if loaded.roots.is_none() && !self.options.insecure {
            loaded.roots = Some(Arc::new(roots_of_this_machine()?));
        }
        *self.loaded() = loaded.clone();
        Ok(loaded)
    }

    /// Shakes hands over a connection to that host.
    pub(super) async fn connect(
        self: &Arc<Self>,
        host: &str,
        stream: TcpStream,
    ) -> io::Result<(TlsStream<TcpStream>, Session)> {
        if self.options.insecure && !self.warned.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                host = %shown(host),
                "#insecure: the server's certificate is not checked, so another machine may answer \
                 in its place, and learn the password; name its authority by ?ca=/path/ca.pem"
            );
        }
        let this = Arc::clone(self);
        let loaded = on_a_thread(move || this.load()).await??;
        let session = Session {
            asked: Arc::default(),
            tls: Arc::clone(self),
        };
        let config = session.config(&loaded).map_err(io::Error::other)?;
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let name = ServerName::try_from(bare.to_owned()).map_err(|_| {
            Refused::misconfigured(
                format!("no certificate can be for the host {:?}", shown(host)),
                "write the host's name or its address as the certificate has it",
            )
        })?;
        match TlsConnector::from(Arc::new(config))
            .connect(name, stream)
            .await
        {
            Ok(stream) => Ok((stream, session)),
            Err(error) => Err(session.explain(error, true)),
        }
    }
}

impl Loaded {
    /// The files, if they hold something else now. Blocking I/O.
    fn newer(&self, options: &TlsOptions) -> Result<Option<Self>, Mistake> {
        let read = |parameter, path: &Option<PathBuf>| {
            path.as_deref()
                .map(|path| read(parameter, path))
                .transpose()
        };
        let newer = Self {
            ca: read("ca", &options.ca)?,
            cert: read("cert", &options.cert)?,
            key: read("key", &options.key)?,
            roots: None,
            shown: None,
        };
        if (&newer.ca, &newer.cert, &newer.key) == (&self.ca, &self.cert, &self.key) {
            return Ok(None);
        }
        let roots = match (&options.ca, &newer.ca) {
            (Some(path), Some(pem)) => Some(Arc::new(authorities(path, pem)?)),
            _ => self.roots.clone(),
        };
        let shown = match (options.cert.as_deref(), options.key.as_deref()) {
            (Some(cert), Some(key)) => {
                let (cert_pem, key_pem) = (newer.cert.as_deref(), newer.key.as_deref());
                Some(Arc::new(client_certificate(
                    (cert, cert_pem.unwrap_or_default()),
                    (key, key_pem.unwrap_or_default()),
                )?))
            }
            _ => None,
        };
        Ok(Some(Self {
            roots,
            shown,
            ..newer
        }))
    }
}

/// Larger than any of these files is: what is larger is another file.
const LARGEST: u64 = 16 << 20;

fn read(parameter: &'static str, path: &Path) -> Result<Vec<u8>, Mistake> {
    let wrong = |why: String| {
        (
            format!(
                "the file of ?{parameter}= {why}: {:?}",
                shown(path.display())
            ),
            "name a PEM file that this process may read",
        )
    };
    let unreadable = |error: io::Error| wrong(format!("can't be read ({})", shown(&error)));
    // Not a pipe, which would never end.
    let about = std::fs::metadata(path).map_err(unreadable)?;
    if !about.is_file() {
        return Err(wrong("is no file".to_owned()));
    }
    if about.len() > LARGEST {
        return Err(wrong("is larger than any certificate".to_owned()));
    }
    std::fs::read(path).map_err(unreadable)
}

/// The certificates in a file.
fn certificates(
    parameter: &'static str,
    path: &Path,
    pem: &[u8],
) -> Result<Vec<CertificateDer<'static>>, Mistake> {
    match CertificateDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>() {
        Ok(some) if !some.is_empty() => Ok(some),
        _ => Err((
            format!(
                "the file of ?{parameter}= holds no certificate in PEM form: {:?}",
                shown(path.display())
            ),
            "name a file with -----BEGIN CERTIFICATE----- in it",
        )),
    }
}

/// The authorities in the file of `?ca=`.
fn authorities(path: &Path, pem: &[u8]) -> Result<RootCertStore, Mistake> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates("ca", path, pem)? {
        roots.add(certificate).map_err(|_| {
            (
                format!(
                    "the file of ?ca= holds a certificate that can't be read: {:?}",
                    shown(path.display())
                ),
                "name the file with the certificate of the authority",
            )
        })?;
    }
    Ok(roots)
}

/// The certificate that we show, and its key. The key's bytes are in no error.
fn client_certificate(
    (cert, cert_pem): (&Path, &[u8]),
    (key, key_pem): (&Path, &[u8]),
) -> Result<CertifiedKey, Mistake> {
    let chain = certificates("cert", cert, cert_pem)?;
    let no_key = |why: &str, remedy| {
        (
            format!("the file of ?key= {why}: {:?}", shown(key.display())),
            remedy,
        )
    };
    let private = PrivateKeyDer::from_pem_slice(key_pem).map_err(|_| {
        let is_encrypted = key_pem.windows(9).any(|part| part == b"ENCRYPTED");
        if is_encrypted {
            no_key(
                "holds a private key that is encrypted with a passphrase",
                "name a file with the key decrypted, which only this process may read",
            )
        } else {
            no_key(
                "holds no private key in PEM form",
                "name a file with -----BEGIN PRIVATE KEY----- in it",
            )
        }
    })?;
    CertifiedKey::from_der(chain, private, &ring::default_provider()).map_err(|error| match error {
        rustls::Error::InconsistentKeys(_) => (
            format!(
                "the key of ?key= ({:?}) is not that of the certificate of ?cert= ({:?})",
                shown(key.display()),
                shown(cert.display())
            ),
            "name the two files of one certificate",
        ),
        rustls::Error::InvalidCertificate(_) => (
            format!(
                "the file of ?cert= holds a certificate that can't be read: {:?}",
                shown(cert.display())
            ),
            "name the file with the client's certificate first, then those that lead to its authority",
        ),
        _ => no_key(
            "holds a private key of a kind that is not known here",
            "use a key for RSA (2048 to 8192 bits), ECDSA (P-256, P-384) or Ed25519",
        ),
    })
}

/// The authorities that the operating system trusts, or those of `SSL_CERT_FILE` and
/// `SSL_CERT_DIR`. Blocking I/O.
fn roots_of_this_machine() -> Result<RootCertStore, Refused> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        return Err(Refused::misconfigured(
            "this machine has no list of authorities that it trusts".to_owned(),
            "install ca-certificates, or name the server's authority in the URL: ?ca=/path/ca.pem",
        ));
    }
    Ok(roots)
}

/// One connection's TLS.
pub(super) struct Session {
    /// The server has asked for a client certificate.
    asked: Arc<AtomicBool>,
    tls: Arc<Tls>,
}

impl Session {
    fn config(&self, loaded: &Loaded) -> Result<ClientConfig, rustls::Error> {
        let provider = Arc::new(ring::default_provider());
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()?;
        let builder = if self.tls.options.insecure {
            let unchecked = Arc::new(Unchecked(provider));
            builder
                .dangerous()
                .with_custom_certificate_verifier(unchecked)
        } else {
            // Without any, no certificate is good.
            let none = || Arc::new(RootCertStore::empty());
            builder.with_root_certificates(loaded.roots.clone().unwrap_or_else(none))
        };
        let mut config = builder.with_client_cert_resolver(Arc::new(ClientCertificate {
            asked: Arc::clone(&self.asked),
            shown: loaded.shown.clone(),
        }));
        // A session that is resumed checks no certificate. Dials are rare.
        config.resumption = Resumption::disabled();
        Ok(config)
    }

    /// The server has asked for a certificate, and none was shown.
    fn has_shown_none(&self) -> bool {
        self.asked.load(Ordering::Relaxed) && self.tls.options.cert.is_none()
    }

    /// What a hang-up before the first answer may be about, if that can be told.
    pub(super) fn hung_up(&self) -> Option<Refused> {
        self.has_shown_none().then(|| Refused {
            kind: StoreErrorKind::Unknown,
            what: "the server asked for a client certificate, got none, and hung up".to_owned(),
            remedy: SHOW_ONE,
        })
    }

    /// The error of a session, in words; `early`: of its handshake, before any command has left.
    pub(super) fn explain(&self, error: io::Error, early: bool) -> io::Error {
        let known = error
            .get_ref()
            .and_then(|inner| inner.downcast_ref::<rustls::Error>());
        match known {
            Some(tls) => self.refusal(tls).into(),
            None if early && error.kind() == io::ErrorKind::UnexpectedEof => Refused {
                kind: StoreErrorKind::NotDone,
                what: "the server hung up during the TLS handshake".to_owned(),
                remedy: "see whether it speaks TLS at this port; if not, write redis://",
            }
            .into(),
            None => error,
        }
    }

    fn refusal(&self, error: &rustls::Error) -> Refused {
        use rustls::Error::{AlertReceived, InvalidCertificate, InvalidMessage, PeerIncompatible};
        match error {
            InvalidCertificate(why) => self.bad_certificate(why),
            AlertReceived(alert) => self.alert(*alert),
            InvalidMessage(rustls::InvalidMessage::InvalidContentType) => {
                Refused::misconfigured("what answers there speaks no TLS".to_owned(), NO_TLS)
            }
            PeerIncompatible(_) => nothing_in_common(),
            other => Refused {
                kind: StoreErrorKind::Unknown,
                what: format!("the TLS connection failed ({other})"),
                remedy: "see whether something between here and the server changes what is sent",
            },
        }
    }

    /// Why the server's certificate was not accepted.
    fn bad_certificate(&self, why: &CertificateError) -> Refused {
        use CertificateError as E;
        const RENEW: &str =
            "renew the server's certificate; if it is in order, set this machine's clock";
        const ANEW: &str = "issue the server's certificate anew";
        let what = match why {
            E::Expired => "the server's certificate has expired".to_owned(),
            E::ExpiredContext { not_after, .. } => {
                format!(
                    "the server's certificate has expired, on {}",
                    date(*not_after)
                )
            }
            E::NotValidYet => "the server's certificate is not valid yet".to_owned(),
            E::NotValidYetContext { not_before, .. } => format!(
                "the server's certificate is not valid yet, but from {}",
                date(*not_before)
            ),
            E::UnknownIssuer | E::BadSignature => {
                return match &self.tls.options.ca {
                    Some(path) => Refused::misconfigured(
                        format!(
                            "no authority in {:?} (?ca=) has issued the server's certificate",
                            shown(path.display())
                        ),
                        "put the certificate of the authority that has into that file",
                    ),
                    None => Refused::misconfigured(
                        "the server's certificate is of an authority that this machine does not \
                         trust"
                            .to_owned(),
                        "name the file with that authority's certificate in the URL: \
                         ?ca=/path/ca.pem",
                    ),
                };
            }
            E::NotValidForName => {
                return Refused::misconfigured(
                    "the server's certificate is not for this host".to_owned(),
                    OTHER_NAME,
                );
            }
            E::NotValidForNameContext {
                expected,
                presented,
            } => {
                let expected = expected.to_str();
                if presented.is_empty() {
                    return Refused::misconfigured(
                        format!(
                            "the server's certificate is not for {:?}, for it names no host (a \
                             common name alone does not count)",
                            shown(expected)
                        ),
                        "issue it anew with the host as a subjectAltName",
                    );
                }
                let names: Vec<String> =
                    presented.iter().take(8).map(|it| plain_name(it)).collect();
                return Refused::misconfigured(
                    format!(
                        "the server's certificate is not for {:?}, but for {}",
                        shown(expected),
                        shown(names.join(", "))
                    ),
                    OTHER_NAME,
                );
            }
            E::Revoked => "the server's certificate was revoked".to_owned(),
            E::InvalidPurpose | E::InvalidPurposeContext { .. } => {
                return Refused::misconfigured(
                    "the server's certificate is not one for servers".to_owned(),
                    "issue it anew with the extended key usage serverAuth",
                );
            }
            other if other.to_string().contains("CaUsedAsEndEntity") => {
                return Refused::misconfigured(
                    "the server's certificate is that of an authority (CA:TRUE)".to_owned(),
                    "issue one for the server with that authority, and without CA:TRUE",
                );
            }
            other => {
                return Refused::misconfigured(
                    format!("the server's certificate can't be used ({other})"),
                    ANEW,
                );
            }
        };
        Refused::misconfigured(what, RENEW)
    }

    /// What the server has refused us for.
    fn alert(&self, alert: AlertDescription) -> Refused {
        use AlertDescription as A;
        match alert {
            A::CertificateRequired => wants_a_certificate(),
            A::BadCertificate | A::HandshakeFailure | A::NoCertificate | A::AccessDenied
                if self.has_shown_none() =>
            {
                wants_a_certificate()
            }
            A::BadCertificate
            | A::UnsupportedCertificate
            | A::CertificateRevoked
            | A::CertificateExpired
            | A::CertificateUnknown
            | A::UnknownCA
            | A::AccessDenied
            | A::DecryptError
                if self.tls.options.cert.is_some() =>
            {
                let path = self.tls.options.cert.as_deref().unwrap_or(Path::new(""));
                let why = match alert {
                    A::CertificateRevoked => "it was revoked",
                    A::CertificateExpired => "it has expired",
                    A::UnknownCA => "of an authority that the server does not trust",
                    _ => "the server does not say why; its log may",
                };
                Refused::misconfigured(
                    format!(
                        "the server does not accept the client certificate {:?} (?cert=): {why}",
                        shown(path.display())
                    ),
                    "name one that is valid now and of an authority that the server trusts",
                )
            }
            A::HandshakeFailure | A::ProtocolVersion | A::InsufficientSecurity => {
                nothing_in_common()
            }
            A::UnrecognisedName => Refused::misconfigured(
                "the server says that it is not the host that the URL names".to_owned(),
                "write the host's name as the server's certificate has it",
            ),
            other => Refused {
                kind: StoreErrorKind::Unknown,
                what: format!("the server has ended the TLS connection ({other:?})"),
                remedy: "its log may say why",
            },
        }
    }
}

fn wants_a_certificate() -> Refused {
    Refused::misconfigured("the server wants a client certificate".to_owned(), SHOW_ONE)
}

fn nothing_in_common() -> Refused {
    Refused::misconfigured(
        "the server and this library have no TLS version and cipher in common".to_owned(),
        "have the server offer TLS 1.2 or 1.3 with its usual ciphers",
    )
}

/// A certificate's name as people write it: rustls says `DnsName("redis")`.
fn plain_name(name: &str) -> String {
    name.split_once('(')
        .and_then(|(_, rest)| rest.strip_suffix(')'))
        .unwrap_or(name)
        .trim_matches('"')
        .to_owned()
}

/// A day and its time, in UTC.
fn date(time: UnixTime) -> String {
    match UNIX_EPOCH.checked_add(Duration::from_secs(time.as_secs())) {
        // Later dates have no such form.
        Some(at) if time.as_secs() < 253_402_300_800 => {
            humantime::format_rfc3339_seconds(at).to_string()
        }
        _ => format!("second {}", time.as_secs()),
    }
}

/// The certificate that we show, if the server asks for one.
#[derive(Debug)]
struct ClientCertificate {
    asked: Arc<AtomicBool>,
    shown: Option<Arc<CertifiedKey>>,
}

impl ResolvesClientCert for ClientCertificate {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.asked.store(true, Ordering::Relaxed);
        self.shown.clone()
    }

    fn has_certs(&self) -> bool {
        true
    }
}

/// `#insecure`: every certificate will do, also one that can't be read.
#[derive(Debug)]
struct Unchecked(Arc<CryptoProvider>);

impl ServerCertVerifier for Unchecked {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
