//! The file of settings, which is read at the start and on SIGHUP.
//!
//! Its keys are the names of flags, and their values are checked as those of flags are.

use std::fs::OpenOptions;
use std::io::Read as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use rustix::fs::OFlags;
use toml::{Table, Value};

use crate::agent::plan::{AgentSettings, record_filter};
use crate::cli::args::{AgentArgs, SocketArgs};
use crate::cli::{self, Command};
use crate::filter::RecordFilter;
use crate::text::escape::Escaped;

/// The longest file that is read, bytes.
const MAX_SIZE: u64 = 64 * 1024;

/// The keys, apart from filters.
const SETTINGS: [&str; 5] = ["idle-timeout", "behind", "loopback", "series", "interval"];

/// The keys that select connections.
const FILTERS: [&str; 9] = [
    "port",
    "localport",
    "remoteport",
    "addr",
    "comm",
    "unit",
    "container",
    "pod",
    "pod-namespace",
];

/// The settings of the command line and of a file, joined.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct JoinedSettings {
    pub(super) settings: AgentSettings,
    /// The records that the file lets pass; `None` for all.
    pub(super) filter: Option<RecordFilter>,
}

/// The settings of the command line, and of a file if there is one.
///
/// # Errors
/// If the file can't be read, or has what makes no sense.
pub(super) fn read(given: &AgentArgs) -> Result<JoinedSettings> {
    let Some(path) = &given.config else {
        return join(given, &Table::new());
    };
    let table = table(path).and_then(|table| join(given, &table));
    table.with_context(|| format!("cannot use {}", Escaped::from_path(path)))
}

fn table(path: &Path) -> Result<Table> {
    let mut text = String::new();
    // A FIFO without a writer would wait.
    let flags = OFlags::NONBLOCK.bits().cast_signed();
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(flags)
        .open(path)?;
    ensure!(file.metadata()?.is_file(), "not a regular file");
    file.take(MAX_SIZE + 1).read_to_string(&mut text)?;
    ensure!(
        text.len() as u64 <= MAX_SIZE,
        "longer than {MAX_SIZE} bytes"
    );
    text.parse().map_err(|why| syntax_error(&text, &why))
}

/// What is wrong in a file that is no TOML, in one line.
fn syntax_error(text: &str, why: &toml::de::Error) -> anyhow::Error {
    let before = why.span().and_then(|span| text.get(..span.start));
    let line = before.map_or(1, |it| it.matches('\n').count() + 1);
    let message = why.message().lines().collect::<Vec<_>>().join(", ");
    anyhow!("line {line}: {message}")
}

/// Joins the settings. What the file sets replaces the flag of the same name; timeouts are
/// replaced as a whole.
fn join(given: &AgentArgs, table: &Table) -> Result<JoinedSettings> {
    let file = as_args(table)?;
    let has = |key: &str| table.contains_key(key);
    let mut args = given.clone();
    if has("idle-timeout") || has("behind") {
        args.timeouts = file.timeouts;
    }
    if has("series") {
        args.series = file.series;
    }
    if has("interval") {
        args.interval = file.interval;
    }
    args.loopback |= file.loopback;
    let own = file.filters.records.sockets;
    let is_filtered = FILTERS.iter().any(|key| has(key));
    if is_filtered {
        let sockets = &mut args.filters.records.sockets;
        ensure!(
            !selects(sockets),
            "filters stand on the command line or in the file, not in both"
        );
        *sockets = SocketArgs {
            netns: sockets.netns.clone(),
            pid: sockets.pid.clone(),
            ..own
        };
    }
    Ok(JoinedSettings {
        settings: AgentSettings::new(&args)?,
        filter: is_filtered.then(|| record_filter(&args.filters.records.sockets)),
    })
}

/// Whether one of the filters is given that a file may have.
fn selects(args: &SocketArgs) -> bool {
    let ports = [&args.port, &args.localport, &args.remoteport];
    let names = [&args.comm, &args.unit, &args.container, &args.pod_namespace];
    ports.iter().any(|it| !it.is_empty())
        || names.iter().any(|it| !it.is_empty())
        || !(args.addr.is_empty() && args.pod.is_empty())
}

/// The settings of a file as arguments.
fn as_args(table: &Table) -> Result<AgentArgs> {
    let mut flags = vec!["kaprobe".to_owned(), "agent".to_owned()];
    for (key, value) in table {
        if !SETTINGS.contains(&key.as_str()) && !FILTERS.contains(&key.as_str()) {
            let known = [&SETTINGS[..], &FILTERS].concat().join(", ");
            bail!(
                "no such setting: {}; there are {known}",
                Escaped::from(key.as_str())
            );
        }
        push(&mut flags, key, value)?;
    }
    parse(flags)
}

