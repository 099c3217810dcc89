//! Names that nginx's messages quote. Clients and upstreams choose them: only what stands where
//! nginx quotes is taken, bounded, and what it says decides nothing.

use super::phrase::{Arena, Mark, Ours, Phrase, Quoted, say};

/// Characters of a name that are shown.
const SHOWN: usize = 64;

/// What nginx says is wrong with a header, and the words for it. The name that stands behind is
/// quoted.
const HEADERS: &[(&str, &str)] = &[
    ("upstream sent invalid header: \"", "an invalid header line: "),
    ("upstream sent invalid header \"", "an invalid header line: "),
    ("upstream sent duplicate header line: \"", "a header line twice: "),
    ("upstream sent invalid \"Content-Length\" header: \"", "an invalid length: "),
    ("upstream sent unknown \"Transfer-Encoding\": \"", "an unknown Transfer-Encoding: "),
    ("upstream sent invalid status \"", "an invalid status: "),
    ("upstream sent invalid :status \"", "an invalid status: "),
    ("upstream sent unexpected :status \"", "an unexpected status: "),
];

const BOTH_LENGTHS: &str = "upstream sent \"Content-Length\" and \"Transfer-Encoding\" headers";

/// What an upstream sent that is no valid header, for `invalid_header`.
pub(super) fn header<'a>(arena: &'a Arena, message: &'a str) -> Option<Phrase<'a>> {
    if message.starts_with(BOTH_LENGTHS) {
        return Some(say![arena, "Content-Length and Transfer-Encoding together"]);
    }
    HEADERS.iter().find_map(|(begins, words)| {
        Some(say![arena, Ours(words), quotation(arena, message.strip_prefix(begins)?)?])
    })
}

/// A memcached's error, by who is to blame (its `protocol.txt`, "Error strings").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    Server,
    Client,
}

const MEMCACHED: &str = "memcached sent invalid response: \"";

/// What a memcached answered with, if that was an error.
pub(super) fn refusal(message: &str) -> Option<Refusal> {
    let line = message.strip_prefix(MEMCACHED)?;
    if line.starts_with("SERVER_ERROR ") {
        Some(Refusal::Server)
    } else if line.starts_with("CLIENT_ERROR ") {
        Some(Refusal::Client)
    } else {
        None
    }
}

/// What nginx says is wrong with a memcached's answer, and the words for it.
const ANSWERS: &[(&str, &str)] = &[
    (MEMCACHED, " sent what is no answer to a request: "),
    ("memcached sent invalid key in response \"", " sent the value of another key: "),
    ("memcached sent invalid flags in response \"", " sent a value with invalid flags: "),
    ("memcached sent invalid length in response \"", " sent a value with an invalid length: "),
];

/// What a memcached answered (`ngx_http_memcached_process_header`).
pub(super) fn answer<'a>(arena: &'a Arena, message: &'a str) -> Option<Phrase<'a>> {
    let (begins, words) = ANSWERS.iter().find(|(begins, _)| message.starts_with(begins))?;
    let words = if refusal(message).is_some() { " answered with an error: " } else { words };
    Some(say![arena, Ours(words), quotation(arena, message.strip_prefix(begins)?)?])
}

/// The name that a certificate is not for (`ngx_http_upstream_ssl_handshake`).
pub(super) fn certificate_name<'a>(arena: &'a Arena, message: &'a str) -> Option<Phrase<'a>> {
    quotation(arena, message.strip_prefix(NAME)?)
}

const NAME: &str = "upstream SSL certificate does not match \"";

/// What is wrong with the address that a pass directive was given (`ngx_http_proxy_eval` and its
/// like, `ngx_parse_url`), and the address.
pub(super) fn url<'a>(arena: &'a Arena, message: &'a str) -> Option<Phrase<'a>> {
    REASONS.iter().find_map(|begins| {
        let reason = begins.strip_suffix(" \"")?.trim_end_matches(" upstream");
        Some(say![arena, Ours(reason), " ", quotation(arena, message.strip_prefix(begins)?)?])
    })
}

const REASONS: &[&str] = &[
    "no port in upstream \"",
    "no host in upstream \"",
    "invalid host in upstream \"",
    "invalid port in upstream \"",
    "invalid port range in upstream \"",
    "invalid IPv6 address in upstream \"",
    "the INET6 sockets are not supported on this platform in upstream \"",
    "host not found in upstream \"",
    "no path in the unix domain socket in upstream \"",
    "too long path in the unix domain socket in upstream \"",
    "invalid URL prefix in \"",
];

