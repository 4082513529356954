//! The kernels in Debian's archive, by the versions of their packages.

/// A package of Debian with a kernel, or one that depends on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// As `uname -r` prints it.
    pub release: String,
    pub version: String,
    /// What the names of its packages end with, after its release: release candidates are not
    /// signed.
    pub signed: &'static str,
}

impl Found {
    /// Whether this is a kernel. A release of two numbers is that of a release candidate, or of
    /// a package which depends on the newest kernel.
    pub fn is_kernel(&self) -> bool {
        numbers(self.release.split(['-', '+']).next().unwrap_or_default()).len() > 2
            || self.version.contains("~rc")
    }

    /// Orders the versions of Debian's packages: what follows a tilde comes before its end.
    pub fn order(&self) -> (Vec<u64>, bool, Vec<u64>) {
        let (start, rest) = match self.version.split_once('~') {
            Some((start, rest)) => (start, Some(rest)),
            None => (self.version.as_str(), None),
        };
        (
            numbers(start),
            rest.is_none(),
            numbers(rest.unwrap_or_default()),
        )
    }
}

/// The newest kernel of a version; one that was built for its own suite and is signed, if there
/// is.
pub fn newest<'a>(all: &'a [Found], version: &str) -> Option<&'a Found> {
    let matching = all.iter().filter(|it| it.is_kernel()).filter(|it| {
        // Debian's 7.3~rc7 is the kernel's 7.3-rc7.
        let upstream = it.version.replace('~', "-");
        is_within(&upstream, version) || is_within(&it.release, version)
    });
    matching.max_by_key(|it| (it.order(), it.signed.is_empty()))
}

/// Whether a version begins with another, and is not a longer number there.
fn is_within(version: &str, start: &str) -> bool {
    let rest = version.strip_prefix(start);
    rest.is_some_and(|rest| !rest.starts_with(|c: char| c.is_ascii_digit()))
}

/// The numbers in a version; they order the versions of one series.
fn numbers(version: &str) -> Vec<u64> {
    version
        .split(|c: char| !c.is_ascii_digit())
        .filter_map(|digits| digits.parse().ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_newer_release_compares_greater() {
        for (older, newer) in [
            ("5.10.0-9", "5.10.0-46"),
            ("6.12.115+deb13", "6.12.115+deb13.1"),
            ("7.2.12+deb13", "7.3.4+deb13"),
        ] {
            assert!(numbers(older) < numbers(newer), "{older} < {newer}");
        }
    }

    #[test]
    fn the_newest_kernel_of_a_version_is_taken() {
        let all = [
            ("6.1.0-9-cloud-amd64", "6.1.27-1", ""),
            ("6.1.0-48-cloud-amd64", "6.1.170-3", ""),
            ("6.1.0-48-cloud-amd64", "6.1.170-3", "-unsigned"),
            ("6.1.0-57-cloud-amd64", "6.1.192-3", ""),
            ("6.1.0-0.deb11.57-cloud-amd64", "6.1.192-3~deb11u1", ""),
            ("6.12.100+deb13-cloud-amd64", "6.12.100-1", ""),
            ("6.12-cloud-amd64", "6.12.117-1~deb12u1", ""),
            ("7.3-cloud-amd64", "7.3~rc7-1~exp1", ""),
            ("7.3.4+deb13-cloud-amd64", "7.3.4-1~bpo13+1", ""),
        ];
        let all = all.map(|(release, version, signed)| Found {
            release: release.into(),
            version: version.into(),
            signed,
        });
        for (version, expected) in [
            ("6.1", Some(&all[3])),
            ("6.1.170", Some(&all[1])),
            ("6.1.17", None),
            ("6.1.0-9", Some(&all[0])),
            ("6.12", Some(&all[5])),
            ("6.12.117", None),
            ("6", Some(&all[5])),
            ("6.18", None),
            ("7.3", Some(&all[8])),
            ("7.3-rc7", Some(&all[7])),
            ("7.3-rc", None),
        ] {
            assert_eq!(newest(&all, version), expected, "{version}");
        }
    }
}
