//! Cuts text that is too wide, and marks where.

use std::borrow::Cow;
use std::iter;

use unicode_width::UnicodeWidthStr as _;

/// The width of the longest IPv4 address with a port: no endpoint is cut below it.
pub const ENDPOINT_WIDTH: usize = "255.255.255.255:65535".len();

/// The mark of what was cut out. It is one column wide.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ellipsis {
    /// An ellipsis, for a terminal that shows UTF-8.
    Unicode,
    /// A tilde.
    Ascii,
}

impl Ellipsis {
    const fn mark(self) -> char {
        match self {
            Self::Unicode => '\u{2026}',
            Self::Ascii => '~',
        }
    }
}

/// Cuts the end of a text that is wider than `width`.
pub fn end(text: &str, width: usize, ellipsis: Ellipsis) -> Cow<'_, str> {
    if text.width() <= width {
        return text.into();
    }
    let Some(room) = width.checked_sub(1) else {
        return "".into();
    };
    let mut kept = head(text, room).to_owned();
    kept.push(ellipsis.mark());
    kept.into()
}

/// Cuts the middle of the address of an endpoint that is wider than `width`. The port and
/// both ends of the address stay: the first part tells the network, the last part the host.
pub fn endpoint(text: &str, width: usize, ellipsis: Ellipsis) -> Cow<'_, str> {
    let parts = text
        .rsplit_once("]:")
        .map(|(address, port)| (address.trim_start_matches('['), port));
    let room = parts.and_then(|(_, port)| width.checked_sub("[…]:".chars().count() + port.len()));
    match (parts, room) {
        (Some((address, port)), Some(room)) if text.width() > width && address.is_ascii() => {
            let last = room.div_ceil(2).min(address.len());
            let (first, last) = (&address[..room - last], &address[address.len() - last..]);
            format!("[{first}{}{last}]:{port}", ellipsis.mark()).into()
        }
        _ => end(text, width, ellipsis),
    }
}

/// The longest beginning of a text that is at most so wide. The width of a text is not the
/// sum of its characters'.
pub fn head(text: &str, room: usize) -> &str {
    let shorter = text.char_indices().rev().map(|(end, _)| &text[..end]);
    let mut heads = iter::once(text).chain(shorter);
    heads.find(|it| it.width() <= room).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_end_is_cut_at_a_character() {
        for (text, width, cut) in [
            ("postgres", 8, "postgres"),
            ("postgres", 7, "postgr…"),
            ("postgres", 1, "…"),
            ("postgres", 0, ""),
            ("\u{4e2d}\u{6587}a", 5, "\u{4e2d}\u{6587}a"),
            ("\u{4e2d}\u{6587}a", 4, "\u{4e2d}…"),
        ] {
            assert_eq!(end(text, width, Ellipsis::Unicode), cut);
        }
        assert_eq!(end("postgres", 4, Ellipsis::Ascii), "pos~");
    }

    #[test]
    fn a_head_is_cut_by_columns() {
        for (line, width, left) in [
            ("abc", 3, "abc"),
            ("abc", 2, "ab"),
            ("abc", 0, ""),
            ("\u{4e2d}\u{6587}", 3, "\u{4e2d}"),
        ] {
            assert_eq!(head(line, width), left);
        }
    }

    #[test]
    fn the_port_of_an_endpoint_stays() {
        for (text, width, cut) in [
            ("10.0.0.1:5672", 21, "10.0.0.1:5672"),
            ("[2001:db8::10]:443", 21, "[2001:db8::10]:443"),
            (
                "[2001:db8:ffff:ffff:ffff:ffff:ffff:1234]:5672",
                21,
                "[2001:d…ff:1234]:5672",
            ),
            (
                "[2001:db8:ffff:ffff:ffff:ffff:ffff:1234]:5672",
                30,
                "[2001:db8:ff…f:ffff:1234]:5672",
            ),
        ] {
            assert_eq!(endpoint(text, width, Ellipsis::Unicode), cut);
        }
    }

    proptest! {
        #[test]
        fn nothing_is_wider_than_asked(text in "\\PC{0,40}", address: [u16; 8], port: u16, width in 0_usize..60) {
            let address = std::net::Ipv6Addr::from(address);
            let text_cut = end(&text, width, Ellipsis::Unicode);
            prop_assert!(text_cut.width() <= width, "{text_cut}");
            let whole = format!("[{address}]:{port}");
            let cut = endpoint(&whole, width, Ellipsis::Unicode);
            prop_assert!(cut.width() <= width, "{cut}");
            if width >= ENDPOINT_WIDTH {
                let port = format!("]:{port}");
                prop_assert!(cut.ends_with(&port), "{cut}");
            }
            prop_assert_eq!(whole.width() <= width, cut == whole);
        }
    }
}
