//! The error codes of HTTP/2.

/// The frame that an error code came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sign {
    /// RST_STREAM.
    Stream,
    /// GOAWAY.
    Connection,
}

/// What nginx says of them (`ngx_http_grpc_process_header`).
const MESSAGES: [(&str, Sign); 2] = [
    ("upstream rejected request with error ", Sign::Stream),
    ("upstream sent goaway with error ", Sign::Connection),
];

/// The error code in a message, and what it came in.
pub(crate) fn error(message: &str) -> Option<(Sign, u64)> {
    MESSAGES.iter().find_map(|(begins, sign)| {
        let code = message.strip_prefix(begins)?;
        Some((*sign, code.parse().ok()?))
    })
}

/// The name of an error code (RFC 9113, section 7).
pub(crate) fn error_name(code: u64) -> Option<&'static str> {
    Some(match code {
        0 => "NO_ERROR",
        1 => "PROTOCOL_ERROR",
        2 => "INTERNAL_ERROR",
        3 => "FLOW_CONTROL_ERROR",
        4 => "SETTINGS_TIMEOUT",
        5 => "STREAM_CLOSED",
        6 => "FRAME_SIZE_ERROR",
        7 => "REFUSED_STREAM",
        8 => "CANCEL",
        9 => "COMPRESSION_ERROR",
        10 => "CONNECT_ERROR",
        11 => "ENHANCE_YOUR_CALM",
        12 => "INADEQUATE_SECURITY",
        13 => "HTTP_1_1_REQUIRED",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::{self, Kind};

    #[test]
    fn error_codes_are_read() {
        assert_eq!(error("upstream rejected request with error 7"), Some((Sign::Stream, 7)));
        assert_eq!(error("upstream sent goaway with error 11"), Some((Sign::Connection, 11)));
        assert_eq!(error("upstream sent goaway with error x"), None);
        assert_eq!(error("7"), None);
    }

    /// Guards against a text that is no message of nginx's.
    #[test]
    fn messages_are_those_that_are_known() {
        for (begins, _) in MESSAGES {
            let known = message::recognise(format!("{begins}7").as_bytes(), None);
            assert_eq!(known.map(|known| known.kind), Some(Kind::StreamReset), "{begins}");
        }
    }
}
