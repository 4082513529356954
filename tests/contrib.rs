//! `contrib/` has every field of a record, and no other.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use kaprobe_testkit::schema::SCHEMA;
use serde_json::{Value, json};

type Fields = BTreeMap<String, Value>;

fn contrib(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../contrib")
        .join(path)
}

fn read(path: &str) -> Result<String, String> {
    let path = contrib(path);
    fs::read_to_string(&path).map_err(|why| format!("{}: {why}", path.display()))
}

fn read_json(path: &str) -> Result<Value, String> {
    serde_json::from_str(&read(path)?).map_err(|why| format!("{path}: {why}"))
}

/// The fields of a record, by the schema.
fn fields() -> Result<Fields, String> {
    fields_of(SCHEMA, "/$defs/record/properties")
}

/// The columns of the table of sockets: the host, and the fields of a socket by the schema.
fn socket_fields() -> Result<Fields, String> {
    let schema = include_str!("../schema/kaprobe-sockets.schema.json");
    let mut fields = fields_of(schema, "/properties")?;
    fields.insert("host".to_owned(), json!({ "type": "string" }));
    Ok(fields)
}

fn fields_of(schema: &str, place: &str) -> Result<Fields, String> {
    let schema: Value = serde_json::from_str(schema).map_err(|why| why.to_string())?;
    let fields = schema.pointer(place);
    let fields = fields.and_then(Value::as_object).ok_or("no fields")?;
    Ok(fields.clone().into_iter().collect())
}

/// What a value of a field is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Time,
    Address,
    Number,
    Numbers,
    /// The processes that hold a socket.
    Owners,
    Bool,
    Text,
}

fn kind(name: &str, field: &Value) -> Kind {
    let refers = field["$ref"].as_str().unwrap_or_default();
    let to = refers.rsplit('/').next().unwrap_or_default();
    match (to, field["type"].as_str().unwrap_or_default()) {
        ("time", _) => Kind::Time,
        ("address", _) => Kind::Address,
        _ if field["items"]["type"] == "object" => Kind::Owners,
        ("ages", _) | (_, "array") => Kind::Numbers,
        ("whole" | "count" | "ms" | "port" | "u32", _) | (_, "integer") => Kind::Number,
        (_, "boolean") => Kind::Bool,
        _ if field["const"] == true => Kind::Bool,
        (to, of) => {
            let is_text = of == "string" || !to.is_empty();
            assert!(
                is_text || field["enum"].is_array() || field["const"].is_string(),
                "{name}"
            );
            Kind::Text
        }
    }
}

/// The columns of a table of ClickHouse, with their types: `    name Type,`, before the aliases.
fn clickhouse_columns(schema: &str, table: &str) -> Result<Vec<(String, String)>, String> {
    let table = schema
        .split(&format!("{table}\n(\n"))
        .nth(1)
        .ok_or("no table")?;
    let table = table.split("\n\n").next().ok_or("no end")?;
    let column = |line: &str| {
        let (name, kind) = line.trim().trim_end_matches(',').split_once(' ')?;
        let kind = kind.split(" CODEC").next()?;
        Some((name.trim_matches('`').to_owned(), kind.to_owned()))
    };
    table
        .lines()
        .map(|line| column(line).ok_or(format!("no column: {line}")))
        .collect()
}

/// The columns of DuckDB, with their types: `name: 'TYPE'`.
fn duckdb_columns(schema: &str) -> Result<Vec<(String, String)>, String> {
    let columns = schema.split("columns = {\n").nth(1).ok_or("no columns")?;
    let columns = columns.split("        })").next().ok_or("no end")?;
    let column = |line: &str| {
        let (name, kind) = line.trim().trim_end_matches(',').split_once(": ")?;
        Some((
            name.trim_matches('"').to_owned(),
            kind.trim_matches('\'').to_owned(),
        ))
    };
    let lines = columns.lines().filter(|line| !line.trim().is_empty());
    lines
        .map(|line| column(line).ok_or(format!("no column: {line}")))
        .collect()
}

/// Checks that the columns are the fields, and of their types.
fn check(
    columns: &[(String, String)],
    fields: &Fields,
    is: impl Fn(Kind, &str) -> bool,
) -> Result<(), String> {
    let names: BTreeSet<_> = columns.iter().map(|(name, _)| name).collect();
    let expected: BTreeSet<_> = fields.keys().collect();
    let differing: Vec<_> = names.symmetric_difference(&expected).collect();
    if !differing.is_empty() || names.len() != columns.len() {
        return Err(format!("columns and fields differ: {differing:?}"));
    }
    let wrong = columns
        .iter()
        .filter(|(name, of)| !is(kind(name, &fields[name]), of));
    match wrong.collect::<Vec<_>>().as_slice() {
        [] => Ok(()),
        wrong => Err(format!("other types than the schema's: {wrong:?}")),
    }
}

