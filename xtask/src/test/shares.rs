//! Which guests a run boots, and which tests each has.

use std::fmt;

use crate::arch::Arch;
use crate::vm::series::{self, Series};

/// The tests that one guest runs: every `parts`-th one of a scope, starting at number `part`.
pub struct Share {
    pub series: Series,
    pub scope: Scope,
    pub part: usize,
    pub parts: usize,
}

/// The tests of a kernel. `Runs` of kaprobe-testkit says which tests each scope has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    /// All tests.
    All,
    /// All but those of kaprobe in user space.
    One,
    /// Those of what differs between kernels.
    Kernel,
    /// Those of what differs on a variant of another kernel, or between two others.
    Variant,
    /// Those that tell whether kaprobe works on another architecture.
    Architecture,
    /// Those of the service, in a guest that systemd has started.
    Systemd,
}

impl Scope {
    /// The scope of a kernel in an ordinary run.
    fn ordinary(series: &Series) -> Self {
        let name = series.name.to_string();
        if name == HAS_MOST {
            Self::One
        } else if series.is_variant() || BETWEEN.contains(&name.as_str()) {
            Self::Variant
        } else {
            Self::Kernel
        }
    }

    /// The scope's name for the test programs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::One => "one",
            Self::Kernel => "kernel",
            Self::Variant => "variant",
            Self::Architecture => "architecture",
            Self::Systemd => "systemd",
        }
    }
}

/// The kernel that has most tests in an ordinary run, and those of the service: that of Debian
/// stable.
const HAS_MOST: &str = "6.12";

/// Kernels between two others of the matrix: what differs on one, differs on a neighbour too.
const BETWEEN: [&str; 2] = ["6.1", "6.18"];

/// The most parts that a kernel's tests are split into.
///
/// With more parts, a kernel might skip every test of one part.
const MAX_PARTS: usize = 4;

impl Share {
    /// The shares of an ordinary run, those that take longest first.
    pub fn ordinary(kernels: Vec<Series>, at_once: usize) -> Vec<Self> {
        let scoped = |it: Series| {
            let scope = Scope::ordinary(&it);
            (it, scope)
        };
        let mut scopes: Vec<_> = kernels.into_iter().map(scoped).collect();
        // A newer kernel takes longer.
        scopes.reverse();
        scopes.sort_by_key(|(_, scope)| *scope);
        Self::with_service(Self::split(&scopes, at_once))
    }

    /// The shares of a run that has all tests on each kernel.
    pub fn full(kernels: Vec<Series>, at_once: usize) -> Vec<Self> {
        Self::with_service(Self::split(&scoped(kernels, Scope::All), at_once))
    }

    /// The shares of the tests that someone chose.
    pub fn chosen(kernels: Vec<Series>) -> Vec<Self> {
        // A part may have none of the chosen tests.
        Self::split(&scoped(kernels, Scope::All), 1)
    }

    /// The shares that have the tests of the service.
    pub fn service(kernels: Vec<Series>) -> Vec<Self> {
        Self::split(&scoped(kernels, Scope::Systemd), 1)
    }

    /// Adds the tests of the service on one kernel. They take less than those of any kernel.
    fn with_service(mut shares: Vec<Self>) -> Vec<Self> {
        let mut series = shares.iter().map(|it| &it.series);
        let one = series.find(|it| it.name.to_string() == HAS_MOST).cloned();
        shares.extend(Self::service(one.into_iter().collect()));
        shares
    }

    /// The share of another architecture in an ordinary run: the first of its kernels, and few
    /// tests. They would tell that the build fails, or that kprobes read wrong registers.
    pub fn foreign(arch: Arch) -> Vec<Self> {
        let first = series::matrix(arch).into_iter().take(1).collect();
        Self::split(&scoped(first, Scope::Architecture), 1)
    }

