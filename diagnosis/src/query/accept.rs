//! The `Accept` header (RFC 9110, section 12.5.1).

use std::cmp::Reverse;

use super::Format;

/// A media range of the header.
struct Range<'a> {
    kind: &'a [u8],
    subtype: &'a [u8],
    /// Thousandths.
    weight: u16,
}

/// The offer that the header likes best. Of those it likes equally, the one it names first; of
/// those that one `*` stands for, the one offered first. Where it likes none, the first offer too:
/// a client is better served by something than by 406.
pub(super) fn choose(header: &[u8], offers: &[Format]) -> Option<Format> {
    let ranges: Vec<Range<'_>> = split(header, b',').filter_map(Range::parse).collect();
    let liked = offers.iter().filter_map(|offer| {
        let (place, range) = best(&ranges, *offer)?;
        (range.weight > 0).then_some((Reverse(range.weight), place, *offer))
    });
    let best = liked.min_by_key(|(weight, place, _)| (*weight, *place));
    best.map(|(_, _, offer)| offer).or_else(|| offers.first().copied())
}

/// The range that counts for an offer: the one that names it most exactly, and of several that
/// differ in parameters only, the one with the highest weight.
fn best<'r, 'a>(ranges: &'r [Range<'a>], offer: Format) -> Option<(usize, &'r Range<'a>)> {
    let (kind, subtype) = offer.media_type();
    let exactness = |range: &Range<'_>| {
        let is = |part: &[u8], wanted: &str| part.eq_ignore_ascii_case(wanted.as_bytes());
        match (range.kind, range.subtype) {
            (b"*", b"*") => Some(0_u8),
            (this, b"*") if is(this, kind) => Some(1),
            (this, that) if is(this, kind) && is(that, subtype) => Some(2),
            _ => None,
        }
    };
    let fitting = ranges.iter().enumerate();
    let fitting = fitting.filter_map(|(at, range)| Some((exactness(range)?, at, range)));
    let best = fitting.min_by_key(|(exactness, _, range)| Reverse((*exactness, range.weight)));
    best.map(|(_, at, range)| (at, range))
}

impl<'a> Range<'a> {
    /// `None` for what is none; the rest of the header still counts.
    fn parse(element: &'a [u8]) -> Option<Range<'a>> {
        let mut parts = split(element, b';').map(<[u8]>::trim_ascii);
        let range = parts.next()?;
        let slash = memchr::memchr(b'/', range)?;
        let (kind, subtype) = (range.get(..slash)?, range.get(slash.checked_add(1)?..)?);
        let given = parts.find_map(|part| match part.split_first_chunk()? {
            (b"q=" | b"Q=", weight) => Some(weight),
            _ => None,
        });
        let weight = given.map_or(Some(1_000), weight)?;
        Some(Range { kind, subtype, weight })
    }
}

/// A weight in thousandths: `0`, `0.5`, `1.000`.
fn weight(text: &[u8]) -> Option<u16> {
    let (whole, decimals) = match text {
        [whole] | [whole, b'.'] => (whole, &[][..]),
        [whole, b'.', decimals @ ..] if decimals.len() <= 3 => (whole, decimals),
        _ => return None,
    };
    let digits = [whole].into_iter().chain(decimals).chain([&b'0'; 3]).take(4);
    let weight = digits.copied().try_fold(0_u16, |sum, digit| {
        let digit = char::from(digit).to_digit(10)?;
        sum.checked_mul(10)?.checked_add(u16::try_from(digit).ok()?)
    })?;
    (weight <= 1_000).then_some(weight)
}

/// The parts between separators that do not stand in a quoted string.
fn split(text: &[u8], separator: u8) -> impl Iterator<Item = &[u8]> {
    let (mut quoted, mut escaped) = (false, false);
    text.split(move |byte| {
        let was_escaped = std::mem::take(&mut escaped);
        match byte {
            b'"' if !was_escaped => quoted = !quoted,
            b'\\' if quoted && !was_escaped => escaped = true,
            _ => return *byte == separator && !quoted,
        }
        false
    })
}
