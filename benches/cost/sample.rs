//! What is printed for `cargo xtask bench` to read: a JSON object for each measurement.

use anyhow::{Result, anyhow};
use serde::Serialize;

/// Something that is measured of several subjects.
#[derive(Clone, Copy)]
pub struct Measure<'a> {
    /// What, and where that matters how it was attached.
    pub name: &'a str,
    /// What its numbers count.
    pub unit: &'a str,
}

#[derive(Serialize)]
struct Sample<'a> {
    measure: &'a str,
    subject: &'a str,
    unit: &'a str,
    /// The number, or nothing where the subject can't do it.
    value: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<String>,
}

impl Measure<'_> {
    /// Prints a number of a subject; or why there is none.
    pub fn print(&self, subject: &str, value: Result<f64>) -> Result<()> {
        let sample = Sample {
            measure: self.name,
            subject,
            unit: self.unit,
            why: value.as_ref().err().map(|why| format!("{why:#}")),
            value: value.ok(),
        };
        println!("{}", serde_json::to_string(&sample)?);
        Ok(())
    }
}

/// A number of what was measured: its name, its unit, and how it is had.
pub type Number<'a, T> = (&'a str, &'a str, &'a dyn Fn(&T) -> f64);

/// Prints the numbers of what was measured of a subject; or why there are none.
pub fn print_all<T>(subject: &str, measured: Result<T>, numbers: &[Number<'_, T>]) -> Result<()> {
    let measured = measured.map_err(|why| format!("{why:#}"));
    for &(name, unit, number) in numbers {
        let value = measured
            .as_ref()
            .map(number)
            .map_err(|why| anyhow!("{why}"));
        Measure { name, unit }.print(subject, value)?;
    }
    Ok(())
}

/// Bytes as MiB.
pub fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}
