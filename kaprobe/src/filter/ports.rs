//! TCP port ranges, and sets of them.

use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;

/// Number of 64-bit words that hold one bit for each port.
pub const WORDS: usize = (u16::MAX as usize + 1) / u64::BITS as usize;

/// A port or an inclusive port range: `443`, `5000-6000`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortRange(RangeInclusive<u16>);

/// The error for a text that is not a port range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PortRangeError {
    /// A port is not a number from 1 to 65535.
    NotAPort,
    /// The range ends before it starts.
    Backwards,
}

impl fmt::Display for PortRangeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotAPort => {
                "a port is a number from 1 to 65535, a range is two of them: 5000-6000"
            }
            Self::Backwards => "the range ends before it starts",
        })
    }
}

impl std::error::Error for PortRangeError {}

impl FromStr for PortRange {
    type Err = PortRangeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let (first, last) = (port(first)?, port(last)?);
        if last < first {
            return Err(PortRangeError::Backwards);
        }
        Ok(Self(first..=last))
    }
}

/// Parses a port. Accepts digits only; the standard parser accepts a sign too.
fn port(text: &str) -> Result<u16, PortRangeError> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    let port = digits.then(|| text.parse().ok()).flatten();
    port.filter(|&port| port != 0)
        .ok_or(PortRangeError::NotAPort)
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

/// A set of ports. An empty set is a filter that passes all ports.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PortSet(Vec<PortRange>);

impl PortSet {
    /// Whether the set has no port.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether the set has this port.
    #[must_use]
    pub fn contains(&self, port: u16) -> bool {
        self.0.iter().any(|range| range.0.contains(&port))
    }

    /// The set as a bitmap: port `p` is bit `p % 64` of word `p / 64`.
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
    fn ranges_are_parsed_and_formatted() {
        for (text, formatted) in [
            ("1", Ok("1")),
            ("443", Ok("443")),
            ("65535", Ok("65535")),
            ("5000-6000", Ok("5000-6000")),
            ("80-80", Ok("80")),
            ("", Err(PortRangeError::NotAPort)),
            ("0", Err(PortRangeError::NotAPort)),
            ("+80", Err(PortRangeError::NotAPort)),
            ("65536", Err(PortRangeError::NotAPort)),
            ("http", Err(PortRangeError::NotAPort)),
            ("80-", Err(PortRangeError::NotAPort)),
            ("-80", Err(PortRangeError::NotAPort)),
            ("0-80", Err(PortRangeError::NotAPort)),
            ("1-2-3", Err(PortRangeError::NotAPort)),
            ("6000-5000", Err(PortRangeError::Backwards)),
        ] {
            let parsed = text.parse::<PortRange>().map(|range| range.to_string());
            assert_eq!(parsed, formatted.map(String::from), "{text:?}");
        }
    }

    #[test]
    fn the_bitmap_has_the_ports_of_the_set() {
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
