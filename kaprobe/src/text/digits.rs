//! Numbers, addresses and moments as text, without what `Display` spends on widths and
//! signs: a line has some forty of them.

use std::fmt::Write as _;
use std::net::IpAddr;

use jiff::Timestamp;

use crate::model::time::WallTime;

/// Appends a number.
pub fn number(text: &mut String, number: impl itoa::Integer) {
    text.push_str(itoa::Buffer::new().format(number));
}

/// Appends a number with zeros before it: as many digits as its greatest value has.
pub fn digits(text: &mut String, mut number: u32, count: usize) {
    let mut digits = [b'0'; 10];
    for digit in digits[..count].iter_mut().rev() {
        *digit = b'0' + (number % 10) as u8;
        number /= 10;
    }
    // They are digits.
    text.push_str(str::from_utf8(&digits[..count]).unwrap_or_default());
}

/// Appends an address.
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

/// Seconds as text. Most moments are of the same second as the one before; or an answer
/// is told after the next probe, a second before that.
pub struct Seconds<F> {
    make: F,
    /// By the lowest bit of the second.
    last: [(i64, String); 2],
}

impl<F: Fn(Timestamp) -> String> Seconds<F> {
    /// Seconds as `make` has them.
    pub fn new(make: F) -> Self {
        let text = |second| make(Timestamp::from_second(second).unwrap_or_default());
        Self {
            last: [0, 1].map(|second| (second, text(second))),
            make,
        }
    }

    /// The second of a moment, and the ns that have passed in it.
    pub fn of(&mut self, time: WallTime) -> (&str, u32) {
        const SECOND_NS: i64 = 1_000_000_000;
        let second = time.0.div_euclid(SECOND_NS);
        let (last, text) = &mut self.last[usize::from(second & 1 != 0)];
        if second != *last {
            *last = second;
            // It holds every i64 of nanoseconds.
            *text = (self.make)(Timestamp::from_second(second).unwrap_or_default());
        }
        (text, time.0.rem_euclid(SECOND_NS) as u32)
    }
}

/// Moments in RFC 3339, as [`WallTime`] is displayed.
pub struct Rfc3339(Seconds<fn(Timestamp) -> String>);

impl Default for Rfc3339 {
    fn default() -> Self {
        Self(Seconds::new(|second| format!("{second:.0}")))
    }
}

impl Rfc3339 {
    /// Appends a moment.
    pub fn put(&mut self, text: &mut String, time: WallTime) {
        let (second, ns) = self.0.of(time);
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
            let mut moments = Rfc3339::default();
            for ns in times.into_iter().chain([0, -1, i64::MIN, i64::MAX]) {
                let time = WallTime(ns);
                prop_assert_eq!(text(|to| moments.put(to, time)), time.to_string());
            }
        }
    }
}
