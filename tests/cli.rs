//! Tests of the command line that need no privilege.

use std::collections::BTreeSet;
use std::error::Error;
use std::fs;
use std::process::{Command, Output};

use kaprobe_testkit::streams;

type TestResult = Result<(), Box<dyn Error>>;

/// Runs kaprobe in a new folder, and checks that it leaves no files there.
fn kaprobe(args: &[&str]) -> Result<Output, Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    let kaprobe = env!("CARGO_BIN_EXE_kaprobe");
    let output = Command::new(kaprobe)
        .args(args)
        .current_dir(folder.path())
        .output()?;
    let left: Vec<_> = folder.path().read_dir()?.collect::<Result<_, _>>()?;
    assert!(left.is_empty(), "{args:?} left {left:?}");
    Ok(output)
}

#[test]
fn the_version_names_the_commit() -> TestResult {
    let shown = String::from_utf8(kaprobe(&["--version"])?.stdout)?;
    let start = format!("kaprobe {} (", env!("CARGO_PKG_VERSION"));
    let commit = shown
        .strip_prefix(&start)
        .and_then(|it| it.strip_suffix(")\n"));
    let commit = commit.ok_or(format!("{shown:?}"))?;
    let hash = commit.strip_suffix("-dirty").unwrap_or(commit);
    let is_hash = hash.len() >= 12 && hash.bytes().all(|it| it.is_ascii_hexdigit());
    // An optimized build names the commit, where there is one.
    let is_known = matches!(commit, "debug build" | "unknown commit") || is_hash;
    assert!(is_known, "{shown}");
    assert_eq!(cfg!(debug_assertions), commit == "debug build", "{shown}");
    Ok(())
}

