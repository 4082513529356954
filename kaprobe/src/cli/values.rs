//! Parsers for values of flags.

use std::ffi::{OsStr, OsString};
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;
use std::time::Duration;

use bytesize::ByteSize;
use clap::builder::{OsStringValueParser, TypedValueParser};
use ipnet::IpNet;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use jiff::{Span, SpanRelativeTo, Timestamp};

use crate::model::named::{Named as _, UnknownName};
use crate::model::time::{TimeBound, WallTime};
use crate::model::values::State;

/// Parses a positive number.
///
/// # Errors
/// If the text is not one.
pub fn positive<T: FromStr>(text: &str) -> Result<T, &'static str> {
    text.parse().map_err(|_| "not a whole number from 1")
}

/// Parses a name that is not empty.
///
/// # Errors
/// If it is: no process has such a name, so a filter would let nothing pass.
pub fn named(text: &str) -> Result<String, &'static str> {
    name(text.to_owned())
}

/// The parser of a name that is not empty, and may not be UTF-8.
#[must_use]
pub fn name_parser() -> impl TypedValueParser<Value = OsString> {
    OsStringValueParser::new().try_map(name)
}

fn name<T: AsRef<OsStr>>(text: T) -> Result<T, &'static str> {
    if text.as_ref().is_empty() {
        Err("an empty name")
    } else {
        Ok(text)
    }
}

/// Parses the address and port to listen on.
///
/// # Errors
/// If the text is not that. Names are not looked up.
pub fn listen_address(text: &str) -> Result<SocketAddr, &'static str> {
    let wrong =
        "not an IP address and a port such as 127.0.0.1:10977, 0.0.0.0:10977 or [::1]:10977";
    text.parse().map_err(|_| wrong)
}

/// Parses a time span such as `30s` or `1h30m`. A day has 24 hours.
///
/// # Errors
/// If the text is not a time span, or not a positive one.
pub fn time_span(text: &str) -> Result<Duration, &'static str> {
    const WRONG: &str = "not a time span such as 30s, 5m or 1h30m";
    let span: Span = text.parse().map_err(|_| WRONG)?;
    let span = span.to_duration(SpanRelativeTo::days_are_24_hours());
    let span = Duration::try_from(span.map_err(|_| WRONG)?).map_err(|_| WRONG)?;
    if span.is_zero() {
        Err("the time is zero")
    } else {
        Ok(span)
    }
}

/// Parses a point in time: one before now such as `-2h` or `2h ago`, or a date and time; of
/// the local time zone, unless it names another.
///
/// # Errors
/// If the text is neither.
pub fn time_bound(text: &str) -> Result<TimeBound, &'static str> {
    const WRONG: &str = "neither a time before now such as -2h, nor a date and time such as \
                         2024-05-06T07:08 or 2024-05-06T07:08:09Z";
    if let Ok(span) = text.parse::<Span>() {
        if !span.is_negative() {
            return Err("not before now: write -2h for two hours ago");
        }
        let span = span.abs().to_duration(SpanRelativeTo::days_are_24_hours());
        let span = span.map_err(|_| WRONG)?.unsigned_abs();
        return Ok(TimeBound::Ago(span));
    }
    let timestamp = match text.parse::<Timestamp>() {
        Ok(timestamp) => timestamp,
        Err(_) => {
            let civil: DateTime = text.parse().map_err(|_| WRONG)?;
            let zoned = civil.to_zoned(TimeZone::system()).map_err(|_| WRONG)?;
            zoned.timestamp()
        }
    };
    let ns = i64::try_from(timestamp.as_nanosecond()).map_err(|_| WRONG)?;
    Ok(TimeBound::At(WallTime(ns)))
}

/// Parses the name of a TCP state, in upper or lower case.
///
/// # Errors
/// If no state has this name. The error lists the known names.
pub fn tcp_state(text: &str) -> Result<State, UnknownName> {
    State::from_name(&text.to_ascii_uppercase())
}

/// Parses `ADDR` or `ADDR/LEN`. Clears the host bits, and converts an IPv4-mapped network
/// to IPv4.
///
/// # Errors
/// If the text is neither.
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

