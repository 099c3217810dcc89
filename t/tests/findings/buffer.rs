//! `buffer_too_small`.

use serde_json::json;
use t::{Nginx, Upstream, diag, script};

use crate::{fails, group};

/// Guards against a header whose size is known being told without the value to set, and a size that
/// is a lower bound being told as the size.
#[test]
fn larger_than_the_buffer() {
    let whole = Upstream::tcp(script::big_header(9043));
    let endless = Upstream::tcp(|_, conn| {
        let _ = conn.read_request();
        conn.write(format!("HTTP/1.1 200 OK\r\nX-Pad: {}", "p".repeat(6000 - 24)));
        conn.wait_peer_close();
    });
    for (up, confidence, size, text, advice) in [
        (
            &whole,
            "certain",
            9043,
            "The response header of 9043 bytes does not fit into proxy_buffer_size, which is 4096: 12k is enough.",
            "Set proxy_buffer_size 12k; or make the upstream send less, large Set-Cookie headers are the usual reason. Where proxy_busy_buffers_size is set, it has to be 12k or more.",
        ),
        (
            &endless,
            "likely",
            6000,
            "The response header of at least 6000 bytes does not fit into proxy_buffer_size, which is 4096: 8k is the least that can do.",
            "Set proxy_buffer_size to at least 8k: the header's end was not seen; or make the upstream send less, large Set-Cookie headers are the usual reason.",
        ),
    ] {
        let conf = group(&format!("server {};", up.addr()), "proxy_buffer_size 4k;");
        let nginx = Nginx::start(conf);
        let seen = fails(&nginx, 0);
        let (exact, set) = if size == 9043 { (true, "12k") } else { (false, "8k") };
        seen.expect("header_too_big", &json!({"outcome": "failed"})).finds(
            "buffer_too_small",
            confidence,
            text,
            &json!({"size": size, "exact": exact, "limit": 4096, "set": set}),
        );
        seen.advises("buffer_too_small", advice);
        assert_eq!(seen.codes(), ["buffer_too_small"]);
        diag::finish(&nginx);
    }
}

/// Guards against a large header being blamed that fits, and ends in another way: it is cut, or has
/// a line that is none.
#[test]
fn large_and_not_too_large() {
    let pad = "p".repeat(4000);
    for (bytes, cause, codes) in [
        (format!("HTTP/1.1 200 OK\r\nX-Pad: {pad}"), "closed_in_header", &["single_server"][..]),
        (format!("HTTP/1.1 200 OK\r\nX-Pad: {pad}\r\n\0: 1\r\n\r\n"), "invalid_header", &[]),
    ] {
        let up = Upstream::tcp(script::raw(bytes));
        let conf = group(&format!("server {};", up.addr()), "proxy_buffer_size 4k;");
        let nginx = Nginx::start(conf);
        let seen = fails(&nginx, 0);
        seen.expect(cause, &json!({}));
        // Of a header that is none, others of its kind would have sent one alike.
        assert_eq!(seen.codes(), codes);
        diag::finish(&nginx);
    }
}
