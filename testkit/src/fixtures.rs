//! Fixtures for tests of logs and of the ring buffer's format.

use std::collections::BTreeMap;

use kaprobe::filter::{Filter, RecordFilter};
use kaprobe::kernel::Decoder;
use kaprobe::model::header::{Header, VERSION};
use kaprobe::model::named::Named as _;
use kaprobe::model::record::EventName;
use kaprobe::model::time::WallTime;
use kaprobe::sink::options::{ColorWhen, TextStyle, TimeFormat};
use kaprobe::text::escape::Escaped;
use kaprobe_ebpf::wire::{self, flag, kind};

/// 2024-05-06T07:08:09Z.
pub const WALL_NS: i64 = 1_714_979_289_000_000_000;

/// Narrow text with a heading, without color.
pub const NARROW: TextStyle = TextStyle {
    time: TimeFormat::Clock,
    wide: false,
    heading: true,
    color: ColorWhen::Never,
};

/// The header of a trace that started at [`WALL_NS`], 1000 s after its host booted.
pub fn header(host: &str) -> Header {
    Header {
        version: VERSION.to_owned(),
        host: Escaped::from(host),
        kernel: Escaped::from("6.12.0"),
        kaprobe: "0.1.0".to_owned(),
        started: WallTime(WALL_NS),
        clock_offset_ns: WALL_NS - 1_000_000_000_000,
        hz: 250,
        hooks: BTreeMap::from([("tcp_keepalive_timer".to_owned(), "fentry".to_owned())]),
        filters: BTreeMap::from([("events".to_owned(), vec!["probe".to_owned()])]),
        ..Header::default()
    }
}

/// A decoder for a kernel with one reset reason, number 15.
pub fn decoder() -> Decoder {
    Decoder {
        hz: 250,
        reset_reasons: BTreeMap::from([(15, "SK_RST_REASON_TCP_STATE".to_owned())]),
        clock_offset_ns: WALL_NS,
    }
}

/// A filter that passes every event.
pub fn every_event() -> Filter {
    Filter::new(RecordFilter {
        events: EventName::ALL.iter().copied().collect(),
        ..RecordFilter::default()
    })
}

/// A keepalive timer that sends its first probe, of a socket that was just made: for events that
/// differ from it.
pub fn first_probe() -> wire::Event {
    let mut raw = wire::Event {
        version: wire::VERSION,
        kind: kind::PROBE,
        flags: flag::KEEPOPEN | flag::PENDING_AFTER,
        mono_ns: 1_000_000_000,
        born_ns: 1,
        inode: 20_000,
        jiffies: 250_000,
        jiffies_after: 250_000,
        expires: 250_000,
        expires_after: 250_250,
        lrcvtime: 1,
        rcv_tstamp: 149_751,
        lsndtime: 1,
        keepalive_time: 100_000,
        keepalive_intvl: 250,
        sysctl_probes: 9,
        probes_out_after: 1,
        state: 1,
        state_after: 1,
        ..wire::Event::EMPTY
    };
    raw.socket.family = 2;
    raw
}

/// The bytes of an event in the ring buffer.
pub fn bytes(raw: &wire::Event) -> &[u8] {
    // SAFETY: integers only, without padding: every byte is initialized.
    unsafe { std::slice::from_raw_parts(std::ptr::from_ref(raw).cast(), wire::EVENT_SIZE) }
}
