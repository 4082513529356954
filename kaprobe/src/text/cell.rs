//! What stands in a cell of a table.

use std::borrow::Cow;
use std::net::IpAddr;

use crate::text::digits;

/// What stands where there is nothing to tell.
pub const NOTHING: &str = "-";
/// What stands where there is something, and it can't be seen.
pub const UNSEEN: &str = "?";

/// An address and a port, as far as they are known.
pub type End = (Option<IpAddr>, Option<u16>);

/// Escaped text as one word that is not empty.
pub fn word(text: &str) -> Cow<'_, str> {
    match text {
        "" => "''".into(),
        _ if text.contains(' ') => text.replace(' ', "\\x20").into(),
        _ => text.into(),
    }
}

/// An address and a port, as people write them.
pub fn endpoint(address: Option<IpAddr>, port: Option<u16>) -> String {
    let mut text = String::new();
    put_endpoint(&mut text, (address, port));
    text
}

/// Appends an address and a port.
pub fn put_endpoint(line: &mut String, end: End) {
    let (Some(address), Some(port)) = end else {
        return line.push_str(NOTHING);
    };
    if address.is_ipv6() {
        line.push('[');
    }
    digits::address(line, address);
    line.push_str(if address.is_ipv6() { "]:" } else { ":" });
    digits::number(line, port);
}