#[test]
fn bad_input_is_one_line_and_exit_code_2() -> TestResult {
    let nine = "1,2,3,4,5,6,7,8,9";
    let hosts: Vec<_> = (0..257)
        .map(|it| format!("10.0.{}.{}", it / 256, it % 256))
        .collect();
    let hosts = hosts.join(",");
    let rows: &[(&[&str], &str)] = &[
        (&[], "no command"),
        (&["trac"], "unrecognized subcommand 'trac'"),
        (
            &["trace", "--prot", "1"],
            "a similar argument exists: '--port'",
        ),
        (&["trace", "stray"], "unexpected argument 'stray'"),
        (&["trace", "-P"], "a value is required for '--port"),
        (&["trace", "-P", "http"], "invalid value 'http' for '--port"),
        (&["trace", "-P", "0"], "a port is a number from 1 to 65535"),
        (
            &["trace", "-L", "65536"],
            "invalid value '65536' for '--localport",
        ),
        (
            &["trace", "-D", "80-"],
            "invalid value '80-' for '--remoteport",
        ),
        (&["trace", "-P", "9-2"], "the range ends before it starts"),
        (&["trace", "-P", "80,,90"], "invalid value '' for '--port"),
        (
            &["trace", "--addr", "10.0.0.0/33"],
            "invalid value '10.0.0.0/33' for '--addr",
        ),
        (
            &["trace", "--addr", "example.org"],
            "neither an address nor a network",
        ),
        (
            &["trace", "-e", "nap"],
            "[possible values: default, all, probe,",
        ),
        (
            &["trace", "-4", "-6"],
            "'--ipv4' cannot be used with '--ipv6'",
        ),
        (&["trace", "-p", "0"], "not a whole number from 1"),
        (&["agent", "-e", "probe"], "agent counts every event"),
        (&["agent", "-c", "1"], "agent runs until it is told to end"),
        (&["agent", "-v"], "unexpected argument '-v'"),
        (&["record", "--dir", "a", "-v"], "unexpected argument '-v'"),
        (&["agent", "--max-size", "1GiB"], "--dir <DIR>"),
        (&["agent", "--segment-age", "1h"], "--dir <DIR>"),
        (&["agent", "--alive-interval", "1h"], "--dir <DIR>"),
        (
            &["agent", "--listen", "localhost:10977"],
            "not an IP address and a port such as 127.0.0.1:10977",
        ),
        (
            &["agent", "--listen", "::1:10977"],
            "0.0.0.0:10977 or [::1]:10977",
        ),
        (&["agent", "--idle-timeout", "0s"], "the time is zero"),
        (&["trace", "--comm="], "an empty name"),
        (&["trace", "--comm", "a,,b"], "an empty name"),
        (&["record", "--dir", "a", "--unit", ""], "an empty name"),
        (&["sockets", "--container", ""], "an empty name"),
        (&["audit", "--pod-namespace", ""], "an empty name"),
        (&["top", "--netns", ""], "an empty name"),
        (&["replay", "a", "--pod", ""], "neither NAME nor"),
        (&["trace", "--cgroup", ""], "a value is required for"),
        (
            &["trace", "--events", ""],
            "a value is required for '--events",
        ),
        (&["report", "a", "--port", ""], "invalid value ''"),
        (&["trace", "-p", "init"], "invalid value 'init' for '--pid"),
        // The largest process ID is below that.
        (&["trace", "-p", "4194305"], "no such process: 4194305"),
        (&["sockets", "-p", "4194305"], "no such process: 4194305"),
        (&["audit", "-p", "4194305"], "no such process: 4194305"),
        (&["top", "-p", "4194305"], "no such process: 4194305"),
        (
            &["record", "--dir", "/nonexistent", "-p", "4194305"],
            "no such process: 4194305",
        ),
        (&["trace", "-c", "0"], "invalid value '0' for '--count"),
        (
            &["trace", "--duration", "0s"],
            "invalid value '0s' for '--duration",
        ),
        (
            &["trace", "--duration", "soon"],
            "not a time span such as 30s",
        ),
        (
            &["trace", "--buffer-size", "0"],
            "invalid value '0' for '--buffer-size",
        ),
        (&["trace", "--buffer-size", "2GiB"], "more than 1GiB"),
        (
            &["trace", "--format", "xml"],
            "[possible values: digest, text, json, csv]",
        ),
        (
            &["trace", "--json", "--format", "csv"],
            "--json and --format disagree",
        ),
        (
            &["trace", "--time", "tea"],
            "invalid value 'tea' for '--time",
        ),
        (
            &["trace", "--attach", "magic"],
            "auto, fentry, kprobe, tracepoint",
        ),
        (&["trace", "-o", "log"], "no format goes by that extension"),
        (&["trace", "-o", "-"], "--output names a file"),
        (&["trace", "-o", "logs/"], "not the name of a file"),
        (&["trace", "--force"], "--output"),
        (&["record"], "--dir"),
        (
            &["record", "--dir", "d", "--max-size", "1000"],
            "--max-size is at least 1MiB",
        ),
        (
            &["record", "--dir", "d", "--alive-interval", "0s"],
            "the time is zero",
        ),
        (
            &["replay", "d", "--since", "2h"],
            "not before now: write -2h",
        ),
        (
            &["replay", "d", "--until", "yesterday"],
            "neither a time before now such as -2h",
        ),
        (
            &["replay", "d", "--since", "-1h", "--until", "-2h"],
            "--since is later than --until",
        ),
        (
            &[
                "audit",
                "--log",
                "d",
                "--since",
                "-1s",
                "--until",
                "2024-05-06T07:08",
            ],
            "--since is later than --until",
        ),
        (
            &["record", "--dir", "d", "--max-size", "99999EiB"],
            "more than a file can have",
        ),
        (
            &["audit", "--since", "-2h"],
            "--since and --until go with --log",
        ),
        (
            &["trace", "--netns", nine],
            "--netns takes at most 8 values, not 9",
        ),
        (
            &["trace", "--addr", &hosts],
            "--addr takes at most 256 values, not 257",
        ),
        (
            &["sockets", "--addr", &hosts],
            "--addr takes at most 256 values, not 257",
        ),
        (
            &["trace", "-o", "a.csv", "--ready-file", "a.csv"],
            "name the same file",
        ),
        (
            &["trace", "--no\u{1b}[2J\nsuch"],
            "unexpected argument '--no",
        ),
        (
            &["trace", "-o", "a\u{202e}\nb"],
            "--output a\\u{202e}\\nb: no format",
        ),
        (
            &["demo", "--attach", "x"],
            "invalid value 'x' for '--attach",
        ),
        (
            &["audit", "--behind", "aws"],
            "[possible values: aws-nlb, aws-gwlb,",
        ),
        (
            &["audit", "--behind", "ipvs,aws-nlb", "--idle-timeout", "5m"],
            "--idle-timeout goes with one --behind",
        ),
        (
            &["audit", "--log", "-", "--log", "-"],
            "standard input can be read only once",
        ),
        (
            &["sockets", "--state", "nap"],
            "none of ESTABLISHED, SYN_SENT",
        ),
        (&["sockets", "--watch"], "unexpected argument '--watch'"),
        (
            &["sockets", "--netns", "1", "--all-netns"],
            "cannot be used with",
        ),
        (
            &["top"],
            "standard output is not a terminal: write kaprobe sockets",
        ),
        (
            &[
                "report",
                "x",
                "--behind",
                "ipvs,aws-nlb",
                "--idle-timeout",
                "5m",
            ],
            "--idle-timeout goes with one --behind",
        ),
        (
            &["top", "--behind", "ipvs,aws-nlb", "--idle-timeout", "5m"],
            "--idle-timeout goes with one --behind",
        ),
        (
            &["top", "--interval=0s"],
            "invalid value '0s' for '--interval",
        ),
        (
            &["top", "--addr", &hosts],
            "--addr takes at most 256 values, not 257",
        ),
        (&["doctor", "--csv"], "unexpected argument '--csv'"),
        (
            &["explain", "idle_evicton"],
            "a similar value exists: 'idle_eviction'",
        ),
        (&["explain", "a\u{1b}[2Jb"], "invalid value"),
        (&["completions"], "<SHELL>"),
        (&["completions", "ksh"], "[possible values: bash,"),
        (
            &["sockets", "--group", "--sort", "pid"],
            "--group is sorted by count, or by --sort idle or dead",
        ),
        (
            &["sockets", "--group", "--state", "listen"],
            "a listener has no remote end",
        ),
        (
            &["audit", "--json", "--max-rows", "3"],
            "--max-rows goes with text only",
        ),
        (&["sockets", "--max-rows", "0"], "not a whole number from 1"),
    ];
    for (args, message) in rows {
        let output = kaprobe(args)?;
        let stderr = String::from_utf8(output.stderr)?;
        assert_eq!(output.status.code(), Some(2), "{args:?}: {stderr}");
        assert!(output.stdout.is_empty(), "{args:?}");
        assert!(
            stderr.starts_with("kaprobe: ") && stderr.contains(message),
            "{args:?}: {stderr}"
        );
        assert_eq!(stderr.lines().count(), 1, "{args:?}: {stderr}");
    }
    Ok(())
}

