//! Upstreams that speak TLS: certificates made for one test, and a server that runs any other
//! script behind a handshake.

use std::fmt;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::Shutdown;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{
    BasicConstraints, Certificate, CertificateParams, DnType, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, date_time_ymd,
};
use rustls::crypto::ring::default_provider;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{
    RootCertStore, ServerConfig, ServerConnection, SupportedCipherSuite, SupportedProtocolVersion,
};
use socket2::Socket;
use tempfile::TempDir;

use super::Conn;

/// For [`Server::cipher_suite`].
pub use rustls::crypto::ring::cipher_suite;
/// For [`Server::version`].
pub use rustls::version::{TLS12, TLS13};

/// A certificate authority.
#[derive(Debug)]
pub struct Ca {
    issuer: Issuer<'static, KeyPair>,
    der: CertificateDer<'static>,
    /// What a server sends behind the certificates signed here, so that a client gets to the root.
    chain: Vec<CertificateDer<'static>>,
    file: PemFile,
}

impl Ca {
    /// A root of this name. OpenSSL looks for issuers by name: two that are to be different need
    /// different ones.
    ///
    /// # Panics
    /// When the certificate cannot be made.
    pub fn new(name: &str) -> Self {
        Self::signed(name, None)
    }

    /// An authority that this one has signed.
    pub fn intermediate(&self, name: &str) -> Self {
        Self::signed(name, Some(self))
    }

    /// The file for `proxy_ssl_trusted_certificate`.
    pub fn path(&self) -> &Path {
        &self.file.path
    }

    /// A certificate for these names.
    pub fn identity(&self, names: &[&str]) -> Identity {
        Identity::new(params("leaf", names), Some(self))
    }

    /// A certificate for these names that was valid once.
    pub fn expired(&self, names: &[&str]) -> Identity {
        let mut params = params("leaf", names);
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(2021, 1, 1);
        Identity::new(params, Some(self))
    }

    fn signed(name: &str, by: Option<&Self>) -> Self {
        let mut params = params(name, &[]);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        let (cert, key) = sign(&params, by);
        let mut chain = Vec::new();
        if let Some(by) = by {
            chain.push(cert.der().clone());
            chain.extend_from_slice(&by.chain);
        }
        let (der, file) = (cert.der().clone(), PemFile::new(&cert.pem()));
        Self { issuer: Issuer::new(params, key), der, chain, file }
    }
}

/// A certificate with its key.
#[derive(Debug)]
pub struct Identity {
    chain: Vec<CertificateDer<'static>>,
    key: Vec<u8>,
    file: PemFile,
}

impl Identity {
    /// A certificate for these names that no authority has signed.
    pub fn self_signed(names: &[&str]) -> Self {
        Self::new(params("self-signed leaf", names), None)
    }

    /// Without the certificates of intermediate authorities, which a server has to send along.
    #[must_use]
    pub fn alone(mut self) -> Self {
        self.chain.truncate(1);
        self
    }

    /// The file with both, for `proxy_ssl_certificate` and `proxy_ssl_certificate_key`.
    pub fn path(&self) -> &Path {
        &self.file.path
    }

    fn new(params: CertificateParams, by: Option<&Ca>) -> Self {
        let (cert, key) = sign(&params, by);
        let mut chain = vec![cert.der().clone()];
        chain.extend(by.into_iter().flat_map(|ca| ca.chain.iter().cloned()));
        let file = PemFile::new(&format!("{}{}", cert.pem(), key.serialize_pem()));
        Self { chain, key: key.serialize_der(), file }
    }
}

/// A certificate with a new key, signed by an authority or by that key.
fn sign(params: &CertificateParams, by: Option<&Ca>) -> (Certificate, KeyPair) {
    let key = KeyPair::generate().expect("a key");
    let cert = match by {
        Some(ca) => params.signed_by(&key, &ca.issuer),
        None => params.self_signed(&key),
    };
    (cert.expect("a certificate"), key)
}

fn params(name: &str, names: &[&str]) -> CertificateParams {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut params = CertificateParams::new(names).expect("valid names");
    params.distinguished_name.push(DnType::CommonName, name);
    params
}

#[derive(Debug)]
struct PemFile {
    path: PathBuf,
    _dir: TempDir,
}

impl PemFile {
    fn new(text: &str) -> Self {
        let dir = crate::temp_dir();
        let path = dir.path().join("file.pem");
        std::fs::write(&path, text).expect("a file in a temporary directory");
        Self { path, _dir: dir }
    }
}

/// What a server offers; TLS 1.2 and 1.3 with rustls' cipher suites unless set.
pub struct Server {
    chain: Vec<CertificateDer<'static>>,
    key: Vec<u8>,
    versions: Vec<&'static SupportedProtocolVersion>,
    suites: Vec<SupportedCipherSuite>,
    clients: Option<RootCertStore>,
    protocols: Vec<Vec<u8>>,
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("versions", &self.versions).finish_non_exhaustive()
    }
}