/// Parses the size of a file, such as `100MiB`.
///
/// # Errors
/// If the text is not a size, or the size is zero or more than a file can have.
pub fn file_size(text: &str) -> Result<u64, &'static str> {
    match text.parse() {
        Ok(ByteSize(0)) => Err("the size is zero"),
        // `loff_t` of the kernel is an i64. The parser makes `u64::MAX` of all that is larger.
        Ok(ByteSize(bytes)) if i64::try_from(bytes).is_err() => Err("more than a file can have"),
        Ok(ByteSize(bytes)) => Ok(bytes),
        Err(_) => Err("not a size such as 65536, 256KiB or 100MiB"),
    }
}

/// Parses a ring buffer size such as `4MiB`. Rounds it up to a power of two, at
/// least 4096.
///
/// # Errors
/// If the text is not a size, or the size is zero or more than 1 GiB.
pub fn buffer_size(text: &str) -> Result<u32, &'static str> {
    const MAX: u64 = 1 << 30;
    let ByteSize(bytes) = text
        .parse()
        .map_err(|_| "not a size such as 65536, 256KiB or 4MiB")?;
    match bytes {
        0 => Err("the buffer size is zero"),
        1..=MAX => Ok(u32::try_from(bytes.next_power_of_two().max(4096)).unwrap_or(1 << 30)),
        _ => Err("more than 1GiB"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_are_parsed() {
        for (text, parsed) in [
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
            assert_eq!(network, parsed.map(str::to_owned), "{text:?}");
        }
    }

    #[test]
    fn file_sizes_are_parsed() {
        for (text, parsed) in [
            ("1", Ok(1)),
            ("2GiB", Ok(2 << 30)),
            ("7EiB", Ok(7 << 60)),
            ("0", Err("the size is zero")),
            ("8EiB", Err("more than a file can have")),
            ("99999999999EiB", Err("more than a file can have")),
            ("1e3x", Err("not a size such as 65536, 256KiB or 100MiB")),
        ] {
            assert_eq!(file_size(text), parsed, "{text:?}");
        }
    }

    #[test]
    fn buffer_sizes_are_parsed() {
        for (text, parsed) in [
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
            assert_eq!(buffer_size(text).map_err(drop), parsed, "{text:?}");
        }
    }

    #[test]
    fn points_in_time_are_parsed() {
        let hours = |hours: u64| Some(TimeBound::Ago(Duration::from_secs(3_600 * hours)));
        let at = |s: i64| Some(TimeBound::At(WallTime(s * 1_000_000_000)));
        for (text, bound) in [
            ("-2h", hours(2)),
            ("-1d 2h", hours(26)),
            ("2h ago", hours(2)),
            ("2024-05-06T07:08:09Z", at(1_714_979_289)),
            ("2024-05-06T09:08:09+02:00", at(1_714_979_289)),
            ("2h", None),
            ("-1mo", None),
            ("yesterday", None),
            ("9999-01-01T00:00:00Z", None),
            ("", None),
        ] {
            assert_eq!(time_bound(text).ok(), bound, "{text:?}");
        }
        assert!(
            time_bound("2024-05-06 07:08").is_ok(),
            "in the local time zone"
        );
    }

    #[test]
    fn addresses_to_listen_on_are_parsed() {
        for (text, is_good) in [
            ("127.0.0.1:0", true),
            ("[::1]:10977", true),
            ("[fe80::1%2]:10977", true),
            ("localhost:10977", false),
            ("::1:10977", false),
            ("127.0.0.1", false),
            (":10977", false),
            ("", false),
        ] {
            assert_eq!(listen_address(text).is_ok(), is_good, "{text:?}");
        }
    }

    #[test]
    fn time_spans_are_parsed() {
        for (text, ms) in [
            ("30s", Ok(30_000)),
            ("500ms", Ok(500)),
            ("1h30m", Ok(5_400_000)),
            ("5 minutes", Ok(300_000)),
            ("1d", Ok(86_400_000)),
            ("1mo", Err(())),
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
