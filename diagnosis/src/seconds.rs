//! Times as the interface gives them: seconds, with a fixed number of decimals like nginx's own.

use std::fmt;

use serde::ser::Error as _;
use serde::{Serialize, Serializer};
use serde_json::value::RawValue;

use crate::json::{self, digit};

/// A duration given in seconds, printed with the precision it was measured in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Seconds {
    /// Milliseconds: nginx's clock.
    Millis(u64),
    /// Microseconds: the kernel's clock for a TCP connection.
    Micros(u64),
    /// Whole seconds: nginx's coarse clock (`ngx_time`).
    Whole(u64),
}

impl Seconds {
    /// As whole milliseconds.
    pub fn millis(self) -> u64 {
        match self {
            Seconds::Millis(ms) => ms,
            Seconds::Micros(us) => us / 1_000,
            Seconds::Whole(s) => s.saturating_mul(1_000),
        }
    }
}

/// Longest text of a time: all digits of a number, and a point.
const LONGEST: usize = 24;

impl Seconds {
    /// Writes it as a number with its decimals.
    #[inline]
    pub(crate) fn write_to(self, out: &mut Vec<u8>) {
        match self {
            // Most are short.
            Seconds::Millis(ms @ 0..10_000) => {
                out.extend_from_slice(&[
                    digit(ms / 1_000),
                    b'.',
                    digit(ms / 100),
                    digit(ms / 10),
                    digit(ms),
                ]);
            }
            _ => self.write_any_to(out),
        }
    }

    fn write_any_to(self, out: &mut Vec<u8>) {
        match self {
            Seconds::Whole(s) => json::number(out, s),
            Seconds::Millis(ms) => {
                json::number(out, ms / 1_000);
                out.extend_from_slice(&[b'.', digit(ms / 100), digit(ms / 10), digit(ms)]);
            }
            Seconds::Micros(us) => {
                Seconds::Millis(us / 1_000).write_to(out);
                out.extend_from_slice(&[digit(us / 100), digit(us / 10), digit(us)]);
            }
        }
    }
}

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = Vec::with_capacity(LONGEST);
        self.write_to(&mut text);
        f.write_str(std::str::from_utf8(&text).unwrap_or_default())
    }
}

impl Serialize for Seconds {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        // A raw number keeps "0.004" as it is: through f64 a round-trip time of 39 µs would
        // come out as 3.9e-5, which is valid and which no operator can grep for.
        RawValue::from_string(self.to_string()).map_err(S::Error::custom)?.serialize(serializer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals_tell_the_precision() {
        assert_eq!(Seconds::Millis(4).to_string(), "0.004");
        assert_eq!(Seconds::Millis(61_002).to_string(), "61.002");
        assert_eq!(Seconds::Millis(999).to_string(), "0.999");
        assert_eq!(Seconds::Millis(1_000).to_string(), "1.000");
        assert_eq!(Seconds::Micros(1_000_001).to_string(), "1.000001");
        assert_eq!(Seconds::Micros(0).to_string(), "0.000000");
        assert_eq!(Seconds::Micros(u64::MAX).to_string(), "18446744073709.551615");
        assert_eq!(Seconds::Micros(39).to_string(), "0.000039");
        assert_eq!(serde_json::to_string(&Seconds::Micros(39)).unwrap(), "0.000039");
        assert_eq!(serde_json::to_string(&Seconds::Whole(10)).unwrap(), "10");
        let all = [Seconds::Millis(4), Seconds::Micros(4_999), Seconds::Whole(4)];
        assert_eq!(all.map(Seconds::millis), [4, 4, 4_000]);
    }
}