    /// The shares of another architecture in a run of everything: what differs between kernels,
    /// on each of its own.
    pub fn foreign_full(arch: Arch, at_once: usize) -> Vec<Self> {
        Self::split(&scoped(series::matrix(arch), Scope::Kernel), at_once)
    }

    /// Splits the tests of a kernel that would otherwise run alone: because it is the last,
    /// or has more tests than any other.
    fn split(scopes: &[(Series, Scope)], at_once: usize) -> Vec<Self> {
        let parts = at_once.clamp(1, MAX_PARTS);
        let mut shares: Vec<Self> = Vec::new();
        for (index, (series, scope)) in scopes.iter().enumerate() {
            let next = scopes.get(index + 1).map(|(_, scope)| scope);
            let is_alone = match next {
                None => shares.len().is_multiple_of(at_once),
                Some(next) => index == 0 && scope != next,
            };
            let parts = if is_alone { parts } else { 1 };
            shares.extend((0..parts).map(|part| Self {
                series: series.clone(),
                scope: *scope,
                part,
                parts,
            }));
        }
        shares
    }
}

fn scoped(kernels: Vec<Series>, scope: Scope) -> Vec<(Series, Scope)> {
    kernels.into_iter().map(|it| (it, scope)).collect()
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.series.arch != Arch::HOST {
            write!(f, "{} ", self.series.arch.name())?;
        }
        write!(f, "{}", self.series.name)?;
        if self.scope == Scope::Systemd {
            f.write_str(" with systemd")?;
        }
        if self.parts > 1 {
            write!(f, ", part {} of {}", self.part + 1, self.parts)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(shares: &[Share]) -> String {
        let named = |it: &Share| format!("{it} {}", it.scope.name());
        let names: Vec<_> = shares.iter().map(named).collect();
        names.join(" + ")
    }

    #[test]
    fn only_a_kernel_that_would_run_alone_is_split() {
        let matrix = series::matrix(Arch::X86_64);
        for (count, at_once, expected) in [
            (0, 2, ""),
            (1, 1, "5.10 all"),
            (1, 2, "5.10, part 1 of 2 all + 5.10, part 2 of 2 all"),
            (2, 2, "5.10 all + 6.1 all"),
            (2, 4, "5.10 all + 6.1 all"),
            (
                3,
                1,
                "5.10 all + 6.1 all + 6.12 all + 6.12 with systemd systemd",
            ),
            (
                3,
                2,
                "5.10 all + 6.1 all + 6.12, part 1 of 2 all + 6.12, part 2 of 2 all + \
                 6.12 with systemd systemd",
            ),
        ] {
            let kernels = matrix.iter().take(count).cloned().collect();
            assert_eq!(names(&Share::full(kernels, at_once)), expected, "{at_once}");
        }
    }

    #[test]
    fn another_architecture_has_few_tests_in_an_ordinary_run() {
        let arch = Arch::FOREIGN[0];
        assert_eq!(names(&Share::foreign(arch)), "aarch64 6.1 architecture");
        assert_eq!(
            names(&Share::foreign_full(arch, 2)),
            "aarch64 6.1 kernel + aarch64 7 kernel + aarch64 7-16k, part 1 of 2 kernel + \
             aarch64 7-16k, part 2 of 2 kernel"
        );
    }

    #[test]
    fn one_kernel_of_the_matrix_has_most_tests() {
        let kernels = || series::matrix(Arch::X86_64);
        assert_eq!(
            names(&Share::ordinary(kernels(), 2)),
            "6.12, part 1 of 2 one + 6.12, part 2 of 2 one + 7 kernel + 5.10 kernel + \
             6.12-rt variant + 6.18 variant + 6.1, part 1 of 2 variant + 6.1, part 2 of 2 variant + \
             6.12 with systemd systemd"
        );
        assert_eq!(
            names(&Share::ordinary(kernels(), 1)),
            "6.12 one + 7 kernel + 5.10 kernel + 6.12-rt variant + 6.18 variant + 6.1 variant + \
             6.12 with systemd systemd"
        );
    }
}
