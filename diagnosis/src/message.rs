//! nginx's error messages: which are known, where an errno stands, where the message ends.
//!
//! Everything behind the message proper (request line, host, referrer) is written by the client,
//! and some messages quote the upstream. So a message is matched from its start, an errno is read
//! only at the place where that message carries one, and the line is never searched for a verdict.

mod known;
mod recent;

use std::borrow::Cow;

use memchr::memmem;

use known::KNOWN;
pub use known::Kind;
use known::Shape::{self, Between, Counted, Errno, MaybeErrno, OpenSsl, Peer, Text};
pub use recent::{Message, Recent};

/// A message this crate knows, for the list of messages in the documentation.
#[derive(Clone, Debug)]
pub struct Listed {
    /// How it begins, with `…` for what is not read.
    pub begins: String,
    /// Ways it can come, each recognised by [`recognise`].
    pub samples: Vec<String>,
}

/// The name of the peer in the samples.
pub const SAMPLE_PEER: &str = "10.0.0.1:80";

/// Every known message. `errnos` are those to make samples with.
pub fn listed(errnos: &[i32]) -> Vec<Listed> {
    let with_errno = |text: String| errnos.iter().map(|n| format!("{text} ({n}: …)")).collect();
    let list = |shape: &Shape| match shape {
        Text(text) => Listed { begins: format!("{text}…"), samples: vec![(*text).to_owned()] },
        OpenSsl(text) => Listed {
            begins: format!("{text} (SSL: …"),
            samples: ["", "SSL alert number 40", "wrong version number"]
                .map(|reason| format!("{text} (SSL: {reason})"))
                .to_vec(),
        },
        MaybeErrno(text) => {
            Listed { begins: format!("{text}…"), samples: vec![(*text).to_owned()] }
        }
        Errno(text) => Listed {
            begins: format!("{text} (errno: …)"),
            samples: with_errno((*text).to_owned()),
        },
        Peer { before, after } => Listed {
            begins: format!("{before}PEER{after} (errno: …)"),
            samples: with_errno(format!("{before}{SAMPLE_PEER}{after}")),
        },
        Between { before, after } => Listed {
            begins: format!("{before}…{after} (errno: …)"),
            samples: with_errno(format!("{before}1{after}")),
        },
        Counted(text) => {
            Listed { begins: format!("NUMBER{text}…"), samples: vec![format!("1{text}")] }
        }
    };
    KNOWN.iter().map(|(shape, _)| list(shape)).collect()
}

/// A message that was recognised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Known {
    /// What it says.
    pub kind: Kind,
    /// The error number it carries.
    pub errno: Option<i32>,
    /// Where the message proper ends, if it is made of nothing but nginx's own words and those of
    /// the error number.
    pub end: Option<usize>,
}

/// The part of a line behind nginx's own prefix `DATE TIME [level] PID#TID: *CONNECTION `,
/// without the line feed (`ngx_log_error_core`). Of another form no more is noticed than that it has
/// no such bracket or colon: then it is `None`.
pub fn strip_prefix(line: &[u8]) -> Option<&[u8]> {
    // Behind the time, the first colon is the one behind PID#TID.
    let rest = line.get(20..)?.strip_prefix(b"[")?;
    let rest = rest.get(memchr::memchr(b':', rest)?..)?.strip_prefix(b": ")?;
    let rest = match rest.strip_prefix(b"*").and_then(behind_digits) {
        Some(rest) => rest.strip_prefix(b" ")?,
        None => rest,
    };
    Some(rest.strip_suffix(b"\n").unwrap_or(rest))
}

