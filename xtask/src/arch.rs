//! The architectures that kaprobe runs on, and what each is called.

use std::path::PathBuf;

use crate::workspace;

/// An architecture of processors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Arch {
    /// 64-bit x86: amd64
    #[value(name = "x86_64")]
    X86_64,
    /// 64-bit Arm: arm64
    Aarch64,
}

impl Arch {
    /// The architecture of this host.
    pub const HOST: Self = if cfg!(target_arch = "aarch64") {
        Self::Aarch64
    } else {
        Self::X86_64
    };

    /// The other architectures.
    pub const FOREIGN: [Self; 1] = [match Self::HOST {
        Self::X86_64 => Self::Aarch64,
        Self::Aarch64 => Self::X86_64,
    }];

    /// Its name for the kernel and Rust.
    pub const fn name(self) -> &'static str {
        match self {
            Self::X86_64 => "x86_64",
            Self::Aarch64 => "aarch64",
        }
    }

    /// Its name in Debian.
    pub const fn debian(self) -> &'static str {
        match self {
            Self::X86_64 => "amd64",
            Self::Aarch64 => "arm64",
        }
    }

    /// The target that rustc builds kaprobe for.
    pub fn target(self) -> String {
        format!("{}-unknown-linux-gnu", self.name())
    }

    /// The folder of Debian's libraries.
    pub fn libraries(self) -> String {
        format!("usr/lib/{}-linux-gnu", self.name())
    }

    /// The dynamic loader in an unpacked package.
    pub const fn loader(self) -> &'static str {
        match self {
            Self::X86_64 => "usr/lib64/ld-linux-x86-64.so.2",
            Self::Aarch64 => "usr/lib/ld-linux-aarch64.so.1",
        }
    }

    /// A path in the cache of what differs between architectures.
    pub fn cache(self, name: &str) -> PathBuf {
        match self {
            Self::HOST => workspace::cache(name),
            _ => workspace::cache(self.debian()).join(name),
        }
    }
}