/// What stands before the next quotation mark, in quotation marks. One that a hostile name
/// contains ends it: what follows could pretend to be nginx's. Of a long name the end may have been
/// cut off with the message's.
fn quotation<'a>(arena: &'a Arena, text: &'a str) -> Option<Phrase<'a>> {
    let ended = text.split_once('"').map(|(name, _)| name);
    let name = ended.unwrap_or(text);
    let cut = name.char_indices().nth(SHOWN).and_then(|(end, _)| name.get(..end));
    ended.or(cut)?;
    Some(match cut {
        Some(begin) => say![arena, Mark, begin, "…", Mark],
        None => say![arena, Quoted(name.into())],
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::{self, Kind};

    fn header(message: &str) -> Option<String> {
        super::header(&Arena::new(), message).map(|said| said.to_string())
    }

    fn certificate_name(message: &str) -> Option<String> {
        super::certificate_name(&Arena::new(), message).map(|said| said.to_string())
    }

    fn url(message: &str) -> Option<String> {
        super::url(&Arena::new(), message).map(|said| said.to_string())
    }

    #[test]
    fn names_are_taken_from_where_nginx_quotes() {
        assert_eq!(
            header("upstream sent invalid header: \"X A\\x20...\"").unwrap(),
            "an invalid header line: \"X A\\x20...\""
        );
        assert_eq!(
            header("upstream sent duplicate header line: \"A: b\", previous value: \"A: c\"")
                .unwrap(),
            "a header line twice: \"A: b\""
        );
        assert_eq!(
            header("upstream sent \"Content-Length\" and \"Transfer-Encoding\" headers at the same time").unwrap(),
            "Content-Length and Transfer-Encoding together"
        );
        assert_eq!(
            header("upstream sent invalid \"Content-Length\" header: \"Content-Length: x\"")
                .unwrap(),
            "an invalid length: \"Content-Length: x\""
        );
        assert_eq!(
            header("upstream sent unknown \"Transfer-Encoding\": \"gzip\"").unwrap(),
            "an unknown Transfer-Encoding: \"gzip\""
        );
        assert_eq!(
            certificate_name("upstream SSL certificate does not match \"a.test\"").unwrap(),
            "\"a.test\""
        );
        assert_eq!(url("invalid port in upstream \"h:x\"").unwrap(), "invalid port in \"h:x\"");
        assert_eq!(
            url("invalid URL prefix in \"ftp://h\"").unwrap(),
            "invalid URL prefix in \"ftp://h\""
        );
    }

    /// Guards against a text that is no message of nginx's, or of another failure.
    #[test]
    fn messages_are_those_that_are_known() {
        let kind = |begins: &str| {
            message::recognise(format!("{begins}x\"").as_bytes(), None).map(|known| known.kind)
        };
        for (begins, _) in HEADERS {
            assert_eq!(kind(begins), Some(Kind::InvalidHeader), "{begins}");
        }
        assert_eq!(kind(BOTH_LENGTHS), Some(Kind::InvalidHeader));
        assert_eq!(kind(NAME), Some(Kind::CertificateName));
        for (begins, _) in ANSWERS {
            assert_eq!(kind(begins), Some(Kind::BadFrame), "{begins}");
        }
        for begins in REASONS {
            assert_eq!(kind(begins), Some(Kind::BadUrl), "{begins}");
        }
    }

    /// Guards against a name that looks like nginx's words, breaks a response header, or is long.
    #[test]
    fn hostile_names_are_bounded() {
        let hostile = "upstream SSL certificate does not match \"a\r\nX: y\" is all well \"";
        assert_eq!(certificate_name(hostile).unwrap(), "\"a??X: y\"");
        for end in ["\"", ""] {
            let long =
                format!("upstream SSL certificate does not match \"{}{end}", "é".repeat(300));
            assert_eq!(certificate_name(&long).unwrap(), format!("\"{}…\"", "é".repeat(64)));
        }
        for other in [
            "x upstream sent invalid header: \"a\"",
            "upstream sent invalid header: \"a",
            "invalid header",
            "",
        ] {
            assert_eq!(
                (header(other), certificate_name(other), url(other)),
                (None, None, None),
                "{other}"
            );
        }
    }
}
