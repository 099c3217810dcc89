//! The size of the buffer that a response header needs.

use super::numbers::Number;
use super::phrase::{Arena, Phrase, say};
use crate::record::Header;

/// Page size that nginx's buffer directives default to, and the step values are given in.
const STEP: u64 = 4_096;

/// With the defaults (`proxy_buffers 8 4k`), `proxy_busy_buffers_size` is twice the larger of the
/// two sizes and must stay below all buffers less one (28k): `ngx_http_proxy_merge_loc_conf`.
const LARGEST_WITH_DEFAULT_BUFFERS: u64 = 12_288;

/// The protocol modules that have such buffers; grpc and memcached have only the one for the header.
const WITH_BUFFERS: [&str; 4] = ["proxy", "fastcgi", "uwsgi", "scgi"];

fn value(header: &Header) -> u64 {
    // One byte more than the header: nginx takes a header that fills the buffer to the byte for
    // the end of the response.
    let wanted = header.size.saturating_add(header.reserved).max(header.limit).saturating_add(1);
    wanted.div_ceil(STEP).saturating_mul(STEP)
}

/// The value to set, as it is written in the configuration.
pub(crate) fn size_to_set(header: &Header) -> Number {
    Number::Kilobytes(value(header) / 1_024)
}

/// What of the limit the header cannot use, as a part of a sentence.
pub(crate) fn cache_part<'a>(arena: &'a Arena, header: &Header) -> Option<Phrase<'a>> {
    (header.reserved > 0).then(|| say![arena, ", ", header.reserved, " of which the cache needs"])
}

/// What to do about a header that is too big.
pub(crate) fn advice<'a>(arena: &'a Arena, header: &Header) -> Phrase<'a> {
    let directive = header.directive.unwrap_or("proxy_buffer_size");
    let (value, size) = (value(header), size_to_set(header));
    let module = directive.strip_suffix("_buffer_size").unwrap_or_default();
    let with_buffers = WITH_BUFFERS.contains(&module);
    let set = if header.exact {
        say![arena, "Set ", directive, " ", size, "; "]
    } else {
        say![arena, "Set ", directive, " to at least ", size, ": the header's end was not seen; "]
    };
    let buffers = (value > LARGEST_WITH_DEFAULT_BUFFERS && with_buffers)
        .then(|| say![arena, "with it ", module, "_buffers 8 ", size, "; "]);
    // By default it follows; one that is set may not be smaller than a buffer (as above).
    let note = (value > 2 * STEP && with_buffers).then(|| {
        say![
            arena,
            " Where ",
            module,
            "_busy_buffers_size is set, it has to be ",
            size,
            " or more."
        ]
    });
    let less = say![arena, "or make the upstream send less"];
    let reason = ", large Set-Cookie headers are the usual reason";
    let whole = say![arena, set, buffers, less, reason, ".", note];
    if note.is_none() || whole.len() <= super::LONGEST {
        return whole;
    }
    say![arena, set, buffers, less, ".", note]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(size: u64, exact: bool, reserved: u64, module: &str) -> Header {
        let directive = crate::protocol::buffer_directive(module);
        Header { size, exact, limit: 4_096, reserved, directive }
    }

    #[test]
    fn sizes_to_set() {
        for (size, exact, reserved, module, says) in [
            (
                4_097,
                true,
                0,
                "proxy",
                "Set proxy_buffer_size 8k; or make the upstream send less, large Set-Cookie headers are the usual reason.",
            ),
            (
                8_192,
                true,
                0,
                "proxy",
                "Set proxy_buffer_size 12k; or make the upstream send less, large Set-Cookie headers are the usual reason. Where proxy_busy_buffers_size is set, it has to be 12k or more.",
            ),
            (
                3_900,
                true,
                352,
                "scgi",
                "Set scgi_buffer_size 8k; or make the upstream send less, large Set-Cookie headers are the usual reason.",
            ),
            (
                12_300,
                true,
                0,
                "proxy",
                "Set proxy_buffer_size 16k; with it proxy_buffers 8 16k; or make the upstream send less, large Set-Cookie headers are the usual reason. Where proxy_busy_buffers_size is set, it has to be 16k or more.",
            ),
            (
                30_000,
                true,
                0,
                "grpc",
                "Set grpc_buffer_size 32k; or make the upstream send less, large Set-Cookie headers are the usual reason.",
            ),
            (
                4_096,
                false,
                0,
                "proxy",
                "Set proxy_buffer_size to at least 8k: the header's end was not seen; or make the upstream send less, large Set-Cookie headers are the usual reason.",
            ),
            (
                69_632,
                false,
                0,
                "fastcgi",
                "Set fastcgi_buffer_size to at least 72k: the header's end was not seen; with it fastcgi_buffers 8 72k; or make the upstream send less. Where fastcgi_busy_buffers_size is set, it has to be 72k or more.",
            ),
        ] {
            let arena = Arena::new();
            let said = advice(&arena, &header(size, exact, reserved, module));
            assert_eq!(said.to_string(), says);
        }
    }

    /// Guards against a value that nginx refuses again, and lines too long to be read.
    #[test]
    fn the_value_is_enough_and_no_waste() {
        for size in 3_500..70_000 {
            for reserved in [0, 352] {
                let header = header(size, true, reserved, "fastcgi");
                let (needs, value) = (size + reserved, value(&header));
                assert!(value > needs.max(header.limit) && value <= needs.max(header.limit) + STEP);
                assert_eq!(Number::Kilobytes(value / 1_024), size_to_set(&header));
                assert!(advice(&Arena::new(), &header).len() <= crate::words::LONGEST);
            }
        }
    }
}
