//! Numbers as people read them.

use crate::json::{self, digit};

/// A number in a text. Times are milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Number {
    /// As it is.
    Count(u64),
    /// How often.
    Times(u64),
    /// How long something took or how long ago it was: to a part of a second, then to the minute,
    /// the hour, the day.
    Span(u64),
    /// Seconds with two decimals: an age at which something happened once.
    Hundredths(u64),
    /// Seconds with one decimal.
    Tenths(u64),
    /// A timeout that was measured. Timeouts are configured in whole seconds, and measured a little
    /// late: a fiftieth, or a tenth of a second, is taken for that.
    Timeout(u64),
    /// The largest sensible time below one, as it is written in nginx's configuration.
    Setting(u64),
    /// A size in kilobytes, as it is written there.
    Kilobytes(u64),
}

impl Number {
    /// Writes it.
    pub(crate) fn write_to(self, out: &mut Vec<u8>) {
        match self {
            Number::Count(n) => json::number(out, n),
            Number::Times(1) => out.extend_from_slice(b"once"),
            Number::Times(2) => out.extend_from_slice(b"twice"),
            Number::Times(n) => with_unit(out, n, " times"),
            Number::Span(ms) => span(out, ms),
            Number::Hundredths(ms) => {
                let hundredths = rounded(ms, 10);
                json::number(out, hundredths / 100);
                out.extend_from_slice(&[b'.', digit(hundredths / 10), digit(hundredths)]);
            }
            Number::Tenths(ms) => {
                let tenths = rounded(ms, 100);
                json::number(out, tenths / 10);
                out.push(b'.');
                json::number(out, tenths % 10);
            }
            Number::Timeout(ms) => {
                let whole = rounded(ms, 1_000);
                if whole > 0 && whole.saturating_mul(1_000).abs_diff(ms) <= (ms / 50).max(100) {
                    with_unit(out, whole, " s");
                } else {
                    Number::Tenths(ms).write_to(out);
                    out.extend_from_slice(b" s");
                }
            }
            // What nginx closes last must be on its way before the upstream's time is over.
            Number::Setting(ms) => match ms.saturating_sub(200) / 1_000 {
                0 => with_unit(out, ms / 2, "ms"),
                seconds => with_unit(out, seconds, "s"),
            },
            Number::Kilobytes(n) => with_unit(out, n, "k"),
        }
    }
}

fn with_unit(out: &mut Vec<u8>, number: u64, unit: &str) {
    json::number(out, number);
    out.extend_from_slice(unit.as_bytes());
}

fn span(out: &mut Vec<u8>, ms: u64) {
    const MINUTE: u64 = 60_000;
    const HOUR: u64 = 60 * MINUTE;
    const DAY: u64 = 24 * HOUR;
    let (number, unit) = match ms {
        0..1_000 => (Number::Hundredths(ms), " s"),
        1_000..120_000 => (Number::Tenths(ms), " s"),
        120_000..7_200_000 => (Number::Count(rounded(ms, MINUTE)), " min"),
        7_200_000..172_800_000 => (Number::Count(rounded(ms, HOUR)), " h"),
        _ => (Number::Count(rounded(ms, DAY)), " days"),
    };
    number.write_to(out);
    out.extend_from_slice(unit.as_bytes());
}

fn rounded(value: u64, unit: u64) -> u64 {
    value.saturating_add(unit / 2).checked_div(unit).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(number: Number) -> String {
        let mut out = Vec::new();
        number.write_to(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn times_are_read_by_people() {
        for (ms, words) in [
            (0, "0.00 s"),
            (374, "0.37 s"),
            (42_349, "42.3 s"),
            (119_949, "119.9 s"),
            (120_000, "2 min"),
            (7_199_999, "120 min"),
            (7_200_000, "2 h"),
            (172_799_000, "48 h"),
            (172_800_000, "2 days"),
        ] {
            assert_eq!(written(Number::Span(ms)), words);
        }
        for (number, words) in [
            (Number::Hundredths(5_003), "5.00"),
            (Number::Hundredths(5_070), "5.07"),
            (Number::Hundredths(995), "1.00"),
            (Number::Hundredths(999), "1.00"),
            (Number::Tenths(4_950), "5.0"),
            (Number::Tenths(99), "0.1"),
            (Number::Times(1), "once"),
            (Number::Times(2), "twice"),
            (Number::Times(3), "3 times"),
            (Number::Kilobytes(12), "12k"),
        ] {
            assert_eq!(written(number), words);
        }
    }

    /// Guards against a timeout that nobody configured, and a value that still loses the race.
    #[test]
    fn timeouts_and_what_is_below_them() {
        for (ms, timeout, set) in [
            (5_003, "5 s", "4s"),
            (4_990, "5 s", "4s"),
            (4_700, "4.7 s", "4s"),
            (5_250, "5.3 s", "5s"),
            (30_420, "30 s", "30s"),
            (1_000, "1 s", "500ms"),
            (75_000, "75 s", "74s"),
        ] {
            let both = (written(Number::Timeout(ms)), written(Number::Setting(ms)));
            assert_eq!(both, (timeout.to_owned(), set.to_owned()), "{ms}");
        }
    }
}
