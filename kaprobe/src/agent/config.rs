//! The file of settings, which is read at the start and on SIGHUP.
//!
//! Its keys are the names of flags, and their values are checked as those of flags are.

use std::fs::OpenOptions;
use std::io::Read as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use rustix::fs::OFlags;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::agent::plan::{AgentSettings, record_filter};
use crate::cli::args::{AgentArgs, SocketArgs};
use crate::cli::{self, Command, FlagValue};
use crate::filter::RecordFilter;
use crate::text::escape::Escaped;

/// The longest file that is read, bytes.
const MAX_SIZE: u64 = 64 * 1024;

/// The keys, apart from filters.
const SETTINGS: [&str; 5] = ["idle-timeout", "behind", "loopback", "series", "interval"];

/// Whether the flags have a filter.
type IsGiven = fn(&SocketArgs) -> bool;

/// The keys that select connections.
const FILTERS: [(&str, IsGiven); 9] = [
    ("port", |it| !it.port.is_empty()),
    ("localport", |it| !it.localport.is_empty()),
    ("remoteport", |it| !it.remoteport.is_empty()),
    ("addr", |it| !it.addr.is_empty()),
    ("comm", |it| !it.comm.is_empty()),
    ("unit", |it| !it.unit.is_empty()),
    ("container", |it| !it.container.is_empty()),
    ("pod", |it| !it.pod.is_empty()),
    ("pod-namespace", |it| !it.pod_namespace.is_empty()),
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
        return join(given, "");
    };
    let joined = text(path).and_then(|text| join(given, &text));
    joined.with_context(|| format!("cannot use {}", Escaped::from_path(path)))
}

fn text(path: &Path) -> Result<String> {
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
    Ok(text)
}

/// The number of the line at this place.
fn line(text: &str, place: usize) -> usize {
    let before = text.get(..place).unwrap_or_default();
    before.matches('\n').count() + 1
}

/// What is wrong in a file that is no TOML, in one line.
fn syntax_error(text: &str, why: &toml::de::Error) -> anyhow::Error {
    let line = line(text, why.span().map_or(0, |it| it.start));
    let message = why.message().lines().collect::<Vec<_>>().join(", ");
    anyhow!("line {line}: {message}")
}