/// Commands that need no privilege; tests/kernel/manners.rs has the others.
#[test]
fn streams_that_are_closed_or_full_do_not_change_the_exit_code() -> TestResult {
    let log = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/golden/records.jsonl");
    let rows: &[(&[&str], i32, bool)] = &[
        (&["--help"], 0, true),
        (&["--version"], 0, true),
        (&["trace", "--help"], 0, true),
        (&["nonsense"], 2, false),
        (&["trace", "--port", "0"], 2, false),
        (&["demo", "--attach", "x"], 2, false),
        (&["audit", "--log", "/nonexistent.jsonl"], 1, false),
        (&["replay", "/nonexistent.jsonl"], 1, false),
        (&["replay", log], 0, true),
        (&["replay", "--json", "--quiet", log], 0, true),
        (&["replay", "--summary", log], 0, true),
        (&["explain"], 0, true),
        (&["explain", "zombie"], 0, true),
        (&["man"], 0, true),
        (&["completions", "zsh"], 0, true),
    ];
    for &(args, code, writes) in rows {
        let command = || {
            let mut command = Command::new(env!("CARGO_BIN_EXE_kaprobe"));
            command.args(args);
            command
        };
        streams::check(command, code, writes)?;
    }
    Ok(())
}

/// The commands, as the help lists them.
fn commands() -> Result<Vec<String>, Box<dyn Error>> {
    let help = String::from_utf8(kaprobe(&["--help"])?.stdout)?;
    let (_, list) = help.split_once("Commands:\n").ok_or("no commands")?;
    let lines = list.lines().take_while(|line| !line.is_empty());
    let rows = lines.filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    let names = rows.filter_map(|line| line.split_whitespace().next());
    Ok(names.map(str::to_owned).collect())
}