/// Recognises a message. `peer` is the name nginx gives the peer (`u->peer.name`).
pub fn recognise(message: &[u8], peer: Option<&[u8]>) -> Option<Known> {
    known::beginning_with(*message.first()?).find_map(|(shape, kind)| {
        let mut end = None;
        let errno = match shape {
            Text(text) => {
                message.strip_prefix(text.as_bytes())?;
                None
            }
            OpenSsl(text) => {
                message.strip_prefix(text.as_bytes())?.strip_prefix(b" (SSL: ")?;
                None
            }
            MaybeErrno(text) => errno(message.strip_prefix(text.as_bytes())?),
            Errno(text) => {
                let rest = message.strip_prefix(text.as_bytes())?;
                let errno = errno(rest)?;
                let words = memchr::memchr(b')', rest);
                end = words.map(|words| text.len().saturating_add(words).saturating_add(1));
                Some(errno)
            }
            Peer { before, after } => {
                let rest = message.strip_prefix(before.as_bytes())?.strip_prefix(peer?)?;
                Some(errno(rest.strip_prefix(after.as_bytes())?)?)
            }
            Between { before, after } => {
                let rest = message.strip_prefix(before.as_bytes())?;
                let end = memmem::find(rest, after.as_bytes())?;
                Some(errno(rest.get(end..)?.strip_prefix(after.as_bytes())?)?)
            }
            Counted(text) => {
                digits(message)?.1.strip_prefix(text.as_bytes())?;
                None
            }
        };
        Some(Known { kind: *kind, errno, end })
    })
}

/// The message proper: without the context that `ngx_http_log_error` appends.
///
/// That context starts with ` while ACTION` (`log->action`) and `, client: `. A message that
/// quotes those words is cut short; it is shown to people and nothing is concluded from it.
pub fn proper<'a>(message: &'a [u8], action: Option<&[u8]>) -> &'a [u8] {
    // Each is looked for by its rarest letter, not by memmem: what that prepares for a search takes
    // longer than this one.
    let (before, rare, behind, action) = match action {
        Some(action) => (b" ".as_slice(), b'w', b"while ".as_slice(), action),
        None => (b"".as_slice(), b',', b", client: ".as_slice(), b"".as_slice()),
    };
    memchr::memchr_iter(rare, message)
        .filter_map(|at| message.split_at_checked(at))
        .find_map(|(proper, rest)| {
            let context = rest.strip_prefix(behind)?;
            proper.strip_suffix(before).filter(|_| context.starts_with(action))
        })
        .unwrap_or(message)
}

/// What a FastCGI application wrote to stderr (`ngx_http_fastcgi_process_header`). Logged at
/// level error for healthy responses too, so it says nothing of a failure; beside one it may say
/// why.
pub fn stderr(message: &[u8]) -> Option<&[u8]> {
    let text = message.strip_prefix(b"FastCGI sent in stderr: \"")?;
    Some(text.strip_suffix(b"\"").unwrap_or(text))
}

/// A message without the query strings in it: some quote a URL. From a `?` up to the quotation
/// mark that ends it; a word too much is better than a secret in a log.
pub fn without_queries(message: &str) -> Cow<'_, str> {
    if memchr::memchr(b'?', message.as_bytes()).is_none() {
        return Cow::Borrowed(message);
    }
    let mut kept = String::with_capacity(message.len());
    let mut rest = message;
    while let Some((before, query)) = rest.split_once('?') {
        kept.push_str(before);
        rest = query.find('"').and_then(|end| query.get(end..)).unwrap_or_default();
    }
    kept.push_str(rest);
    Cow::Owned(kept)
}

/// Reads ` (N: ` as written by `ngx_log_errno`.
fn errno(rest: &[u8]) -> Option<i32> {
    let (number, rest) = digits(rest.strip_prefix(b" (")?)?;
    rest.strip_prefix(b": ")?;
    number.try_into().ok()
}

/// What stands behind a number.
fn behind_digits(text: &[u8]) -> Option<&[u8]> {
    let end = text.iter().position(|byte| !byte.is_ascii_digit()).filter(|end| *end > 0)?;
    text.get(end..)
}

