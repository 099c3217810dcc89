//! What OpenSSL's error texts say of a failed handshake.
//!
//! nginx appends them to its message (`ngx_ssl_error`). They are OpenSSL's own words; nothing in
//! them was written by the peer.

use memchr::memmem;

/// Why TLS failed, as far as it can be told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tls {
    /// What is wrong with the certificate (`X509_verify_cert_error_string`).
    pub verify: Option<String>,
    /// The alert that the peer sent (RFC 8446, section 6).
    pub alert: Option<u8>,
}

/// The alert in an OpenSSL error: `… SSL alert number N`.
pub fn alert(message: &[u8]) -> Option<u8> {
    const MARK: &[u8] = b"SSL alert number ";
    let digits = message.get(memmem::find(message, MARK)?.checked_add(MARK.len())?..)?;
    let len = digits.iter().take_while(|byte| byte.is_ascii_digit()).count();
    std::str::from_utf8(digits.get(..len)?).ok()?.parse().ok()
}

/// Whether OpenSSL's error says that what came was no TLS record at all: the peer speaks plain
/// HTTP, or something else. The bytes themselves are lost in OpenSSL's buffer, which has read
/// ahead (`SSL_CTX_set_read_ahead` in `ngx_ssl_create`).
pub fn is_no_tls(message: &[u8]) -> bool {
    memmem::find(message, b"wrong version number").is_some()
        // The words of BoringSSL.
        || memmem::find(message, b"WRONG_VERSION_NUMBER").is_some()
}

/// The text in `upstream SSL certificate verify error: (NUMBER:TEXT)`.
pub fn verify_error(message: &[u8]) -> Option<String> {
    let start = memchr::memchr(b'(', message)?;
    let inside = message.get(start..)?.strip_prefix(b"(")?;
    let text = inside.get(memchr::memchr(b':', inside)?..)?.strip_prefix(b":")?;
    Some(crate::text(text.get(..memchr::memchr(b')', text)?)?).into_owned())
}

/// What to do about a certificate that does not verify, by the number in the same message
/// (`X509_V_ERR_…`): it is the last error that OpenSSL found, as nginx lets it go on
/// (`ngx_ssl_verify_callback`).
pub(crate) fn verify_advice(message: &str) -> Option<&'static str> {
    let (_, inside) = message.split_once('(')?;
    let (number, _) = inside.split_once(':')?;
    Some(match number.parse().ok()? {
        2 | 19 | 20 => {
            "nginx does not know who issued the upstream's chain: add the root to proxy_ssl_trusted_certificate \
             (openssl s_client -showcerts -connect shows the chain)."
        }
        3 | 12 => {
            "It is a revocation list that is missing or out of date, not the certificate: renew the file of \
             proxy_ssl_crl, which needs one of each issuer in the chain."
        }
        11 => {
            "The file of proxy_ssl_crl is not valid yet: compare this host's clock with that of who made it (date -u)."
        }
        9 => {
            "The certificate is not valid yet: compare this host's clock with that of who issued it (date -u)."
        }
        10 => {
            "A certificate in the upstream's chain has expired: renew it there (openssl s_client -connect shows the \
             dates). If it has not, see whether this host's clock is right."
        }
        18 => {
            "The certificate is self-signed: add it itself to proxy_ssl_trusted_certificate, or have one issued by an \
             authority that is in there."
        }
        21 => {
            "The upstream sends no intermediate certificate: add it to what the upstream sends. If there is none, add \
             the issuer to proxy_ssl_trusted_certificate."
        }
        22 => {
            "The chain is longer than proxy_ssl_verify_depth allows, which is 1 by default: raise it."
        }
        23 => {
            "The certificate has been revoked, says the file of proxy_ssl_crl: have the upstream's renewed."
        }
        _ => return None,
    })
}

/// What to do about a certificate for another name.
///
/// `told`: nginx is to tell the upstream the server's name.
pub(crate) fn name_advice(told: bool) -> &'static str {
    if told {
        "Set proxy_ssl_name to a name that the certificate has."
    } else {
        "Set proxy_ssl_server_name on: nginx did not tell the name, so the upstream gave its default certificate. If \
         that is the right one, set proxy_ssl_name to a name it has."
    }
}

