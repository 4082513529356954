//! Runs SQL in ClickHouse and DuckDB: the builds of PyPI that run inside a Python process.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::python;

/// The program that runs the statements.
const PROGRAM: &str = include_str!("database.py");

/// A database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Engine {
    /// ClickHouse.
    ClickHouse,
    /// DuckDB.
    DuckDb,
}

/// The answer to a text of SQL.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Answer {
    /// How long it took.
    pub seconds: f64,
    /// The rows of the last statement.
    pub rows: Vec<Vec<Value>>,
}

impl Engine {
    /// Runs texts of SQL one after the other, in an empty database. Each has a name, by which
    /// its answer is found.
    ///
    /// # Errors
    /// If a statement fails, or the database is not installed.
    pub fn run(self, texts: &[(&str, String)]) -> Result<BTreeMap<String, Answer>> {
        let engine = match self {
            Self::ClickHouse => "clickhouse",
            Self::DuckDb => "duckdb",
        };
        let request = json!({ "engine": engine, "run": texts });
        python::ask(PROGRAM, &["duckdb", "chdb"], &request).with_context(|| engine)
    }
}