fn digits(text: &[u8]) -> Option<(u64, &[u8])> {
    let (mut number, mut rest) = (None::<u64>, text);
    while let Some((digit @ b'0'..=b'9', behind)) = rest.split_first() {
        let more = number.unwrap_or(0).checked_mul(10)?;
        number = Some(more.checked_add(u64::from(digit & 0xf))?);
        rest = behind;
    }
    Some((number?, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &[u8] = b"2026/11/21 01:45:45 [error] 9446#9446: *17 connect() failed (111: Connection refused) while connecting to upstream, client: 127.0.0.1, server: , request: \"GET / HTTP/1.1\"\n";

    fn kind(message: &str) -> Option<(Kind, Option<i32>)> {
        recognise(message.as_bytes(), Some(b"10.0.0.1:80")).map(|known| (known.kind, known.errno))
    }

    #[test]
    fn a_line_is_taken_apart() {
        let message = strip_prefix(LINE).unwrap();
        assert!(message.starts_with(b"connect() failed (111"));
        assert!(!message.ends_with(b"\n"));
        let text = b"connect() failed (111: Connection refused)";
        let (kind, errno, end) = (Kind::Connect, Some(111), Some(text.len()));
        assert_eq!(recognise(message, None), Some(Known { kind, errno, end }));
        assert_eq!(proper(message, Some(b"connecting to upstream")), text);
    }

    #[test]
    fn lines_of_another_form_are_left_alone() {
        for line in
            [&b""[..], b"\n", b"2026/11/21 01:45:45", b"2026/11/21 01:45:45 [error] 1#1 x:y"]
        {
            assert_eq!(strip_prefix(line), None);
        }
        // No connection number: the cycle's log.
        let line = b"2026/11/21 01:45:45 [alert] 1#1: socket() failed (24: Too many open files)\n";
        assert_eq!(strip_prefix(line), Some(&b"socket() failed (24: Too many open files)"[..]));
    }

    #[test]
    fn messages_with_an_errno() {
        assert_eq!(
            kind("connect() to 10.0.0.1:80 failed (13: Permission denied) while"),
            Some((Kind::Connect, Some(13)))
        );
        assert_eq!(
            kind("bind([::1]:0) failed (99: Cannot assign requested address)"),
            Some((Kind::Bind, Some(99)))
        );
        assert_eq!(
            kind("512 worker_connections are not enough while connecting"),
            Some((Kind::WorkerConnections, None))
        );
        // An errno is where the message carries it or the message is not known.
        assert_eq!(kind("connect() failed"), None);
        assert_eq!(kind("recv() failed (x: y)"), None);
        assert_eq!(kind("recv() failed (99999999999: y)"), None);
    }

    #[test]
    fn queries_are_taken_out() {
        let with = "invalid URL prefix in \"ftp://h/p?a=1,token=SECRET\" and \"/q?b=c d\" x?y z";
        let without = "invalid URL prefix in \"ftp://h/p\" and \"/q\" x";
        assert_eq!(without_queries(with), without);
        assert_eq!(without_queries("recv() failed (5: x)"), "recv() failed (5: x)");
    }

    /// A name that contains an errno of its own must not decide the cause.
    #[test]
    fn a_hostile_peer_name_is_skipped_as_a_whole() {
        let peer = b"unix:/tmp/a failed (111: Connection refused)";
        let message = b"connect() to unix:/tmp/a failed (111: Connection refused) failed (2: No such file or directory) while connecting";
        assert_eq!(
            recognise(message, Some(peer)),
            Some(Known { kind: Kind::Connect, errno: Some(2), end: None })
        );
        assert_eq!(recognise(b"connect() to other failed (2: x)", Some(peer)), None);
    }

    /// Known words anywhere but at the start are the client's or the upstream's.
    #[test]
    fn words_inside_a_message_decide_nothing() {
        assert_eq!(kind("upstream sent something: \"no live upstreams\""), None);
        assert_eq!(kind("x connect() failed (111: Connection refused)"), None);
        assert_eq!(kind("xno live upstreams"), None);
    }
}
