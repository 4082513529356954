//! Tests of the packages: built, judged, installed, run, upgraded and removed.

mod debian;
mod lint;
mod listing;
mod rpm;
mod serve;
mod unpacked;

use anyhow::Result;

use crate::debian::RELEASES;
use crate::dist::trial::Trial;

/// A test of the packages: its name, and what it does.
pub type Check = (String, Box<dyn Fn(&Trial) -> Result<()>>);

/// What an ordinary run does.
pub fn fast() -> Vec<Check> {
    vec![
        (
            "alone in an empty root".to_owned(),
            Box::new(unpacked::check),
        ),
        ("lintian, rpmlint".to_owned(), Box::new(lint::check)),
    ]
}

/// What takes longer: a package's life in each root.
pub fn full() -> Vec<Check> {
    let releases = RELEASES.map(|(number, release)| -> Check {
        let check = move |trial: &Trial| debian::check(release, trial);
        (format!("Debian {number}"), Box::new(check))
    });
    let mut all: Vec<Check> = releases.into();
    all.push(("RPM".to_owned(), Box::new(rpm::check)));
    all
}
