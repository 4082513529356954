//! Renders Helm charts with Helm's own code: a build of PyPI that runs inside a Python process.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Result;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::python;

/// The program that calls Helm.
const PROGRAM: &str = include_str!("helm.py");

/// What Helm makes of a chart.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub enum Answer {
    /// Why it refuses the values.
    Refused {
        /// The reason.
        refused: String,
    },
    /// What it renders.
    Rendered(Rendered),
}

/// A rendered chart.
#[derive(Debug, Deserialize)]
pub struct Rendered {
    /// What `helm lint --strict` finds wrong.
    pub lint: Vec<String>,
    /// The text of each template, by its path.
    pub manifests: BTreeMap<String, String>,
    /// The object of each template, by the template's path.
    pub objects: BTreeMap<String, Value>,
}

/// Renders a chart as a release `kaprobe` in a namespace `kaprobe`.
///
/// # Errors
/// If Helm is not installed, or can't be run.
pub fn render(chart: &Path, values: &Value) -> Result<Answer> {
    let request =
        json!({ "chart": chart, "values": values, "name": "kaprobe", "namespace": "kaprobe" });
    python::ask(PROGRAM, &["helm_python"], &request)
}
