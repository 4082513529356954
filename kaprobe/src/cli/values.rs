//! Values of flags, as people write them.

use std::net::IpAddr;
use std::str::FromStr;
use std::time::Duration;

use bytesize::ByteSize;
use ipnet::IpNet;
use jiff::SignedDuration;

use crate::model::named::{Named as _, UnknownName};
use crate::model::values::State;

/// Reads a number that is not zero.
///
/// # Errors
/// When it is none.
pub fn from_one<T: FromStr>(text: &str) -> Result<T, &'static str> {
    text.parse().map_err(|_| "not a whole number from 1")
}

/// Reads a time span such as `30s` or `1h30m`.
///
/// # Errors
/// When it is none, or not longer than nothing.
pub fn time_span(text: &str) -> Result<Duration, &'static str> {
    const WRONG: &str = "not a time span such as 30s, 5m or 1h30m";
    let span: SignedDuration = text.parse().map_err(|_| WRONG)?;
    let span = Duration::try_from(span).map_err(|_| WRONG)?;
    if span.is_zero() { Err(WRONG) } else { Ok(span) }
}

/// Reads the name of a TCP state, in any case.
///
/// # Errors
/// With the names that there are.
pub fn tcp_state(text: &str) -> Result<State, UnknownName> {
    State::from_name(&text.to_ascii_uppercase())
}

/// Reads `ADDR` or `ADDR/LEN`. Bits past the length are dropped; an IPv4-mapped
/// network becomes the IPv4 one that it is.
///
/// # Errors
/// When the text is neither.
pub fn network(text: &str) -> Result<IpNet, &'static str> {
    const WRONG: &str = "neither an address nor a network such as 10.0.0.0/8 or fd00::/8";
    let network = match text.parse::<IpAddr>() {
        Ok(address) => IpNet::from(address),
        Err(_) => text.parse::<IpNet>().map_err(|_| WRONG)?,
    };
    let unmapped = match network {
        IpNet::V6(mapped) if mapped.prefix_len() >= 96 => mapped
            .addr()
            .to_ipv4_mapped()
            .and_then(|addr| IpNet::new(addr.into(), mapped.prefix_len() - 96).ok()),
        _ => None,
    };
    Ok(unmapped.unwrap_or(network).trunc())
}

/// Reads a size of the ring buffer, such as `4MiB`, and rounds it up to a power of
/// two, 4096 at least.
///
/// # Errors
/// When it is no size, nothing, or more than 1 GiB.
pub fn size(text: &str) -> Result<u32, &'static str> {
    const MOST: u64 = 1 << 30;
    let ByteSize(bytes) = text
        .parse()
        .map_err(|_| "no size such as 65536, 256KiB or 4MiB")?;
    match bytes {
        0 => Err("a buffer of nothing holds nothing"),
        1..=MOST => Ok(u32::try_from(bytes.next_power_of_two().max(4096)).unwrap_or(1 << 30)),
        _ => Err("more than 1GiB"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks() {
        for (text, read) in [
            ("10.1.2.3", Ok("10.1.2.3/32")),
            ("10.1.2.3/8", Ok("10.0.0.0/8")),
            ("0.0.0.0/0", Ok("0.0.0.0/0")),
            ("fd00::1", Ok("fd00::1/128")),
            ("fd00::1/8", Ok("fd00::/8")),
            ("::ffff:10.1.2.3", Ok("10.1.2.3/32")),
            ("::ffff:10.1.2.3/104", Ok("10.0.0.0/8")),
            ("::/0", Ok("::/0")),
            ("10.0.0.0/33", Err(())),
            ("10.0.0/8", Err(())),
            ("10.0.0.0/", Err(())),
            ("fd00::/129", Err(())),
            ("localhost", Err(())),
            ("", Err(())),
        ] {
            let network = network(text).map(|it| it.to_string()).map_err(drop);
            assert_eq!(network, read.map(str::to_owned), "{text:?}");
        }
    }

    #[test]
    fn sizes() {
        for (text, read) in [
            ("1", Ok(4096)),
            ("4096", Ok(4096)),
            ("4097", Ok(8192)),
            ("64KiB", Ok(65_536)),
            ("4M", Ok(4 << 20)),
            ("4 MiB", Ok(4 << 20)),
            ("1GiB", Ok(1 << 30)),
            ("0", Err(())),
            ("1073741825", Err(())),
            ("99999999999999999999", Err(())),
            ("-1", Err(())),
            ("many", Err(())),
            ("", Err(())),
        ] {
            assert_eq!(size(text).map_err(drop), read, "{text:?}");
        }
    }

    #[test]
    fn time_spans() {
        for (text, ms) in [
            ("30s", Ok(30_000)),
            ("500ms", Ok(500)),
            ("1h30m", Ok(5_400_000)),
            ("5 minutes", Ok(300_000)),
            ("0s", Err(())),
            ("-5s", Err(())),
            ("5", Err(())),
            ("soon", Err(())),
            ("", Err(())),
        ] {
            let span = time_span(text).map(|it| it.as_millis()).map_err(drop);
            assert_eq!(span, ms, "{text:?}");
        }
    }
}