/// What to do about a close in the handshake where the name was told; the table has it of any.
pub(crate) const CLOSED_WITH_NAME: &str = "The port may not speak TLS; or the upstream does not know the server name (proxy_ssl_name), or wants a client certificate.";

/// The name of an alert, as in the registry that RFC 8446 refers to.
pub fn alert_name(alert: u8) -> Option<&'static str> {
    Some(match alert {
        0 => "close_notify",
        10 => "unexpected_message",
        20 => "bad_record_mac",
        21 => "decryption_failed",
        22 => "record_overflow",
        30 => "decompression_failure",
        40 => "handshake_failure",
        41 => "no_certificate",
        42 => "bad_certificate",
        43 => "unsupported_certificate",
        44 => "certificate_revoked",
        45 => "certificate_expired",
        46 => "certificate_unknown",
        47 => "illegal_parameter",
        48 => "unknown_ca",
        49 => "access_denied",
        50 => "decode_error",
        51 => "decrypt_error",
        60 => "export_restriction",
        70 => "protocol_version",
        71 => "insufficient_security",
        80 => "internal_error",
        86 => "inappropriate_fallback",
        90 => "user_canceled",
        100 => "no_renegotiation",
        109 => "missing_extension",
        110 => "unsupported_extension",
        112 => "unrecognized_name",
        113 => "bad_certificate_status_response",
        115 => "unknown_psk_identity",
        116 => "certificate_required",
        120 => "no_application_protocol",
        _ => return None,
    })
}

/// What to do about an alert: it says what the upstream missed.
///
/// `told`: nginx is to tell the upstream the server's name, if that is known.
pub(crate) fn alert_advice(alert: u8, told: Option<bool>) -> Option<&'static str> {
    Some(match (alert, told) {
        (40, Some(true)) => {
            "The upstream found no cipher in common (proxy_ssl_ciphers), does not know the server name \
             (proxy_ssl_name), or, without TLS 1.3, wants a client certificate (proxy_ssl_certificate)."
        }
        (80, Some(true)) => {
            "See the upstream's log. Some servers send this for a server name they do not know: set proxy_ssl_name to \
             one it has."
        }
        // An address is no name (ngx_http_upstream_ssl_name).
        (112, Some(true)) => {
            "The upstream does not know the server name it was given, or got none, as for an address nginx sends none: \
             set proxy_ssl_name to a name it has."
        }
        (alert, _) => return general_advice(alert),
    })
}

fn general_advice(alert: u8) -> Option<&'static str> {
    Some(match alert {
        40 => {
            "The upstream missed a server name (proxy_ssl_server_name on), found no cipher in common (proxy_ssl_ciphers), \
             or, without TLS 1.3, wants a client certificate (proxy_ssl_certificate)."
        }
        41 | 116 => {
            "The upstream wants a client certificate and got none: set proxy_ssl_certificate and \
             proxy_ssl_certificate_key."
        }
        42 | 43 | 46 => {
            "The upstream wants a client certificate that it can verify: proxy_ssl_certificate and \
             proxy_ssl_certificate_key."
        }
        44 => "The client certificate has been revoked: give proxy_ssl_certificate another.",
        45 => "The client certificate has expired: renew the one in proxy_ssl_certificate.",
        48 => {
            "The upstream does not know who issued the client certificate: add the chain to the file of \
             proxy_ssl_certificate, or use one of an authority that the upstream trusts."
        }
        49 => {
            "The client certificate (proxy_ssl_certificate) is valid, and the upstream refuses it: see in its \
             configuration whom it lets in."
        }
        70 => {
            "No protocol version in common: compare proxy_ssl_protocols with what the upstream accepts."
        }
        71 => {
            "The upstream wants stronger ciphers: compare proxy_ssl_ciphers and proxy_ssl_protocols with what it \
             accepts."
        }
        80 => {
            "See the upstream's log. Some servers send this for a server name they do not know, or for want of one: \
             proxy_ssl_server_name on, and proxy_ssl_name with a name it has."
        }
        112 => {
            "The upstream does not know the server name it was given, or got none: proxy_ssl_server_name on, and \
             proxy_ssl_name with a name it has."
        }
        _ => return None,
    })
}

/// The alert that says that the upstream takes none of the protocols which it is offered by ALPN
/// (RFC 7301, section 3.2).
pub(crate) const NO_APPLICATION_PROTOCOL: u8 = 120;

