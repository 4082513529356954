//! Runs SQL in ClickHouse and DuckDB: the builds of PyPI that run inside a Python process.

use std::collections::BTreeMap;
use std::env;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::Stdio;

use anyhow::{Context as _, Result, ensure};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::harness::Skip;
use crate::package;

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
        let python = package::tree("python3-pip")?;
        let mut command = package::beside_host("python3-pip", "usr/bin/python3")?;
        let mut child = command
            .args(["-c", PROGRAM])
            .env("PYTHONHOME", python.join("usr"))
            .env("PYTHONPATH", packages()?)
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .env("TZ", "UTC")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("start Python")?;
        let request = json!({ "engine": engine, "run": texts }).to_string();
        let mut stdin = child.stdin.take().context("no stdin")?;
        // It reads all of it before it writes.
        stdin.write_all(request.as_bytes())?;
        drop(stdin);
        let output = child.wait_with_output()?;
        let stderr = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{engine}: {stderr}");
        let text = String::from_utf8_lossy(&output.stdout);
        serde_json::from_str(&text).with_context(|| format!("{engine}: {text}"))
    }
}

/// Where `cargo xtask` has installed the databases.
fn packages() -> Result<PathBuf> {
    let packages = env::var_os("KAPROBE_PYPI").map(PathBuf::from);
    let found = packages.filter(|it| it.join("duckdb").is_dir() && it.join("chdb").is_dir());
    found.ok_or_else(|| {
        Skip("no ClickHouse and DuckDB here: `cargo xtask test` fetches them".to_owned()).into()
    })
}
