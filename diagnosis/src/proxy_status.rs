//! The `Proxy-Status` list member of RFC 9209.

use crate::cause::Cause;
use crate::record::{Record, Shown};

/// A list member that names this proxy and its error, for the `Proxy-Status` field.
pub fn proxy_status(record: &Record<'_, '_>) -> String {
    let mut attempts = record.parts.attempts.iter().rev().map(Shown::attempt);
    let failed = attempts.find(|attempt| attempt.cause.is_some());
    let mut member = String::from("nginx");
    // The upstream's own answer is no error of the proxy: it is passed on as received-status.
    if record.cause == Cause::UpstreamResponse {
        if let Some(status) = failed.and_then(|attempt| attempt.status) {
            member.push_str("; received-status=");
            member.push_str(&status.to_string());
        }
    } else {
        member.push_str("; error=");
        member.push_str(record.proxy_error);
    }
    if let Some(peer) = failed.and_then(|attempt| attempt.peer.as_deref()) {
        member.push_str("; next-hop=");
        push_string(&mut member, peer);
    }
    member.push_str("; details=");
    push_string(&mut member, record.cause.slug());
    member
}

/// A String of RFC 8941, section 3.3.3: printable ASCII, with `"` and `\` escaped. Whatever
/// cannot be in one becomes `?`: a peer's name may come from a variable, and a line feed in it
/// would be a header injection.
fn push_string(member: &mut String, value: &str) {
    member.push('"');
    for c in value.chars() {
        match c {
            '"' | '\\' => {
                member.push('\\');
                member.push(c);
            }
            ' '..='~' => member.push(c),
            _ => member.push('?'),
        }
    }
    member.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_cannot_break_out() {
        let mut member = String::new();
        push_string(&mut member, "a\"b\\c\r\nX: yé");
        assert_eq!(member, "\"a\\\"b\\\\c??X: y?\"");
    }
}