/// What to do about that one: modules offer different protocols.
pub(crate) fn no_protocol_advice(module: Option<&str>) -> &'static str {
    match module {
        // ngx_http_grpc_set_ssl
        Some("grpc") => {
            "nginx offers h2 by ALPN and nothing else, and the upstream has no HTTP/2 on this port: turn it on there, or \
             use proxy_pass https://, if it is no gRPC service."
        }
        Some("proxy_v2") => {
            "nginx offers h2 by ALPN and nothing else, and the upstream has no HTTP/2 on this port: turn it on there, or \
             set proxy_http_version 1.1."
        }
        Some("uwsgi") => {
            "The upstream wants a protocol to be agreed on by ALPN, and uwsgi_pass offers none: correct the port, or make \
             the upstream do without."
        }
        _ => {
            "The upstream wants a protocol to be agreed on by ALPN, and proxy_pass offers none: make it do without, or use \
             grpc_pass grpcs://, which offers h2, if it is a gRPC service."
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alerts_are_read() {
        let message = b"SSL_do_handshake() failed (SSL: error:0A000410:SSL routines::sslv3 alert handshake failure:SSL alert number 40) while";
        assert_eq!(alert(message), Some(40));
        assert_eq!(alert(b"SSL alert number 999)"), None);
        assert_eq!(alert(b"SSL alert number x"), None);
        assert_eq!(alert(b"SSL_do_handshake() failed"), None);
    }

    /// Guards against an alert of which the remedy is known being told in general words.
    #[test]
    fn alerts_have_their_own_advice() {
        for (number, says) in [
            (40, "proxy_ssl_server_name on"),
            (45, "expired"),
            (48, "chain"),
            (70, "proxy_ssl_protocols"),
            (112, "proxy_ssl_name"),
            (116, "got none"),
        ] {
            let advice = alert_advice(number, None).unwrap();
            assert!(advice.contains(says), "{number}: {advice}");
            assert_eq!(alert_advice(number, Some(false)), Some(advice));
            // It is on.
            let told = alert_advice(number, Some(true)).unwrap();
            assert!(!told.contains("proxy_ssl_server_name"), "{number}: {told}");
        }
        for (module, says) in [
            ("proxy", "proxy_pass offers none"),
            ("uwsgi", "uwsgi_pass offers none"),
            ("grpc", "proxy_pass https://"),
            ("proxy_v2", "proxy_http_version 1.1"),
        ] {
            let advice = no_protocol_advice(Some(module));
            assert!(advice.contains(says), "{module}: {advice}");
            assert!(advice.len() <= crate::words::LONGEST, "{}: {advice}", advice.len());
        }
        let told = [None, Some(true)];
        for advice in
            told.iter().flat_map(|told| (0..=u8::MAX).filter_map(|a| alert_advice(a, *told)))
        {
            assert!(advice.len() <= crate::words::LONGEST, "{}: {advice}", advice.len());
        }
        assert_eq!(alert_advice(200, None), None);
    }

    /// Guards against an intermediate certificate that is missing being told as one that expired.
    #[test]
    fn certificates_have_their_own_advice() {
        let advice = |number: u32| {
            verify_advice(&format!("upstream SSL certificate verify error: ({number}:as it is)"))
        };
        for (number, says) in [
            (9, "clock"),
            (10, "has expired"),
            (12, "revocation list"),
            (18, "self-signed"),
            (19, "add the root"),
            (20, "add the root"),
            (21, "intermediate"),
            (22, "proxy_ssl_verify_depth"),
            (23, "revoked"),
        ] {
            let advice = advice(number).unwrap();
            assert!(advice.contains(says), "{number}: {advice}");
        }
        for advice in (0..100).filter_map(advice).chain([true, false].map(name_advice)) {
            assert!(advice.len() <= crate::words::LONGEST, "{}: {advice}", advice.len());
        }
        assert_eq!(verify_advice("upstream SSL certificate verify error: (x:y)"), None);
    }

    #[test]
    fn verify_errors_are_read() {
        let message = b"upstream SSL certificate verify error: (10:certificate has expired) while";
        assert_eq!(verify_error(message).as_deref(), Some("certificate has expired"));
        assert_eq!(verify_error(b"upstream SSL certificate verify error: (10"), None);
    }
}
