//! Prints samples for `cargo xtask bench`: one JSON object per measurement.

use anyhow::{Result, anyhow};
use serde::Serialize;

/// A quantity that is measured for several subjects.
#[derive(Clone, Copy)]
pub struct Measure<'a> {
    /// The name, with the way to attach if that matters.
    pub name: &'a str,
    /// The unit of the numbers.
    pub unit: &'a str,
}

#[derive(Serialize)]
struct Sample<'a> {
    measure: &'a str,
    subject: &'a str,
    unit: &'a str,
    /// The number, or `None` if the measurement failed.
    value: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<String>,
}

impl Measure<'_> {
    /// Prints the number of a subject, or the reason why there is none.
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

/// The name and the unit of a number, and a function that reads it from a result.
pub type Number<'a, T> = (&'a str, &'a str, &'a dyn Fn(&T) -> f64);

/// Prints the numbers of a subject's result, or the reason why there are none.
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

/// Converts bytes to MiB.
pub fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}