/// Help is wrapped between words at each width of a terminal, and only there.
#[test]
fn help_fits_each_terminal() -> TestResult {
    let mut all = vec![vec!["-h".to_owned()], vec!["--help".to_owned()]];
    for command in commands()?.into_iter().filter(|it| it != "help") {
        all.extend(["-h", "--help"].map(|it| vec![command.clone(), it.to_owned()]));
    }
    assert!(all.len() > 12, "{all:?}");
    for args in all {
        let mut words = Vec::new();
        for columns in [40, 80, 120] {
            let mut command = Command::new(env!("CARGO_BIN_EXE_kaprobe"));
            command
                .args(&args)
                .env_remove("COLUMNS")
                .env("NO_COLOR", "1");
            let shown = streams::shown_on_terminal(command, columns)?;
            for line in shown.lines() {
                let width = line.chars().count();
                let is_one_word = !line.trim().contains(' ');
                // A usage is one line, so that it can be copied.
                let is_usage = line.starts_with("Usage: ");
                let fits = width <= columns.into() || is_one_word || is_usage;
                assert!(fits, "{args:?} at {columns}: {line}");
            }
            words.push(shown.split_whitespace().collect::<Vec<_>>().join(" "));
        }
        words.dedup();
        assert_eq!(words.len(), 1, "{args:?}: {words:#?}");
    }
    Ok(())
}

/// The short help of a command fits a terminal of 24 lines.
#[test]
fn short_help_fits_a_screen() -> TestResult {
    for command in commands()?.into_iter().filter(|it| it != "help") {
        let help = String::from_utf8(kaprobe(&[&command, "-h"])?.stdout)?;
        assert!(help.lines().count() <= 24, "{help}");
        assert!(help.contains("--help has more, and examples"), "{help}");
        let help = String::from_utf8(kaprobe(&[&command, "--help"])?.stdout)?;
        let (_, examples) = help.rsplit_once("Examples:\n").ok_or("no examples")?;
        assert!(examples.contains(&format!("kaprobe {command}")), "{help}");
    }
    Ok(())
}

/// A real bash completes commands, flags and values by the script.
#[test]
fn bash_completes_flags() -> TestResult {
    let folder = tempfile::tempdir()?;
    let script = folder.path().join("kaprobe.bash");
    fs::write(&script, kaprobe(&["completions", "bash"])?.stdout)?;
    for (words, expected) in [
        ("kaprobe au", "audit"),
        ("kaprobe trace --remotep", "--remoteport"),
        ("kaprobe sockets --sort id", "idle"),
        ("kaprobe explain idle_ev", "idle_eviction"),
        ("kaprobe trace --events probe_c", "probe_congested"),
        ("kaprobe completions fi", "fish"),
    ] {
        // As bash does when the tab key is pressed: the command, the word, the one before.
        let complete = r#"source "$1"; COMP_WORDS=($2); COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
            $(complete -p kaprobe | sed 's/.*-F \([^ ]*\) .*/\1/') kaprobe \
                "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}"
            printf '%s\n' "${COMPREPLY[@]}""#;
        let output = Command::new("bash")
            .args(["--norc", "--noprofile", "-c", complete, "bash"])
            .arg(&script)
            .arg(words)
            .output()?;
        let stderr = String::from_utf8(output.stderr)?;
        assert_eq!(stderr, "", "{words}");
        let completed = String::from_utf8(output.stdout)?;
        assert_eq!(completed.trim(), expected, "{words}");
    }
    Ok(())
}

/// Pages are written to a folder, over older ones.
#[test]
fn man_writes_a_page_for_each_command() -> TestResult {
    let folder = tempfile::tempdir()?;
    let pages = folder.path().join("share/man1");
    let path = pages.to_str().ok_or("the path is not UTF-8")?;
    for _ in 0..2 {
        let output = kaprobe(&["man", path])?;
        assert!(output.status.success(), "{output:?}");
        for command in commands()?.into_iter().filter(|it| it != "help") {
            let page = fs::read_to_string(pages.join(format!("kaprobe-{command}.1")))?;
            assert!(page.ends_with('\n') && page.contains("EXAMPLES"), "{page}");
            fs::write(
                pages.join(format!("kaprobe-{command}.1")),
                page + "older, longer",
            )?;
        }
    }
    assert_eq!(
        kaprobe(&["man", "/proc/nonexistent"])?.status.code(),
        Some(1)
    );
    Ok(())
}