/// Joins the settings. What the file sets replaces the flag of the same name; timeouts are
/// replaced as a whole.
fn join(given: &AgentArgs, text: &str) -> Result<JoinedSettings> {
    let table = DeTable::parse(text).map_err(|why| syntax_error(text, &why))?;
    let table = table.get_ref();
    let file = as_args(text, table)?;
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
    let is_filtered = FILTERS.iter().any(|(key, _)| has(key));
    if is_filtered {
        let sockets = &mut args.filters.records.sockets;
        ensure!(
            !FILTERS.iter().any(|(_, is_given)| is_given(sockets)),
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

/// The settings of a file as arguments.
fn as_args(text: &str, table: &DeTable<'_>) -> Result<AgentArgs> {
    let mut flags = vec!["kaprobe".to_owned(), "agent".to_owned()];
    for (key, value) in table {
        let line = line(text, key.span().start);
        let own = setting(key.get_ref(), value).with_context(|| {
            let key = Escaped::from(key.get_ref().as_ref());
            format!("line {line}: {key}")
        })?;
        flags.extend(own);
    }
    let args = parse(flags)?;
    ensure!(
        args.timeouts.idle_timeout.is_none() || args.timeouts.behind.len() < 2,
        "idle-timeout goes with one value of behind only"
    );
    Ok(args)
}

/// A setting as flags that are good.
fn setting(key: &str, value: &Spanned<DeValue<'_>>) -> Result<Vec<String>> {
    let filters = FILTERS.iter().map(|(key, _)| *key);
    let known: Vec<_> = SETTINGS.into_iter().chain(filters).collect();
    let Some(of) = cli::flag_value("agent", key).filter(|_| known.contains(&key)) else {
        bail!("no such setting; there are {}", known.join(", "));
    };
    let mut flags = Vec::new();
    match (of, value.get_ref()) {
        (FlagValue::Nothing, DeValue::Boolean(true)) => flags.push(format!("--{key}")),
        (FlagValue::Nothing, DeValue::Boolean(false)) => {}
        (FlagValue::Nothing, other) => bail!("true or false is needed, not {}", kind(other)),
        (FlagValue::Many, DeValue::Array(values)) => {
            for value in values {
                flags.push(flag(key, value.get_ref())?);
            }
        }
        (_, value) => flags.push(flag(key, value)?),
    }
    let words = ["kaprobe", "agent"].map(str::to_owned);
    cli::check_values(words.into_iter().chain(flags.iter().cloned()))?;
    Ok(flags)
}

/// A flag with its value.
fn flag(key: &str, value: &DeValue<'_>) -> Result<String> {
    match value {
        DeValue::String(text) => Ok(format!("--{key}={text}")),
        DeValue::Integer(digits) => {
            let number = i128::from_str_radix(digits.as_str(), digits.radix());
            Ok(format!("--{key}={}", number.context("too large a number")?))
        }
        other => bail!("a text or a number is needed, not {}", kind(other)),
    }
}

/// What a value is that is not what it should be.
const fn kind(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a text",
        DeValue::Integer(_) => "a number",
        DeValue::Float(_) => "a number with a fraction",
        DeValue::Boolean(true) => "true",
        DeValue::Boolean(false) => "false",
        DeValue::Datetime(_) => "a time",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

fn parse(words: impl IntoIterator<Item = String>) -> Result<AgentArgs> {
    Ok(cli::parse_own(words, |command| match command {
        Command::Agent(args) => Some(*args),
        _ => None,
    })?)
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
        join(&given(flags)?, file)
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
        let alone = super::join(&given("--behind ipvs --netns a -P 80")?, "")?;
        assert_eq!(joined.settings.census, alone.settings.census);
        assert_eq!(joined.settings.series.get(), 9);
        assert_eq!(joined.settings.interval.as_secs(), 5);
        assert!(joined.filter.is_some());
        Ok(())
    }

    #[test]
    fn what_is_no_toml_is_named_in_one_line() {
        let why = joined("", "series = 7\n]]]][[\n").err();
        let why = why.map(|it| it.to_string());
        let why = why.unwrap_or_default();
        assert!(why.starts_with("line 2: "), "{why}");
        assert!(!why.contains('\n'), "{why}");
    }

    #[test]
    fn only_a_regular_file_is_read() -> Result<()> {
        let dir = tempfile::tempdir()?;
        let fifo = dir.path().join("fifo");
        let mode = Mode::RUSR | Mode::WUSR;
        rustix::fs::mknodat(rustix::fs::CWD, &fifo, FileType::Fifo, mode, 0)?;
        let why = text(&fifo).err().map(|it| it.to_string());
        assert_eq!(why.as_deref(), Some("not a regular file"));
        Ok(())
    }

    #[test]
    fn what_makes_no_sense_is_named() {
        for (flags, file, expected) in [
            (
                "",
                "sereis = 9",
                "line 1: sereis: no such setting; there are ",
            ),
            (
                "",
                "\ndir = '/tmp'",
                "line 2: dir: no such setting; there are ",
            ),
            ("", "\"a\\u001b\" = 1", "line 1: a\\u{1b}: no such setting"),
            (
                "",
                "series = 0",
                "line 1: series: '0': 0 is not in 1..=10000",
            ),
            ("", "series = -1", "line 1: series: '-1': "),
            (
                "",
                "series = 1.5",
                "line 1: series: a text or a number is needed, not a number with",
            ),
            (
                "",
                "series = [1]",
                "line 1: series: a text or a number is needed, not a list",
            ),
            (
                "",
                "# one\n# two\ninterval = 'soon'",
                "line 3: interval: 'soon': not a time span",
            ),
            (
                "",
                "interval = ['1s', '2s']",
                "line 1: interval: a text or a number is needed, not a list",
            ),
            (
                "",
                "idle-timeout = '0s'",
                "line 1: idle-timeout: '0s': the time is zero",
            ),
            (
                "",
                "behind = 'nothing'",
                "line 1: behind: 'nothing': none of ",
            ),
            ("", "behind = ['ipvs', '']", "line 1: behind: '': none of "),
            (
                "",
                "port = [1,\ntrue]",
                "line 1: port: a text or a number is needed, not true",
            ),
            (
                "",
                "port = [[80]]",
                "line 1: port: a text or a number is needed, not a list",
            ),
            (
                "",
                "port = { from = 1 }",
                "line 1: port: a text or a number is needed, not a table",
            ),
            ("", "port = 0x1FFFF", "line 1: port: '131071': "),
            ("", "port = ''", "line 1: port: '': "),
            (
                "",
                "loopback = 1",
                "line 1: loopback: true or false is needed, not a number",
            ),
            ("", "comm = ''", "line 1: comm: '': an empty name"),
            (
                "",
                "pod = 'a/'",
                "line 1: pod: 'a/': neither NAME nor NAMESPACE/NAME",
            ),
            (
                "",
                "addr = 1979-05-27",
                "line 1: addr: a text or a number is needed, not a time",
            ),
            (
                "",
                "[port]\na = 1",
                "line 1: port: a text or a number is needed, not a table",
            ),
            ("", "series = 1\nseries = 2", "line 2: duplicate key"),
            (
                "",
                "idle-timeout = '1m'\nbehind = ['ipvs', 'aws-nlb']",
                "idle-timeout goes with one value of behind only",
            ),
            (
                "-P 80",
                "port = 90",
                "filters stand on the command line or in the file",
            ),
        ] {
            let why = joined(flags, file).err();
            let why = why.map(|it| format!("{it:#}")).unwrap_or_default();
            assert!(why.starts_with(expected), "{file}: {why}");
            assert!(!why.contains('\n') && !why.contains("--"), "{file}: {why}");
        }
    }
}
