//! Formats numbers, addresses and times faster than `Display`, which handles widths and
//! signs. A line has about forty of them.

use std::fmt::Write as _;
use std::net::IpAddr;

use jiff::Timestamp;

/// Appends a number.
#[inline]
pub fn number(text: &mut String, number: impl itoa::Integer) {
    text.push_str(itoa::Buffer::new().format(number));
}

/// Appends a number with leading zeros, `count` digits long.
#[inline]
pub fn digits(text: &mut String, mut number: u32, count: usize) {
    let mut digits = [b'0'; 10];
    for digit in digits[..count].iter_mut().rev() {
        *digit = b'0' + (number % 10) as u8;
        number /= 10;
    }
    // Digits are valid UTF-8.
    text.push_str(str::from_utf8(&digits[..count]).unwrap_or_default());
}

/// Appends an address.
#[inline]
pub fn address(text: &mut String, address: IpAddr) {
    match address {
        IpAddr::V4(address) => {
            let [first, rest @ ..] = address.octets();
            number(text, first);
            for octet in rest {
                text.push('.');
                number(text, octet);
            }
        }
        // Writing to a String cannot fail.
        IpAddr::V6(address) => drop(write!(text, "{address}")),
    }
}

/// Caches the text of wall clock seconds. Most times are in the same second as the one
/// before, or a second earlier: an answer is reported after the next probe.
pub struct Seconds<F> {
    make: F,
    /// By the lowest bit of the second.
    last: [(i64, String); 2],
}

impl<F: Fn(Timestamp) -> String> Seconds<F> {
    /// Seconds as `make` writes them.
    pub fn new(make: F) -> Self {
        let text = |second| make(Timestamp::from_second(second).unwrap_or_default());
        Self {
            last: [0, 1].map(|second| (second, text(second))),
            make,
        }
    }

    /// The second of a time, ns since 1970, and the ns that have passed in it.
    #[inline]
    pub fn of(&mut self, ns: i64) -> (&str, u32) {
        const SECOND_NS: i64 = 1_000_000_000;
        let second = ns.div_euclid(SECOND_NS);
        let (last, text) = &mut self.last[usize::from(second & 1 != 0)];
        if second != *last {
            *last = second;
            // It holds every i64 of nanoseconds.
            *text = (self.make)(Timestamp::from_second(second).unwrap_or_default());
        }
        (text, ns.rem_euclid(SECOND_NS) as u32)
    }
}

/// Times in RFC 3339, in UTC, with nine digits after the second.
pub struct Rfc3339(Seconds<fn(Timestamp) -> String>);

impl Default for Rfc3339 {
    fn default() -> Self {
        Self(Seconds::new(|second| format!("{second:.0}")))
    }
}

impl Rfc3339 {
    /// Appends a time, ns since 1970.
    #[inline]
    pub fn put(&mut self, text: &mut String, ns: i64) {
        let (second, ns) = self.0.of(ns);
        text.push_str(second.trim_end_matches('Z'));
        text.push('.');
        digits(text, ns, 9);
        text.push('Z');
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn text(put: impl FnOnce(&mut String)) -> String {
        let mut text = String::new();
        put(&mut text);
        text
    }

    proptest! {
        #[test]
        fn all_are_as_displayed(n: u64, ns in 0_u32..1_000_000_000, it: IpAddr, times: [i64; 4]) {
            prop_assert_eq!(text(|to| number(to, n)), n.to_string());
            prop_assert_eq!(text(|to| digits(to, ns, 9)), format!("{ns:09}"));
            prop_assert_eq!(text(|to| address(to, it)), it.to_string());
            let mut written = Rfc3339::default();
            for ns in times.into_iter().chain([0, -1, i64::MIN, i64::MAX]) {
                let time = Timestamp::from_nanosecond(ns.into());
                let displayed = time.map(|it| format!("{it:.9}")).unwrap_or_default();
                prop_assert_eq!(text(|to| written.put(to, ns)), displayed);
            }
        }
    }
}
