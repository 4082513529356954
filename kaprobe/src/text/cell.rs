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

/// Appends an address and a port.
#[inline]
pub fn put_endpoint(line: &mut String, (address, port): (IpAddr, u16)) {
    let (open, close) = if address.is_ipv6() {
        ("[", "]:")
    } else {
        ("", ":")
    };
    line.push_str(open);
    digits::address(line, address);
    line.push_str(close);
    digits::number(line, port);
}