#[test]
fn clickhouse_has_a_column_for_each_field() -> Result<(), String> {
    for (file, table, fields) in [
        ("clickhouse/schema.sql", "kaprobe.records", fields()?),
        (
            "clickhouse/sockets.sql",
            "kaprobe.sockets",
            socket_fields()?,
        ),
    ] {
        let columns = clickhouse_columns(&read(file)?, table)?;
        check(&columns, &fields, is_clickhouse)?;
    }
    Ok(())
}

fn is_clickhouse(kind: Kind, of: &str) -> bool {
    // What the key has is never NULL.
    match kind {
        Kind::Time => of == "DateTime64(9, 'UTC')",
        Kind::Address => of == "IPv6",
        Kind::Numbers => of == "Array(UInt64)",
        Kind::Bool => of == "Nullable(Bool)",
        Kind::Text => of == "String" || of == "LowCardinality(String)",
        Kind::Number => {
            let inner = of
                .strip_prefix("Nullable(")
                .and_then(|it| it.strip_suffix(')'));
            ["UInt8", "UInt16", "UInt32", "UInt64"].contains(&inner.unwrap_or(of))
        }
        Kind::Owners => of == "Array(Tuple(pid UInt32, comm String, fd UInt32))",
    }
}

#[test]
fn duckdb_has_a_column_for_each_field() -> Result<(), String> {
    let columns = duckdb_columns(&read("duckdb/schema.sql")?)?;
    check(&columns, &fields()?, is_duckdb)?;
    let mut sockets = duckdb_columns(&read("duckdb/sockets.sql")?)?;
    // The name of the file has it.
    sockets.push(("host".to_owned(), "VARCHAR".to_owned()));
    check(&sockets, &socket_fields()?, is_duckdb)
}

fn is_duckdb(kind: Kind, of: &str) -> bool {
    match kind {
        Kind::Time => of == "TIMESTAMP_NS",
        Kind::Address | Kind::Text => of == "VARCHAR",
        Kind::Numbers => of == "UBIGINT[]",
        Kind::Bool => of == "BOOLEAN",
        Kind::Number => ["UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT"].contains(&of),
        Kind::Owners => of == "STRUCT(pid UINTEGER, comm VARCHAR, fd UINTEGER)[]",
    }
}

/// Where the pipeline puts the fields that ECS has a name for.
fn renamed(pipeline: &Value) -> Vec<(String, String)> {
    let processors = pipeline["processors"].as_array();
    let renames = processors
        .into_iter()
        .flatten()
        .filter_map(|it| it.get("rename"));
    let names = renames.filter_map(|it| {
        let from = it["field"].as_str()?.strip_prefix("kaprobe.")?;
        Some((from.to_owned(), it["target_field"].as_str()?.to_owned()))
    });
    names.collect()
}

#[test]
fn elastic_has_a_type_for_each_field() -> Result<(), String> {
    let renamed = renamed(&read_json("elastic/ingest-pipeline.json")?);
    let template = read_json("elastic/index-template.json")?;
    let properties = &template["template"]["mappings"]["properties"];
    for (name, field) in fields()? {
        let path = match renamed.iter().find(|(from, _)| *from == name) {
            Some((_, to)) => format!("/{}", to.replace('.', "/properties/")),
            None if name == "time" => "/@timestamp".to_owned(),
            None => format!("/kaprobe/properties/{name}"),
        };
        let of = properties.pointer(&path).and_then(|it| it["type"].as_str());
        let fits = match kind(&name, &field) {
            Kind::Time => of == Some("date_nanos"),
            Kind::Address => of == Some("ip"),
            // ECS has the uid as a keyword.
            Kind::Number if name == "uid" => of == Some("keyword"),
            Kind::Number | Kind::Numbers => matches!(of, Some("long" | "unsigned_long")),
            Kind::Bool => of == Some("boolean"),
            Kind::Text => matches!(of, Some("keyword" | "text")),
            Kind::Owners => false,
        };
        assert!(fits, "{name} at {path}: {of:?}");
    }
    let names = fields()?;
    let own = properties["kaprobe"]["properties"]
        .as_object()
        .ok_or("no properties")?;
    let unknown = own.keys().chain(renamed.iter().map(|(from, _)| from));
    let unknown: Vec<_> = unknown.filter(|it| !names.contains_key(*it)).collect();
    assert!(unknown.is_empty(), "no fields: {unknown:?}");
    Ok(())
}