impl Server {
    /// A server with this certificate.
    pub fn new(identity: &Identity) -> Self {
        Self {
            chain: identity.chain.clone(),
            key: identity.key.clone(),
            versions: rustls::ALL_VERSIONS.to_vec(),
            suites: default_provider().cipher_suites,
            clients: None,
            protocols: Vec::new(),
        }
    }

    /// Speaks this version only.
    #[must_use]
    pub fn version(mut self, version: &'static SupportedProtocolVersion) -> Self {
        self.versions = vec![version];
        self
    }

    /// Speaks this cipher suite only.
    #[must_use]
    pub fn cipher_suite(mut self, suite: SupportedCipherSuite) -> Self {
        self.suites = vec![suite];
        self
    }

    /// Wants a client certificate that this authority has signed.
    ///
    /// # Panics
    /// When the authority's certificate is not accepted as such.
    #[must_use]
    pub fn require_client(mut self, ca: &Ca) -> Self {
        let mut roots = RootCertStore::empty();
        roots.add(ca.der.clone()).expect("the certificate of an authority");
        self.clients = Some(roots);
        self
    }

    /// Speaks this protocol only, with those who offer any by ALPN.
    #[must_use]
    pub fn protocol(mut self, name: &str) -> Self {
        self.protocols = vec![name.into()];
        self
    }

    /// Runs this script behind the handshake; what it reads and writes is what TLS protects.
    /// Closing is left as it is, without an alert: [`Conn::close_notify`] sends one.
    ///
    /// # Panics
    /// When what the server offers does not go together.
    pub fn over(
        self,
        script: impl Fn(usize, &mut Conn) + Send + Sync + 'static,
    ) -> impl Fn(usize, &mut Conn) + Send + Sync + 'static {
        let config = Arc::new(self.config());
        move |index, conn| {
            if conn.accept_tls(&config) {
                script(index, conn);
            }
        }
    }

    fn config(self) -> ServerConfig {
        let mut provider = default_provider();
        provider.cipher_suites = self.suites;
        let provider = Arc::new(provider);
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&self.versions)
            .expect("versions with cipher suites");
        let builder = match self.clients {
            Some(roots) => builder.with_client_cert_verifier(
                WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
                    .build()
                    .expect("an authority"),
            ),
            None => builder.with_no_client_auth(),
        };
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(self.key));
        let config = builder.with_single_cert(self.chain, key);
        let mut config = config.expect("a certificate with its key");
        config.alpn_protocols = self.protocols;
        config
    }
}

/// TLS on a connection that was accepted.
#[derive(Debug)]
pub(super) struct Session(ServerConnection);

impl Session {
    /// The handshake; none when it failed. The peer was told why, and had the time to read it.
    pub(super) fn accept(config: &Arc<ServerConfig>, mut socket: &Socket) -> Option<Self> {
        let mut session = ServerConnection::new(Arc::clone(config)).expect("a configuration");
        session.set_buffer_limit(None);
        while session.is_handshaking() {
            // Sends the alert, too, when there is something to complain about.
            if session.complete_io(&mut socket).is_err() {
                // Bytes that nobody read would make the kernel reset the connection, and the
                // reset would overtake the alert.
                let _ = socket.shutdown(Shutdown::Write);
                let mut part = [0; 4096];
                while socket.read(&mut part).is_ok_and(|n| n > 0) {}
                return None;
            }
        }
        let mut session = Self(session);
        session.flush(socket).then_some(session)
    }

    /// Appends what is there without reading from the socket; false at the end.
    pub(super) fn take(&mut self, to: &mut Vec<u8>) -> bool {
        let mut part = [0; 16384];
        loop {
            match self.0.reader().read(&mut part) {
                Ok(0) => return false,
                Ok(n) => to.extend_from_slice(&part[..n]),
                Err(error) => return error.kind() == ErrorKind::WouldBlock,
            }
        }
    }

    /// Appends what comes next, at least one byte; none at the end.
    pub(super) fn fill(&mut self, mut socket: &Socket, to: &mut Vec<u8>) -> Option<()> {
        let before = to.len();
        while self.take(to) && to.len() == before {
            self.0.read_tls(&mut socket).ok().filter(|n| *n > 0)?;
            self.0.process_new_packets().ok()?;
            self.flush(socket);
        }
        (to.len() > before).then_some(())
    }

    /// Writes all of it, or says that it could not.
    pub(super) fn write(&mut self, socket: &Socket, bytes: &[u8]) -> bool {
        self.0.writer().write_all(bytes).is_ok() && self.flush(socket)
    }

    /// Says that nothing will follow.
    pub(super) fn close_notify(&mut self, socket: &Socket) {
        self.0.send_close_notify();
        self.flush(socket);
    }

    fn flush(&mut self, mut socket: &Socket) -> bool {
        while self.0.wants_write() {
            if self.0.write_tls(&mut socket).is_err() {
                return false;
            }
        }
        true
    }
}
