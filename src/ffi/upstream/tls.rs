//! TLS on the connection to the peer.

use super::Upstream;

#[cfg(nginx_ssl)]
impl Upstream<'_> {
    /// Whether the connection speaks TLS, and if so, whether the handshake is complete.
    pub(crate) fn tls_handshaked(&self) -> Option<bool> {
        let ssl = self.connection()?.ssl;
        // SAFETY: NULL, or the connection's TLS state, which lives as long as the connection.
        unsafe { ssl.as_ref() }.map(|ssl| ssl.handshaked() != 0)
    }

    /// Whether TLS failed on the connection: nginx sets `no_send_shutdown` before it logs a failure
    /// of the handshake, of a read or of a write (`ngx_event_openssl.c`).
    pub(crate) fn tls_failed(&self) -> bool {
        // SAFETY: as in tls_handshaked().
        let ssl = self.connection().and_then(|connection| unsafe { connection.ssl.as_ref() });
        ssl.is_some_and(|ssl| ssl.no_send_shutdown() != 0)
    }

    /// Whether nginx is to tell the upstream the name of the server (`proxy_ssl_server_name`).
    pub(crate) fn tells_server_name(&self) -> Option<bool> {
        // SAFETY: NULL until the protocol module has set it, then part of the configuration.
        let conf = unsafe { self.raw().conf.as_ref() }?;
        Some(conf.ssl_server_name != 0)
    }
}

/// In an nginx that was built without.
#[cfg(not(nginx_ssl))]
impl Upstream<'_> {
    /// As with TLS.
    pub(crate) fn tls_handshaked(&self) -> Option<bool> {
        None
    }

    /// As with TLS.
    pub(crate) fn tls_failed(&self) -> bool {
        false
    }

    /// As with TLS.
    pub(crate) fn tells_server_name(&self) -> Option<bool> {
        None
    }
}
