//! Holds lines that a test makes to the published schemas.

use std::sync::LazyLock;

use jsonschema::Validator;
use serde_json::Value;

/// The schema of a line of a log, as it is published.
pub const SCHEMA: &str = include_str!("../../schema/kaprobe-log.schema.json");

static VALIDATOR: LazyLock<Result<Validator, String>> = LazyLock::new(|| validator(SCHEMA));

/// What holds lines to a schema.
///
/// # Errors
/// Says why it is no schema.
pub fn validator(schema: &str) -> Result<Validator, String> {
    let schema = serde_json::from_str(schema).map_err(|why| why.to_string())?;
    jsonschema::draft202012::options()
        .should_validate_formats(true)
        .build(&schema)
        .map_err(|why| why.to_string())
}

/// Checks a line.
///
/// # Errors
/// Says what is wrong with it, all of it.
pub fn check(validator: &Validator, line: &str) -> Result<Value, String> {
    let value: Value = serde_json::from_str(line).map_err(|why| format!("{why}: {line}"))?;
    let wrong: Vec<_> = validator
        .iter_errors(&value)
        .map(|why| format!("{why:?}"))
        .collect();
    if wrong.is_empty() {
        return Ok(value);
    }
    Err(format!("{}\nin {line}", wrong.join("\n")))
}

/// Checks a line of a log.
///
/// # Errors
/// Says what is wrong with it, all of it.
pub fn check_line(line: &str) -> Result<Value, String> {
    check(VALIDATOR.as_ref().map_err(Clone::clone)?, line)
}

/// Checks a log: a header, then records. Gives the records.
///
/// # Errors
/// Says what is wrong with the first bad line.
pub fn check_log(log: &str) -> Result<Vec<Value>, String> {
    let mut values = log.lines().map(check_line);
    let first = values
        .next()
        .unwrap_or_else(|| Err("no header".to_owned()))?;
    if first.get("header").is_none() {
        return Err(format!("the first line is no header: {first}"));
    }
    let records: Vec<_> = values.collect::<Result<_, _>>()?;
    match records.iter().find(|record| record.get("header").is_some()) {
        Some(header) => Err(format!("a header among the records: {header}")),
        None => Ok(records),
    }
}
