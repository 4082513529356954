//! TCP ports: ranges as people write them, and the set they add up to.

use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;

/// How many 64-bit words hold one bit for each port.
pub const WORDS: usize = (u16::MAX as usize + 1) / u64::BITS as usize;

/// One port, or a range with both its ends: `443`, `5000-6000`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortRange(RangeInclusive<u16>);

/// Why a text is no port range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadPorts {
    /// An end is no number from 1 to 65535.
    NoPort,
    /// It ends before it starts.
    Backwards,
}

impl fmt::Display for BadPorts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoPort => "a port is a number from 1 to 65535, a range is two of them: 5000-6000",
            Self::Backwards => "the range ends before it starts",
        })
    }
}

impl std::error::Error for BadPorts {}

impl FromStr for PortRange {
    type Err = BadPorts;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let (first, last) = (port(first)?, port(last)?);
        if last < first {
            return Err(BadPorts::Backwards);
        }
        Ok(Self(first..=last))
    }
}

/// Digits only: the standard parser takes a sign as well.
fn port(text: &str) -> Result<u16, BadPorts> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    let port = digits.then(|| text.parse().ok()).flatten();
    port.filter(|&port| port != 0).ok_or(BadPorts::NoPort)
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.start() == self.0.end() {
            write!(f, "{}", self.0.start())
        } else {
            write!(f, "{}-{}", self.0.start(), self.0.end())
        }
    }
}

/// A set of ports; empty where no range was given, which filters nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PortSet(Vec<PortRange>);

impl PortSet {
    /// Whether no port is in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether this port is in it.
    #[must_use]
    pub fn contains(&self, port: u16) -> bool {
        self.0.iter().any(|range| range.0.contains(&port))
    }

    /// One bit for each port: port `p` is bit `p % 64` of word `p / 64`.
    #[must_use]
    pub fn bitmap(&self) -> Vec<u64> {
        let mut words = vec![0; WORDS];
        for port in self.0.iter().flat_map(|range| range.0.clone()) {
            words[usize::from(port) / 64] |= 1 << (port % 64);
        }
        words
    }
}

impl From<Vec<PortRange>> for PortSet {
    fn from(ranges: Vec<PortRange>) -> Self {
        Self(ranges)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read_and_written() {
        for (text, written) in [
            ("1", Ok("1")),
            ("443", Ok("443")),
            ("65535", Ok("65535")),
            ("5000-6000", Ok("5000-6000")),
            ("80-80", Ok("80")),
            ("", Err(BadPorts::NoPort)),
            ("0", Err(BadPorts::NoPort)),
            ("+80", Err(BadPorts::NoPort)),
            ("65536", Err(BadPorts::NoPort)),
            ("http", Err(BadPorts::NoPort)),
            ("80-", Err(BadPorts::NoPort)),
            ("-80", Err(BadPorts::NoPort)),
            ("0-80", Err(BadPorts::NoPort)),
            ("1-2-3", Err(BadPorts::NoPort)),
            ("6000-5000", Err(BadPorts::Backwards)),
        ] {
            let read = text.parse::<PortRange>().map(|range| range.to_string());
            assert_eq!(read, written.map(String::from), "{text:?}");
        }
    }

    #[test]
    fn the_bitmap_says_what_the_set_says() {
        let ranges = ["1", "63-64", "5000-5200", "5100-5300", "65535"].map(str::parse);
        let ranges: Result<Vec<PortRange>, _> = ranges.into_iter().collect();
        let set = PortSet::from(ranges.unwrap_or_default());
        let bitmap = set.bitmap();
        for port in 0..=u16::MAX {
            let bit = bitmap[usize::from(port) / 64] >> (port % 64) & 1;
            assert_eq!(bit == 1, set.contains(port), "{port}");
        }
        assert_eq!(
            bitmap.iter().map(|word| word.count_ones()).sum::<u32>(),
            305
        );
    }
}
