//! Checks lines against the published JSON schemas.

use std::sync::LazyLock;

use jsonschema::Validator;
use serde_json::Value;

/// The published schema of a log line.
pub const SCHEMA: &str = include_str!("../../schema/kaprobe-log.schema.json");

static VALIDATOR: LazyLock<Result<Validator, String>> = LazyLock::new(|| validator(SCHEMA));

/// Compiles a schema.
///
/// # Errors
/// The text is not a valid schema.
pub fn validator(schema: &str) -> Result<Validator, String> {
    let schema = serde_json::from_str(schema).map_err(|why| why.to_string())?;
    jsonschema::draft202012::options()
        .should_validate_formats(true)
        .build(&schema)
        .map_err(|why| why.to_string())
}

/// Parses a line and checks it against a schema.
///
/// # Errors
/// Lists everything that is wrong with the line.
pub fn check(validator: &Validator, line: &str) -> Result<Value, String> {
    let value: Value = serde_json::from_str(line).map_err(|why| format!("{why}: {line}"))?;
    let errors: Vec<_> = validator
        .iter_errors(&value)
        .map(|why| format!("{why:?}"))
        .collect();
    if errors.is_empty() {
        return Ok(value);
    }
    Err(format!("{}\nin {line}", errors.join("\n")))
}

/// Parses a log line and checks it against the schema.
///
/// # Errors
/// Lists everything that is wrong with the line.
pub fn check_line(line: &str) -> Result<Value, String> {
    check(VALIDATOR.as_ref().map_err(Clone::clone)?, line)
}

/// Checks a log: a header, then records, and a trailer if it has ended. Returns the
/// records.
///
/// # Errors
/// Describes the first bad line.
pub fn check_log(log: &str) -> Result<Vec<Value>, String> {
    let mut values = log.lines().map(check_line);
    let first = values
        .next()
        .unwrap_or_else(|| Err("no header".to_owned()))?;
    if first.get("header").is_none() {
        return Err(format!("the first line is not a header: {first}"));
    }
    let mut records: Vec<_> = values.collect::<Result<_, _>>()?;
    // The host's own idle timeouts have changed: no record.
    records.retain(|it| it.get("timeouts").is_none());
    let count = records.len() as u64;
    records.pop_if(|last| last.get("trailer").is_some());
    let is_record = |line: &Value| line.get("header").or(line.get("trailer")).is_none();
    if let Some(other) = records.iter().find(|line| !is_record(line)) {
        return Err(format!("among the records: {other}"));
    }
    match log.lines().last().map(check_line).transpose()? {
        Some(last)
            if last["trailer"]["records"]
                .as_u64()
                .is_some_and(|it| it + 1 != count) =>
        {
            Err(format!(
                "{count} records and trailers after the header: {last}"
            ))
        }
        _ => Ok(records),
    }
}
