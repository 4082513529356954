//! Formats the cells of tables.

use std::borrow::Cow;
use std::net::IpAddr;

use crate::text::digits;
use crate::text::escape::Escaped;

/// The cell of a value that does not apply or is unknown.
pub const NOTHING: &str = "-";
/// The cell of a value that exists, but kaprobe may not see.
pub const UNSEEN: &str = "?";

/// Escaped text as one word that is not empty.
#[inline]
pub fn word(text: &str) -> Cow<'_, str> {
    match text {
        "" => "''".into(),
        _ if text.contains(' ') => text.replace(' ', "\\x20").into(),
        _ => text.into(),
    }
}

/// A network namespace for people: its name, and its number, which is unique.
#[must_use]
pub fn netns(name: Option<&Escaped>, number: u32) -> String {
    match name {
        Some(name) => format!("{} ({number})", word(name.as_str())),
        None => number.to_string(),
    }
}

/// An address and a port, as people write them.
#[inline]
pub fn endpoint(end: (IpAddr, u16)) -> String {
    let mut text = String::new();
    put_endpoint(&mut text, end);
    text
}

/// Appends an address and a port. Brackets mark an AF_INET6 socket: `[10.0.0.1]:443` is one
/// that carries IPv4.
#[inline]
pub fn put_endpoint(line: &mut String, (address, port): (IpAddr, u16)) {
    let (open, close) = if address.is_ipv6() {
        ("[", "]:")
    } else {
        ("", ":")
    };
    line.push_str(open);
    digits::address(line, address.to_canonical());
    line.push_str(close);
    digits::number(line, port);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn brackets_mark_an_ipv6_socket() {
        for (address, text) in [
            ("10.0.0.1", "10.0.0.1:443"),
            ("::ffff:10.0.0.1", "[10.0.0.1]:443"),
            ("::10.0.0.1", "[::a00:1]:443"),
            ("fd00::1", "[fd00::1]:443"),
        ] {
            let address = address.parse();
            let of = |address| endpoint((address, 443));
            assert_eq!(address.map(of), Ok(text.to_owned()));
        }
    }
}
