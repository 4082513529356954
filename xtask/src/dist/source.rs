//! What artifacts are made from, besides a program for each architecture.

use anyhow::Result;

use crate::arch::Arch;
use crate::dist::documents::Documents;
use crate::dist::notices::Notices;
use crate::dist::program::Program;
use crate::dist::release::Release;
use crate::workspace;

/// What the artifacts of all architectures have in common.
#[derive(Clone)]
pub struct Source {
    pub release: Release,
    pub documents: Documents,
    /// The settings of the service, as they are installed.
    pub settings: String,
    pub notices: Notices,
}

impl Source {
    /// The documents come from the program for this host. If it is not among these, it is
    /// built.
    pub fn new(release: Release, programs: &[Program]) -> Result<Self> {
        let documents = match programs.iter().find(|it| it.arch == Arch::HOST) {
            Some(program) => Documents::of(program)?,
            None => Documents::of(&Program::build(Arch::HOST)?)?,
        };
        let arches: Vec<_> = programs.iter().map(|it| it.arch).collect();
        Ok(Self {
            release,
            documents,
            settings: workspace::read("contrib/kaprobe.toml")?,
            notices: Notices::of(&arches)?,
        })
    }

    /// A source for tests.
    #[cfg(test)]
    pub fn sample() -> Self {
        use crate::dist::documents::Shell;

        Self {
            release: Release::sample(),
            documents: Documents {
                pages: vec![("kaprobe.1".to_owned(), b"page".to_vec())],
                completions: vec![(Shell::Zsh, b"script".to_vec())],
            },
            settings: String::new(),
            notices: Notices::sample(),
        }
    }
}
