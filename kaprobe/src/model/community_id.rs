//! The Community ID of a connection: a name that Zeek, Suricata and Elastic give it too.
//!
//! The standard is version 1 of Corelight's community-id-spec, with seed 0: the SHA-1 of the
//! addresses and ports, the lesser end first, so that both ends of a connection have the same.

use std::net::IpAddr;

use data_encoding::BASE64;
use sha1::{Digest as _, Sha1};

/// IPPROTO_TCP.
const TCP: u8 = 6;

/// The seed of the standard. Another seed would make other IDs than other programs have.
const SEED: [u8; 2] = [0, 0];

/// What stands before the hash: the version of the standard.
const VERSION: &[u8; 2] = b"1:";

/// The Community ID of a connection. It is hashed when its text is asked for: that takes longer
/// than a dozen other fields of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CommunityId {
    local: (IpAddr, u16),
    remote: (IpAddr, u16),
}

/// A Community ID as text: `1:` and 28 characters of base64.
#[derive(Clone, Copy)]
pub struct CommunityIdText([u8; 30]);

impl CommunityId {
    /// The ID of the connection between these ends. `None` if there is no peer: a listener has
    /// port 0 as its remote one.
    #[must_use]
    pub fn of(local: (IpAddr, u16), remote: (IpAddr, u16)) -> Option<Self> {
        (remote.1 != 0).then_some(Self { local, remote })
    }

    /// The ID as text.
    ///
    /// An IPv4-mapped address is hashed as IPv4: that is what the packets have.
    #[must_use]
    pub fn text(&self) -> CommunityIdText {
        let canonical = |(address, port): (IpAddr, u16)| (address.to_canonical(), port);
        let (local, remote) = (canonical(self.local), canonical(self.remote));
        let (least, greatest) = (local.min(remote), local.max(remote));
        let mut hash = Sha1::new();
        hash.update(SEED);
        add_address(&mut hash, least.0);
        add_address(&mut hash, greatest.0);
        hash.update([TCP, 0]);
        hash.update(least.1.to_be_bytes());
        hash.update(greatest.1.to_be_bytes());
        let mut text = [0; 30];
        let (version, encoded) = text.split_at_mut(VERSION.len());
        version.copy_from_slice(VERSION);
        // 20 bytes are 28 characters, which is the room behind the version.
        BASE64.encode_mut(&hash.finalize(), encoded);
        CommunityIdText(text)
    }
}

impl CommunityIdText {
    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        // It is ASCII.
        str::from_utf8(&self.0).unwrap_or_default()
    }
}

/// Hashes an address in network order.
fn add_address(hash: &mut Sha1, address: IpAddr) {
    match address {
        IpAddr::V4(v4) => hash.update(v4.octets()),
        IpAddr::V6(v6) => hash.update(v6.octets()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The TCP flows of the standard's own baseline (baseline/baseline_deflt.json, and
    /// README.md of community-id-spec), and the IDs that it states for them.
    const BASELINE: [(&str, u16, &str, u16, &str); 3] = [
        (
            "2001:470:e5bf:dead:4957:2174:e82c:4887",
            63_943,
            "2607:f8b0:400c:c03::1a",
            25,
            "1:/qFaeAR+gFe1KYjMzVDsMv+wgU4=",
        ),
        (
            "128.232.110.120",
            34_855,
            "66.35.250.204",
            80,
            "1:LQU9qZlK+B5F3KDmev6m5PMibrg=",
        ),
        (
            "::ffff:128.232.110.120",
            34_855,
            "::ffff:66.35.250.204",
            80,
            "1:LQU9qZlK+B5F3KDmev6m5PMibrg=",
        ),
    ];

    fn id(local: (&str, u16), remote: (&str, u16)) -> Option<String> {
        let end = |(address, port): (&str, u16)| Some((address.parse().ok()?, port));
        CommunityId::of(end(local)?, end(remote)?).map(|it| it.text().as_str().to_owned())
    }

    #[test]
    fn ids_are_those_of_the_standard_from_either_end() {
        for (a, port_a, b, port_b, expected) in BASELINE {
            let (a, b) = ((a, port_a), (b, port_b));
            assert_eq!(id(a, b).as_deref(), Some(expected));
            assert_eq!(id(b, a).as_deref(), Some(expected));
        }
    }

    #[test]
    fn equal_addresses_are_ordered_by_port_and_an_address_may_be_mapped_at_one_end() {
        let (a, b) = (("10.0.0.1", 40_000), ("10.0.0.1", 80));
        assert!(id(a, b).is_some());
        assert_eq!(id(a, b), id(b, a));
        let (v4, mapped) = (("10.0.0.1", 40_000), ("::ffff:10.0.0.2", 80));
        assert_eq!(id(v4, mapped), id(v4, ("10.0.0.2", 80)));
    }

    #[test]
    fn without_a_peer_there_is_no_id() {
        assert_eq!(id(("10.0.0.1", 80), ("0.0.0.0", 0)), None);
        assert_eq!(id(("::", 80), ("::", 0)), None);
    }
}