fn parse(words: impl IntoIterator<Item = String>) -> Result<AgentArgs> {
    Ok(cli::parse_own(words, |command| match command {
        Command::Agent(args) => Some(*args),
        _ => None,
    })?)
}

fn push(flags: &mut Vec<String>, key: &str, value: &Value) -> Result<()> {
    match value {
        Value::String(text) => flags.push(format!("--{key}={text}")),
        Value::Integer(number) => flags.push(format!("--{key}={number}")),
        Value::Boolean(true) => flags.push(format!("--{key}")),
        Value::Boolean(false) => {}
        Value::Array(values) => {
            for value in values {
                ensure!(!value.is_array(), "{key}: a list in a list");
                push(flags, key, value)?;
            }
        }
        _ => bail!("{key}: a text, a number, true, false or a list of these is needed"),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::{FileType, Mode};

    fn given(flags: &str) -> Result<AgentArgs> {
        let words = ["kaprobe", "agent"]
            .into_iter()
            .chain(flags.split_whitespace());
        parse(words.map(str::to_owned))
    }

    fn joined(flags: &str, file: &str) -> Result<JoinedSettings> {
        join(&given(flags)?, &file.parse()?)
    }

    #[test]
    fn a_file_says_what_flags_say() -> Result<()> {
        for (flags, file) in [
            ("--idle-timeout 350s", "idle-timeout = '350s'"),
            ("--behind aws-nlb,ipvs", "behind = ['aws-nlb', 'ipvs']"),
            ("--series 7 --interval 5s", "series = 7\ninterval = '5s'"),
            ("--loopback", "loopback = true"),
            ("", "loopback = false"),
            (
                "-P 80,90-92 --unit a.service --pod-namespace b,c -L 1 -D 2 --addr 10.0.0.0/8 --comm nginx",
                "port = [80, '90-92']\nunit = 'a.service'\npod-namespace = ['b', 'c']\nlocalport = 1\nremoteport = 2\naddr = '10.0.0.0/8'\n\
                 comm = ['nginx']",
            ),
        ] {
            let by_flags = joined(flags, "")?;
            assert_eq!(joined("", file)?.settings, by_flags.settings, "{file}");
        }
        Ok(())
    }

    #[test]
    fn a_file_replaces_flags() -> Result<()> {
        let flags = "--idle-timeout 350s --series 7 --interval 5s --netns a";
        let joined = joined(flags, "behind = 'ipvs'\nseries = 9\nport = 80")?;
        let alone = super::join(&given("--behind ipvs --netns a -P 80")?, &Table::new())?;
        assert_eq!(joined.settings.census, alone.settings.census);
        assert_eq!(joined.settings.series.get(), 9);
        assert_eq!(joined.settings.interval.as_secs(), 5);
        assert!(joined.filter.is_some());
        Ok(())
    }

    #[test]
    fn what_is_no_toml_is_named_in_one_line() -> Result<()> {
        let file = tempfile::NamedTempFile::new()?;
        std::fs::write(file.path(), "series = 7\n]]]][[\n")?;
        let why = table(file.path()).err().map(|it| it.to_string());
        let why = why.unwrap_or_default();
        assert!(why.starts_with("line 2: "), "{why}");
        assert!(!why.contains('\n'), "{why}");
        Ok(())
    }

    #[test]
    fn only_a_regular_file_is_read() -> Result<()> {
        let dir = tempfile::tempdir()?;
        let fifo = dir.path().join("fifo");
        let mode = Mode::RUSR | Mode::WUSR;
        rustix::fs::mknodat(rustix::fs::CWD, &fifo, FileType::Fifo, mode, 0)?;
        let why = table(&fifo).err().map(|it| it.to_string());
        assert_eq!(why.as_deref(), Some("not a regular file"));
        Ok(())
    }

    #[test]
    fn what_makes_no_sense_is_named() {
        for (flags, file, part) in [
            ("", "sereis = 9", "no such setting: sereis"),
            ("", "dir = '/tmp'", "no such setting: dir"),
            ("", "series = 0", "--series"),
            ("", "interval = 'soon'", "--interval"),
            ("", "behind = 'nothing'", "--behind"),
            ("", "port = [[80]]", "a list in a list"),
            ("", "series = 1.5", "a text, a number"),
            ("-P 80", "port = 90", "not in both"),
        ] {
            let why = joined(flags, file).err();
            let why = why.map(|it| format!("{it:#}")).unwrap_or_default();
            assert!(why.contains(part), "{file}: {why}");
            assert!(!why.contains('\n'), "{file}: {why}");
        }
    }
}
