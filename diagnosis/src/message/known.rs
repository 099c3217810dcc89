//! The table of nginx's error messages.

/// What a known message says, before the phase decides which cause that is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `NGX_NO_RESOLVER` (`ngx_http_upstream_init_request`).
    NoResolver,
    /// A URL made from variables that cannot be used (`ngx_http_proxy_eval`, `ngx_parse_url`).
    BadUrl,
    /// `peer.get` returned `NGX_BUSY` (`ngx_http_upstream_connect`).
    NoLiveUpstreams,
    /// `connect()` failed, at once or later (`ngx_event_connect_peer`,
    /// `ngx_http_upstream_test_connect`).
    Connect,
    /// `socket()` failed (`ngx_event_connect_peer`).
    Socket,
    /// The local side of the connection could not be set (`ngx_event_connect_peer`).
    Bind,
    /// nginx itself got no memory (`ngx_alloc`, `ngx_memalign`).
    Memory,
    /// A file of nginx's own could not be used: a response in a temporary file, the cache. nginx
    /// goes on without it where it can.
    Disk,
    /// No free `ngx_connection_t` (`ngx_get_connection`).
    WorkerConnections,
    /// The upstream closed with FIN too early.
    Closed,
    /// A read or write on the connection failed with an errno.
    Io,
    /// One of nginx's own timers ran out.
    Timeout,
    /// The header does not fit `u->buffer` (`ngx_http_upstream_process_header`).
    HeaderTooBig,
    /// The header does not follow the rules (`ngx_http_proxy_process_header` and the handlers of
    /// single headers in `ngx_http_upstream.c`).
    InvalidHeader,
    /// The first line is no status line, or bytes came before the TLS handshake: the upstream
    /// speaks another protocol, or nonsense.
    NotHttp,
    /// The body's framing is broken.
    InvalidBody,
    /// The framing of the protocol is broken: FastCGI records, HTTP/2 frames, memcached's lines.
    BadFrame,
    /// The peer ended the HTTP/2 stream or connection with an error code (RST_STREAM, GOAWAY).
    StreamReset,
    /// nginx lost its way (`ngx_http_fastcgi_process_header`).
    Internal,
    /// OpenSSL reported an error of the peer's or of the protocol (`ngx_ssl_connection_error`).
    Tls,
    /// A read or write below TLS failed with an errno (as above).
    TlsIo,
    /// The certificate does not verify (`ngx_http_upstream_ssl_handshake`).
    Certificate,
    /// The certificate is for another name (as above).
    CertificateName,
}

impl Kind {
    /// It comes before there is a connection: nothing of one may be asked or reported.
    pub fn is_before_connection(self) -> bool {
        matches!(
            self,
            Kind::NoResolver
                | Kind::BadUrl
                | Kind::NoLiveUpstreams
                | Kind::Connect
                | Kind::Socket
                | Kind::Bind
                | Kind::WorkerConnections
        )
    }
}