#[test]
fn help_goes_to_stdout_and_fits_a_terminal() -> TestResult {
    let rows: &[&[&str]] = &[
        &["--help"],
        &["--version"],
        &["help", "trace"],
        &["trace", "-h"],
        &["trace", "--help"],
        &["replay", "--help"],
        &["sockets", "--help"],
        &["top", "--help"],
        &["audit", "--help"],
        &["demo", "--help"],
        &["doctor", "--help"],
    ];
    for args in rows {
        let output = kaprobe(args)?;
        let stdout = String::from_utf8(output.stdout)?;
        assert!(
            output.status.success() && output.stderr.is_empty(),
            "{args:?}"
        );
        assert!(
            stdout.lines().all(|line| line.chars().count() <= 80),
            "{args:?}:\n{stdout}"
        );
        assert!(!stdout.contains('\u{1b}'), "{args:?}:\n{stdout}");
    }
    Ok(())
}

/// The page on `top` has every flag that its help has, and no other.
#[test]
fn the_page_on_top_agrees_with_the_help() -> TestResult {
    let page = include_str!("../docs/top.md");
    let help = String::from_utf8(kaprobe(&["top", "--help"])?.stdout)?;
    let flags = |text| -> BTreeSet<_> {
        let flags = words(text).filter(|word| word.starts_with("--") && !word.ends_with('-'));
        flags.map(str::to_owned).collect()
    };
    let mut of_help = flags(&help);
    // In every command.
    of_help.remove("--help");
    let mut of_page = flags(page);
    for (short, long) in [
        ("-P", "--port"),
        ("-L", "--localport"),
        ("-D", "--remoteport"),
        ("-4", "--ipv4"),
        ("-6", "--ipv6"),
        ("-p", "--pid"),
    ] {
        assert!(words(page).any(|word| word == short), "{short}");
        of_page.insert(long.to_owned());
    }
    assert_eq!(of_page, of_help);
    Ok(())
}

/// A page on a command has no flag that is missing in its help. The page on events explains
/// each event.
#[test]
fn docs_agree_with_the_help() -> TestResult {
    for (command, page) in [
        ("trace", include_str!("../docs/trace.md")),
        ("replay", include_str!("../docs/replay.md")),
        ("sockets", include_str!("../docs/sockets.md")),
        ("audit", include_str!("../docs/audit.md")),
    ] {
        let help = String::from_utf8(kaprobe(&[command, "--help"])?.stdout)?;
        let known: BTreeSet<_> = words(&help).collect();
        let flags = words(page).filter(|word| word.starts_with('-') && !word.ends_with('-'));
        for flag in flags {
            assert!(
                known.contains(flag),
                "{flag} is in docs/{command}.md and not in the help"
            );
        }
    }
    let help = String::from_utf8(kaprobe(&["trace", "--help"])?.stdout)?;
    let (_, events) = help
        .split_once("possible values: default, all,")
        .ok_or("no events")?;
    let (events, _) = events.split_once(']').ok_or("no end of events")?;
    let explained: BTreeSet<_> = words(include_str!("../docs/events.md")).collect();
    for event in words(events) {
        assert!(
            explained.contains(event),
            "{event} is not in docs/events.md"
        );
    }
    Ok(())
}

/// The README is read on a screen: it is short, and no line is wider than one.
#[test]
fn readme_fits_a_screen() {
    let readme = include_str!("../README.md");
    assert!(
        readme.lines().count() <= 200,
        "the README has over 200 lines"
    );
    let wide = readme.lines().find(|line| line.chars().count() > 100);
    assert_eq!(wide, None, "over 100 columns");
}

/// Splits a text into words. Names of flags and events keep their dashes.
fn words(text: &str) -> impl Iterator<Item = &str> {
    let is_word = |c: char| c.is_ascii_alphanumeric() || "-_".contains(c);
    text.split(move |c| !is_word(c))
        .filter(|word| !word.is_empty())
}