/// A label makes a stream for each of its values, so none may have many.
#[test]
fn loki_has_few_labels() -> Result<(), String> {
    let loki = read_json("loki/fields.json")?;
    let names = |key: &str| -> Vec<_> {
        let names = loki[key].as_array().into_iter().flatten();
        names.filter_map(Value::as_str).collect()
    };
    let fields = fields()?;
    let (labels, metadata) = (names("labels"), names("structured_metadata"));
    assert_eq!(labels, ["host", "event"]);
    assert!(metadata.contains(&"community_id"), "{metadata:?}");
    for name in labels
        .iter()
        .chain(&metadata)
        .copied()
        .chain(loki["timestamp"].as_str())
    {
        assert!(fields.contains_key(name), "{name} is no field");
    }
    Ok(())
}

#[test]
fn both_databases_have_the_same_questions() -> Result<(), String> {
    let names = |folder: &str| -> Result<BTreeSet<_>, String> {
        let entries = fs::read_dir(contrib(folder)).map_err(|why| format!("{folder}: {why}"))?;
        Ok(entries
            .filter_map(|it| Some(it.ok()?.file_name()))
            .collect())
    };
    let (ours, theirs) = (names("clickhouse/questions")?, names("duckdb/questions")?);
    assert!(ours.len() >= 5 && ours == theirs, "{ours:?}, {theirs:?}");
    Ok(())
}

/// The components that a configuration of Vector has of a kind: `sources`, `transforms`, `sinks`.
fn components<'a>(vector: &'a toml::Table, kind: &str) -> Result<&'a toml::Table, String> {
    let components = vector.get(kind).and_then(toml::Value::as_table);
    components.ok_or_else(|| format!("no {kind}"))
}

#[test]
fn vector_inserts_into_the_table_of_lines() -> Result<(), String> {
    let text = read("vector/kaprobe.toml")?;
    let vector: toml::Table = text.parse().map_err(|why| format!("{why}"))?;
    let names = ["sources", "transforms"].map(|kind| components(&vector, kind));
    let names: BTreeSet<_> = names
        .into_iter()
        .collect::<Result<Vec<_>, _>>()?
        .into_iter()
        .flat_map(|it| it.keys())
        .collect();
    for kind in ["transforms", "sinks"] {
        for (name, component) in components(&vector, kind)? {
            let inputs = component.get("inputs").and_then(toml::Value::as_array);
            let inputs = inputs.ok_or_else(|| format!("{name} has no inputs"))?;
            for input in inputs.iter().filter_map(toml::Value::as_str) {
                assert!(names.contains(&input.to_owned()), "{name} reads {input}");
            }
        }
    }
    let sink = &components(&vector, "sinks")?["kaprobe_clickhouse"];
    let said = |key: &str| sink.get(key).and_then(toml::Value::as_str);
    let table = [said("database"), said("table")].map(Option::unwrap_or_default);
    let creates = format!("CREATE TABLE IF NOT EXISTS {} ", table.join("."));
    assert!(
        read("clickhouse/schema.sql")?.contains(&creates),
        "{table:?}"
    );
    // What `load.sql` needs to read the same lines.
    let load = read("clickhouse/load.sql")?;
    for (setting, key) in [
        (
            "date_time_input_format = 'best_effort'",
            "date_time_best_effort",
        ),
        (
            "input_format_skip_unknown_fields = 1",
            "skip_unknown_fields",
        ),
    ] {
        assert!(load.contains(setting), "{setting}");
        assert_eq!(sink.get(key), Some(&toml::Value::Boolean(true)), "{key}");
    }
    Ok(())
}

/// The command in a configuration that writes the log: one that this kaprobe takes.
fn command_of(text: &str) -> Result<&str, String> {
    let command = text
        .split_once("On each host: kaprobe ")
        .ok_or("no command")?;
    let command = command.1.lines().next().unwrap_or_default();
    let words = std::iter::once("kaprobe").chain(command.split(' '));
    kaprobe::cli::parse(words).map_err(|why| why.to_string())?;
    Ok(command)
}

#[test]
fn syslog_ng_reads_the_log_that_a_trace_writes() -> Result<(), String> {
    let text = read("syslog-ng/kaprobe.conf")?;
    let file = text
        .split("file(\"")
        .nth(1)
        .and_then(|it| it.split('"').next());
    let file = file.ok_or("no file")?;
    assert!(
        command_of(&text)?.contains(&format!("-o {file} ")),
        "{file}"
    );
    Ok(())
}

#[test]
fn vector_reads_the_log_that_a_trace_writes() -> Result<(), String> {
    let text = read("vector/kaprobe.toml")?;
    let command = command_of(&text)?;
    let vector: toml::Table = text.parse().map_err(|why| format!("{why}"))?;
    let files = components(&vector, "sources")?["kaprobe_log"]["include"].as_array();
    let files = files
        .ok_or("no files")?
        .iter()
        .filter_map(toml::Value::as_str);
    for file in files {
        assert!(command.contains(&format!("-o {file} ")), "{file}");
    }
    Ok(())
}