pub(super) enum Shape {
    /// The message starts with this text; nothing behind it is read.
    Text(&'static str),
    /// This text, then ` (N: strerror)`.
    Errno(&'static str),
    /// This text, then ` (SSL: OpenSSL's errors)`, and ` (N: strerror)` if there is an errno.
    OpenSsl(&'static str),
    /// This text, then ` (N: strerror)` if there is an errno.
    MaybeErrno(&'static str),
    /// `connect() to NAME failed (N: strerror)`: NAME is the peer's, known from `u->peer.name`.
    Peer { before: &'static str, after: &'static str },
    /// `bind(ADDRESS) failed (N: strerror)`: what is between is nginx's own print of an address,
    /// a number or the name of a file.
    Between { before: &'static str, after: &'static str },
    /// `N worker_connections are not enough`.
    Counted(&'static str),
}

impl Shape {
    const fn may_begin_with(&self, first: u8) -> bool {
        let (Text(text)
        | Errno(text)
        | OpenSsl(text)
        | MaybeErrno(text)
        | Peer { before: text, .. }
        | Between { before: text, .. }) = self
        else {
            return first.is_ascii_digit();
        };
        match text.as_bytes() {
            [begins, ..] => *begins == first,
            [] => true,
        }
    }
}

/// For each byte of ASCII, which messages may begin with it: a bit for each place in the table.
const BEGINNING: [u128; 128] = {
    let mut all = [0; 128];
    let (mut rest, mut byte) = (all.as_mut_slice(), 0);
    while let [messages, others @ ..] = rest {
        let (mut known, mut bit) = (KNOWN, 1_u128);
        while let [(shape, _), behind @ ..] = known {
            if shape.may_begin_with(byte) {
                *messages |= bit;
            }
            // The table has no more places than there are bits.
            assert!(bit != 0);
            (known, bit) = (behind, bit << 1);
        }
        (rest, byte) = (others, byte + 1);
    }
    all
};

/// The messages that may begin with a byte, in the order of the table.
#[inline]
pub(super) fn beginning_with(first: u8) -> impl Iterator<Item = &'static (Shape, Kind)> {
    let mut bits = BEGINNING.get(usize::from(first)).copied().unwrap_or(0);
    std::iter::from_fn(move || {
        let at = bits.trailing_zeros() as usize;
        bits &= bits.wrapping_sub(1);
        KNOWN.get(at)
    })
}

use Shape::{Between, Counted, Errno, MaybeErrno, OpenSsl, Peer, Text};

/// Every message this crate knows, each with the kind of failure it reports.
pub(super) const KNOWN: &[(Shape, Kind)] = &[
    (Text("no resolver defined to resolve "), Kind::NoResolver),
    (Text("no port in upstream \""), Kind::BadUrl),
    (Text("no host in upstream \""), Kind::BadUrl),
    (Text("invalid host in upstream \""), Kind::BadUrl),
    (Text("invalid port in upstream \""), Kind::BadUrl),
    (Text("invalid port range in upstream \""), Kind::BadUrl),
    (Text("invalid IPv6 address in upstream \""), Kind::BadUrl),
    (Text("the INET6 sockets are not supported on this platform in upstream \""), Kind::BadUrl),
    (Text("host not found in upstream \""), Kind::BadUrl),
    (Text("no path in the unix domain socket in upstream \""), Kind::BadUrl),
    (Text("too long path in the unix domain socket in upstream \""), Kind::BadUrl),
    (Text("invalid URL prefix in \""), Kind::BadUrl),
    (Text("zero length URI to proxy"), Kind::BadUrl),
    (Text("https protocol requires SSL support"), Kind::BadUrl),
    (Text("grpcs protocol requires SSL support"), Kind::BadUrl),
    (Text("suwsgi protocol requires SSL support"), Kind::BadUrl),
    (Text("no live upstreams"), Kind::NoLiveUpstreams),
    (Peer { before: "connect() to ", after: " failed" }, Kind::Connect),
    (Errno("connect() failed"), Kind::Connect),
    (Errno("socket() failed"), Kind::Socket),
    (Between { before: "bind(", after: ") failed" }, Kind::Bind),
    (Between { before: "malloc(", after: ") failed" }, Kind::Memory),
    (Between { before: "posix_memalign(", after: ") failed" }, Kind::Memory),
    (Between { before: "open() \"", after: "\" failed" }, Kind::Disk),
    (Between { before: "mkdir() \"", after: "\" failed" }, Kind::Disk),
    (Between { before: "read() \"", after: "\" failed" }, Kind::Disk),
    (Between { before: "pread() \"", after: "\" failed" }, Kind::Disk),
    (Between { before: "write() \"", after: "\" failed" }, Kind::Disk),
    (Between { before: "pwrite() \"", after: "\" failed" }, Kind::Disk),
    (Between { before: "writev() \"", after: "\" failed" }, Kind::Disk),
    (Between { before: "pwritev() \"", after: "\" failed" }, Kind::Disk),
    (Errno("setsockopt(IP_TRANSPARENT) failed"), Kind::Bind),
    (Errno("setsockopt(IPV6_TRANSPARENT) failed"), Kind::Bind),
    (Counted(" worker_connections are not enough"), Kind::WorkerConnections),
    (Text("upstream prematurely closed connection"), Kind::Closed),
    (Errno("recv() failed"), Kind::Io),
    (Errno("readv() failed"), Kind::Io),
    (Errno("send() failed"), Kind::Io),
    (Errno("writev() failed"), Kind::Io),
    (Errno("sendfile() failed"), Kind::Io),
    (Errno("upstream timed out"), Kind::Timeout),
    (MaybeErrno("peer closed connection in SSL handshake"), Kind::Closed),
    (OpenSsl("SSL_do_handshake() failed"), Kind::Tls),
    (OpenSsl("SSL_read() failed"), Kind::Tls),
    (OpenSsl("SSL_write() failed"), Kind::Tls),
    // Without errors in OpenSSL's queue these are errors of the socket.
    (Errno("SSL_do_handshake() failed"), Kind::TlsIo),
    (Errno("SSL_read() failed"), Kind::TlsIo),
    (Errno("SSL_write() failed"), Kind::TlsIo),
    (Text("upstream SSL certificate verify error: ("), Kind::Certificate),
    (Text("upstream SSL certificate does not match \""), Kind::CertificateName),
    (Text("upstream sent too big header"), Kind::HeaderTooBig),
    (Text("upstream sent invalid header: \""), Kind::InvalidHeader),
    (Text("upstream sent duplicate header line: \""), Kind::InvalidHeader),
    (
        Text("upstream sent \"Content-Length\" and \"Transfer-Encoding\" headers"),
        Kind::InvalidHeader,
    ),
    (Text("upstream sent invalid \"Content-Length\" header: \""), Kind::InvalidHeader),
    (Text("upstream sent unknown \"Transfer-Encoding\": \""), Kind::InvalidHeader),
    (Text("upstream sent no valid HTTP/1.0 header"), Kind::NotHttp),
    (Text("upstream prematurely sent response"), Kind::NotHttp),
    (Text("upstream sent invalid chunked response"), Kind::InvalidBody),
    // FastCGI
    (Text("upstream prematurely closed FastCGI stdout"), Kind::Closed),
    (Text("upstream prematurely closed FastCGI request"), Kind::Closed),
    (Text("upstream sent unexpected FastCGI record: "), Kind::BadFrame),
    (Text("upstream sent unsupported FastCGI protocol version: "), Kind::BadFrame),
    (Text("upstream sent invalid FastCGI record type: "), Kind::BadFrame),
    (Text("upstream sent unexpected FastCGI request id "), Kind::BadFrame),
    (Text("invalid header after joining FastCGI records"), Kind::Internal),
    // FastCGI, uwsgi, SCGI
    (Text("upstream sent invalid status \""), Kind::InvalidHeader),
    // gRPC and HTTP/2
    (Text("upstream rejected request with error "), Kind::StreamReset),
    (Text("upstream sent goaway with error "), Kind::StreamReset),
    (Text("upstream prematurely closed stream"), Kind::Closed),
    (Text("upstream sent duplicate :status header"), Kind::InvalidHeader),
    (Text("upstream sent invalid :status \""), Kind::InvalidHeader),
    (Text("upstream sent unexpected :status \""), Kind::InvalidHeader),
    (Text("upstream sent no :status header"), Kind::InvalidHeader),
    (Text("upstream sent invalid encoded header"), Kind::InvalidHeader),
    (Text("upstream sent invalid header"), Kind::InvalidHeader),
    (Text("upstream sent zero http2 header name length"), Kind::InvalidHeader),
    (Text("upstream sent too large http2 header name length"), Kind::InvalidHeader),
    (Text("upstream sent too large http2 header value length"), Kind::InvalidHeader),
    (Text("upstream sent truncated http2 header"), Kind::InvalidHeader),
    (Text("upstream sent http2 table index with continuation flag"), Kind::InvalidHeader),
    (Text("upstream sent invalid http2 table index: "), Kind::InvalidHeader),
    (Text("upstream sent invalid http2 dynamic table size update: "), Kind::InvalidHeader),
    (Text("upstream sent invalid trailer"), Kind::InvalidBody),
    (Text("upstream sent trailer without end stream flag"), Kind::InvalidBody),
    (Text("upstream sent response body larger than indicated content length"), Kind::InvalidBody),
    (Text("upstream sent unexpected http2 frame: "), Kind::BadFrame),
    (Text("upstream sent too large http2 frame: "), Kind::BadFrame),
    (Text("upstream sent too short http2 frame"), Kind::BadFrame),
    (Text("upstream sent http2 frame with too long padding: "), Kind::BadFrame),
    (Text("upstream sent unexpected push promise frame"), Kind::BadFrame),
    (Text("upstream sent frame for "), Kind::BadFrame),
    (Text("upstream sent data frame for unknown stream "), Kind::BadFrame),
    (Text("upstream sent headers frame "), Kind::BadFrame),
    (Text("upstream sent rst stream frame "), Kind::BadFrame),
    (Text("upstream sent goaway frame "), Kind::BadFrame),
    (Text("upstream sent settings frame "), Kind::BadFrame),
    (Text("upstream sent too many settings frames"), Kind::BadFrame),
    (Text("upstream sent ping frame "), Kind::BadFrame),
    (Text("upstream sent too many ping frames"), Kind::BadFrame),
    (Text("upstream sent window update frame "), Kind::BadFrame),
    (Text("upstream sent too large window update"), Kind::BadFrame),
    (Text("upstream violated stream flow control"), Kind::BadFrame),
    (Text("upstream violated connection flow control"), Kind::BadFrame),
    // memcached
    (Text("memcached sent invalid trailer"), Kind::InvalidBody),
    (Text("memcached sent invalid key in response \""), Kind::BadFrame),
    (Text("memcached sent invalid flags in response \""), Kind::BadFrame),
    (Text("memcached sent invalid length in response \""), Kind::BadFrame),
    (Text("memcached sent invalid response: \""), Kind::BadFrame),
    (Text("upstream sent too big trailers"), Kind::InvalidBody),
    (Text("upstream sent invalid trailer: \""), Kind::InvalidBody),
];
