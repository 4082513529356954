//! The logs of a fleet in ClickHouse and in DuckDB: `contrib/clickhouse` and `contrib/duckdb`.
//!
//! The databases answer the questions of these folders. Their answers are compared with each
//! other, with what happened in the fleet, and with kaprobe's own estimates.

use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};

use anyhow::{Context as _, Result, ensure};
use kaprobe::model::host_timeout::HostTimeouts;
use kaprobe::model::limits::MAX_SOCKETS;
use kaprobe::model::record::Record;
use kaprobe::model::values::{LearnedOf, VerdictName};
use kaprobe::verdict::judge::Judge;
use kaprobe::verdict::pipeline::Pipeline;
use kaprobe_testkit::database::{Answer, Engine};
use kaprobe_testkit::fixtures::every_event;
use kaprobe_testkit::fleet::{self, START, Size, Story, Truth};
use kaprobe_testkit::http::PostServer;
use kaprobe_testkit::package::Server;
use kaprobe_testkit::wait::wait_until;
use kaprobe_testkit::{command, golden, package, page};
use serde_json::Value;
use tempfile::TempDir;

/// The questions that both folders have.
const QUESTIONS: [&str; 7] = [
    "bounds",
    "flow",
    "idle-losses",
    "lost",
    "silent",
    "three-hosts",
    "unprotected",
];

/// Has the number of hosts of a large fleet: `cargo xtask fleet` sets it.
const HOSTS: &str = "KAPROBE_FLEET_HOSTS";

/// The logs of tests are older than a database keeps them.
const KEEP: &str = "ALTER TABLE kaprobe.records REMOVE TTL; ALTER TABLE kaprobe.traces REMOVE TTL";

/// Where the logs are kept; without it, they are removed.
const DIR: &str = "KAPROBE_FLEET_DIR";

/// The fleet of an ordinary run.
const SMALL: Size = Size {
    hosts: 40,
    connections: 25,
    seed: 7,
};

/// The most deaths of an endpoint that kaprobe's estimator keeps.
const MAX_DEATHS: u64 = 16;

/// Bytes of the table in ClickHouse.
const SIZE: &str = "SELECT sum(data_compressed_bytes) FROM system.parts
    WHERE active AND database = 'kaprobe' AND table = 'records'";

/// Answers to the questions, by name.
type Answers = BTreeMap<String, Answer>;

fn contrib(path: &str) -> Result<String> {
    let contrib = Path::new(env!("CARGO_MANIFEST_DIR")).join("../contrib");
    let path = contrib.join(path);
    fs::read_to_string(&path).with_context(|| path.display().to_string())
}

/// Loads the files into a database, and asks all questions.
fn ask(engine: Engine, files: &str, community_id: &str) -> Result<Answers> {
    let (folder, start) = match engine {
        Engine::ClickHouse => (
            "clickhouse",
            format!(
                "SET param_files = '{files}'; SET param_since = '{START}';
                 SET param_community_id = '{community_id}'"
            ),
        ),
        Engine::DuckDb => (
            "duckdb",
            format!(
                "SET VARIABLE logs = '{files}'; SET VARIABLE since = '{START}';
                 SET VARIABLE community_id = '{community_id}'"
            ),
        ),
    };
    let mut texts = vec![
        ("start", start),
        ("schema", contrib(&format!("{folder}/schema.sql"))?),
    ];
    if engine == Engine::ClickHouse {
        texts.push(("keep", KEEP.to_owned()));
        texts.push(("load", contrib("clickhouse/load.sql")?));
        texts.push(("size", SIZE.to_owned()));
        // Again: a row counts once.
        texts.push(("load again", contrib("clickhouse/load.sql")?));
    }
    let table = if engine == Engine::ClickHouse {
        "kaprobe.records FINAL"
    } else {
        "records"
    };
    texts.push(("count", format!("SELECT count(*) FROM {table}")));
    for name in QUESTIONS {
        texts.push((name, contrib(&format!("{folder}/questions/{name}.sql"))?));
    }
    engine.run(&texts)
}

/// Asks both databases, and compares what they answer. Returns the answers of ClickHouse, then
/// those of DuckDB.
fn ask_both(files: &str, community_id: &str) -> Result<[Answers; 2]> {
    let [answers, others] =
        [Engine::ClickHouse, Engine::DuckDb].map(|engine| ask(engine, files, community_id));
    let (answers, others) = (answers?, others?);
    for name in QUESTIONS.into_iter().chain(["count"]) {
        let [ours, theirs] = [&answers, &others].map(|it| &it[name].rows);
        ensure!(
            ours == theirs,
            "{name}: ClickHouse {ours:#?}\nDuckDB {theirs:#?}"
        );
    }
    Ok([answers, others])
}

/// The text in a column of a row.
fn text(row: &[Value], column: usize) -> Result<&str> {
    row[column]
        .as_str()
        .with_context(|| format!("no text in column {column} of {row:?}"))
}

fn number(row: &[Value], column: usize) -> Result<u64> {
    row[column]
        .as_u64()
        .with_context(|| format!("no number in column {column} of {row:?}"))
}

/// The stories that a database found.
fn stories(answers: &Answers) -> Result<BTreeSet<Story>> {
    let rows = &answers["three-hosts"].rows;
    let story = |row: &Vec<Value>| -> Result<_> {
        Ok(Story {
            client: text(row, 2)?.to_owned(),
            endpoint: text(row, 4)?.to_owned(),
            strayed_to: text(row, 6)?.to_owned(),
            held_by: text(row, 7)?.to_owned(),
        })
    };
    let stories: BTreeSet<_> = rows.iter().map(story).collect::<Result<_>>()?;
    ensure!(stories.len() == rows.len(), "a story twice: {rows:#?}");
    Ok(stories)
}

/// A fleet, its logs, and the records in them.
struct Fleet {
    dir: TempDir,
    truth: Truth,
    records: Vec<(String, Record)>,
}

impl Fleet {
    fn write(size: Size) -> Result<Self> {
        let mut dir = tempfile::tempdir()?;
        if let Some(kept) = env::var_os(DIR) {
            dir = TempDir::with_prefix_in("fleet-", kept)?;
            dir.disable_cleanup(true);
        }
        let records = Mutex::new(Vec::new());
        let truth = fleet::write(size, dir.path(), &|host: &str, record: &Record| {
            let mut records = records.lock().unwrap_or_else(PoisonError::into_inner);
            records.push((host.to_owned(), record.clone()));
        })?;
        let records = records.into_inner().unwrap_or_else(PoisonError::into_inner);
        Ok(Self {
            dir,
            truth,
            records,
        })
    }

    fn files(&self) -> String {
        self.dir
            .path()
            .join("*/*.jsonl.zst")
            .to_string_lossy()
            .into_owned()
    }

    /// The Community ID of a connection that a balancer forgot.
    fn community_id(&self) -> Result<String> {
        // It is the only verdict of its kind.
        let is_stray = |it: &&(String, Record)| it.1.verdict == Some(VerdictName::StraySegment);
        let (_, record) = self.records.iter().find(is_stray).context("no story")?;
        let id = record.endpoints.and_then(|it| it.community_id());
        Ok(id.context("no connection")?.text().as_str().to_owned())
    }

    /// A judge that has seen the records of all hosts, as if one had made them.
    fn judge(&self) -> Pipeline {
        let judge = Judge::new(MAX_SOCKETS, &HostTimeouts::default());
        let mut pipeline = Pipeline::new(every_event(), judge);
        let hosts: BTreeSet<_> = self.records.iter().map(|(host, _)| host).collect();
        let hosts: BTreeMap<_, u64> = hosts.into_iter().zip(1..).collect();
        let mut records: Vec<_> = self.records.iter().collect();
        records.sort_by_key(|(_, record)| record.time);
        for (host, record) in records {
            let mut record = record.clone();
            // All hosts have one clock then, and no two sockets one number.
            let later = record.time.0.cast_unsigned() - record.mono_ns;
            record.mono_ns += later;
            record.sock = record.sock.map(|sock| sock + hosts[host] * 1_000_000);
            if let Some(alive) = &mut record.alive {
                alive.since_ns += later;
                alive.answered_ns += later;
                alive.quiet_ns = alive.quiet_ns.map(|it| it + later);
            }
            pipeline.push(0, &mut record, |_| ());
        }
        pipeline
    }
}

/// What happened in a small fleet is what both databases answer.
pub fn databases_answer_what_happened() -> Result<()> {
    package::on_host_only()?;
    let hosts = env::var(HOSTS).ok().map(|it| it.parse()).transpose()?;
    let size = match hosts {
        None => SMALL,
        Some(hosts) => Size {
            hosts,
            connections: 12,
            ..SMALL
        },
    };
    let fleet = Fleet::write(size)?;
    let truth = &fleet.truth;
    ensure!(
        !truth.stories.is_empty() && !truth.lost.is_empty(),
        "{truth:?}"
    );
    ensure!(
        !truth.silent.is_empty() && !truth.killed.is_empty(),
        "{truth:?}"
    );
    let both = ask_both(&fleet.files(), &fleet.community_id()?)?;
    check(&both[0], &fleet)?;
    if hosts.is_some() {
        return figures(size, &fleet.truth, &both);
    }
    Ok(())
}

/// Checks that the answers are what happened.
fn check(answers: &Answers, fleet: &Fleet) -> Result<()> {
    let (found, expected) = (stories(answers)?, &fleet.truth.stories);
    ensure!(&found == expected, "found {found:#?}, not {expected:#?}");
    ensure!(
        number(&answers["count"].rows[0], 0)? == fleet.truth.records,
        "{:?}",
        answers["count"]
    );

    let hosts: BTreeSet<_> = answers["flow"]
        .rows
        .iter()
        .map(|row| row[1].as_str())
        .collect();
    ensure!(hosts.len() == 3, "{:#?}", answers["flow"].rows);
    check_lost(answers, &fleet.truth)?;
    check_bounds(answers, fleet)?;
    check_losses(answers, &fleet.truth)
}

/// The question about connections that exist, from lists of sockets.
const NOW: &str = "unprotected-now";

/// Connections that a list of sockets has: the program, SO_KEEPALIVE, the keepalive time, and how
/// many hours before the end of the last list they were listed.
const LISTED: [(&str, bool, u64, u8); 4] = [
    ("off", false, 7_200_000, 0),
    ("late", true, 7_200_000, 0),
    ("quick", true, 1_000, 0),
    ("gone", false, 7_200_000, 1),
];

/// Writes the lists of the sockets of a host: one connection of each kind to each endpoint. They
/// have no record in any log.
fn write_sockets<'a>(to: &Path, endpoints: impl Iterator<Item = &'a String>) -> Result<()> {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/sockets.jsonl");
    let golden = fs::read_to_string(golden)?;
    let line = golden.lines().find(|it| it.contains("\"ESTABLISHED\""));
    let line: Value = serde_json::from_str(line.context("no connection")?)?;
    let mut text = String::new();
    for endpoint in endpoints {
        let server: SocketAddr = endpoint.parse()?;
        for (nth, (program, is_on, time_ms, hours)) in LISTED.into_iter().enumerate() {
            let mut row = line.clone();
            row["time"] = format!("2026-11-02T{:02}:00:00.000000000Z", 12 - hours).into();
            row["comm"] = program.into();
            row["keepalive"] = is_on.into();
            row["keepalive_time_ms"] = time_ms.into();
            row["raddr"] = server.ip().to_string().into();
            row["rport"] = server.port().into();
            row["lport"] = (40_000 + nth).into();
            writeln!(text, "{row}")?;
        }
    }
    fs::write(to.join("web-1.jsonl"), text)?;
    Ok(())
}

/// An unprotected connection to which nothing has happened is in no log, but in a list of the
/// sockets. Both databases find it there, with the timeouts that the logs show.
pub fn databases_know_what_no_log_has() -> Result<()> {
    package::on_host_only()?;
    let fleet = Fleet::write(SMALL)?;
    let dir = tempfile::tempdir()?;
    write_sockets(dir.path(), fleet.truth.timeouts_ms.keys())?;
    let sockets = dir.path().join("*.jsonl").to_string_lossy().into_owned();
    let files = fleet.files();
    let of = |folder: &str, name: &str| contrib(&format!("{folder}/{name}.sql"));
    let question = |folder: &str| of(folder, &format!("questions/{NOW}"));
    let set = |name: &str, value: &str| format!("SET param_{name} = '{value}'");
    let no_ttl = "ALTER TABLE kaprobe.sockets REMOVE TTL".to_owned();
    let ours = Engine::ClickHouse.run(&[
        ("logs", set("files", &files)),
        ("schema", of("clickhouse", "schema")?),
        ("keep", KEEP.to_owned()),
        ("load", of("clickhouse", "load")?),
        ("lists", set("files", &sockets)),
        ("sockets", of("clickhouse", "sockets")?),
        ("keep sockets", no_ttl),
        ("load sockets", of("clickhouse", "load-sockets")?),
        // Again: a row counts once.
        ("load again", of("clickhouse", "load-sockets")?),
        ("bounds", of("clickhouse", "questions/bounds")?),
        (NOW, question("clickhouse")?),
    ])?;
    let variables = format!("SET VARIABLE logs = '{files}'; SET VARIABLE sockets = '{sockets}'");
    let theirs = Engine::DuckDb.run(&[
        ("variables", variables),
        ("schema", of("duckdb", "schema")?),
        ("sockets", of("duckdb", "sockets")?),
        (NOW, question("duckdb")?),
    ])?;
    let rows = &ours[NOW].rows;
    ensure!(rows == &theirs[NOW].rows, "{rows:#?}, {:#?}", theirs[NOW]);
    let believed = ours["bounds"].rows.iter().filter(|row| row[6] == true);
    let mut expected = BTreeSet::new();
    for row in believed {
        let endpoint = text(row, 0)?;
        if fleet.truth.timeouts_ms.contains_key(endpoint) {
            for (program, off, late) in [("late", 0, 1), ("off", 1, 0)] {
                expected.insert((endpoint, program, 1, off, late));
            }
        }
    }
    let found = rows.iter().map(|row| {
        ensure!(text(row, 0)? == "web-1", "{row:?}");
        let [all, off, late] = [3, 4, 5].map(|column| number(row, column));
        Ok((text(row, 2)?, text(row, 1)?, all?, off?, late?))
    });
    let found: BTreeSet<_> = found.collect::<Result<_>>()?;
    ensure!(
        !found.is_empty() && found == expected,
        "{found:#?}, not {expected:#?}"
    );
    Ok(())
}

/// Prints what it took, and with `KAPROBE_BLESS=1` writes it to the page.
fn figures(size: Size, truth: &Truth, both: &[Answers; 2]) -> Result<()> {
    const PAGE: &str = "../../../docs/fleet.md";
    let mut text = String::new();
    let mb = |bytes: u64| bytes as f64 / 1e6;
    writeln!(
        text,
        "{} hosts, 12 hours, {} connections each: {} records\n\
         JSON lines {:.0} MB, segments {:.0} MB\n\n{:18}{:>12}{:>10}",
        size.hosts,
        size.connections,
        truth.records,
        mb(truth.bytes),
        mb(truth.compressed),
        "",
        "ClickHouse",
        "DuckDB"
    )?;
    let [ours, theirs] = both;
    let seconds = |answers: &Answers, name: &str| answers.get(name).map_or(0.0, |it| it.seconds);
    // DuckDB loads by its schema.
    let load = [seconds(ours, "load"), seconds(theirs, "schema")];
    writeln!(text, "{:18}{:>10.1} s{:>8.1} s", "load", load[0], load[1])?;
    let size = ours["size"].rows[0][0].as_u64().context("no size")?;
    writeln!(text, "{:18}{:>9.0} MB{:>10}", "table", mb(size), "-")?;
    for name in QUESTIONS {
        let [a, b] = [ours, theirs].map(|it| seconds(it, name));
        writeln!(text, "{name:18}{a:>10.2} s{b:>8.2} s")?;
    }
    println!("{text}");
    let page = contrib("../docs/fleet.md")?;
    let (before, _, after) = page::split(&page, "fleet").context("no sample")?;
    if env::var_os("KAPROBE_BLESS").is_some() {
        golden::check(PAGE, &format!("{before}{text}{after}")).map_err(anyhow::Error::msg)?;
    }
    Ok(())
}

/// The hosts that lost events, and those whose logs ended.
fn check_lost(answers: &Answers, truth: &Truth) -> Result<()> {
    let lost = answers["lost"].rows.iter();
    let lost = lost.map(|row| Ok((text(row, 0)?.to_owned(), number(row, 3)?)));
    let lost: BTreeMap<_, _> = lost.collect::<Result<_>>()?;
    ensure!(lost == truth.lost, "{lost:?}, not {:?}", truth.lost);
    let silent = answers["silent"].rows.iter();
    let silent: BTreeSet<_> = silent
        .map(|row| Ok(text(row, 0)?.to_owned()))
        .collect::<Result<_>>()?;
    ensure!(silent == truth.silent, "{silent:?}, not {:?}", truth.silent);
    Ok(())
}

/// The bounds are those that kaprobe's own estimator makes of all records, and the timeouts of
/// the fleet lie between them.
fn check_bounds(answers: &Answers, fleet: &Fleet) -> Result<()> {
    let pipeline = fleet.judge();
    let estimator = pipeline.judge(0).context("no judge")?.estimator();
    let mut believed = 0;
    for row in &answers["bounds"].rows {
        let endpoint = text(row, 0)?;
        let address: SocketAddr = endpoint.parse()?;
        let is_whole = number(row, 4)? <= MAX_DEATHS;
        let bounds = estimator
            .bounds((address.ip(), address.port()))
            .context("no bounds")?;
        let [survived, died, shortest] = [1, 2, 3].map(|column| row[column].as_u64());
        let [is_believed, contradictory] = [6, 7].map(|column| row[column].as_bool());
        ensure!(
            !is_whole
                || bounds.of == LearnedOf::Endpoint
                    && (survived, died, shortest)
                        == (bounds.survived_ms, bounds.died_ms, bounds.shortest_ms)
                    && is_believed == Some(bounds.is_believed())
                    && contradictory == Some(bounds.contradictory),
            "{row:?}, not {bounds:?}"
        );
        if is_believed != Some(true) || contradictory == Some(true) {
            continue;
        }
        believed += 1;
        let timeout = fleet.truth.timeouts_ms.get(endpoint);
        let timeout = *timeout.with_context(|| format!("{endpoint} has no timeout: {row:?}"))?;
        ensure!(
            survived.is_none_or(|it| it < timeout) && died.is_some_and(|it| it >= timeout),
            "{timeout} ms is not between {row:?}"
        );
    }
    ensure!(believed >= 3, "{:#?}", answers["bounds"].rows);
    Ok(())
}

/// The endpoints that lose connections, and the programs that do nothing against it.
fn check_losses(answers: &Answers, truth: &Truth) -> Result<()> {
    // The endpoints that lose most are listed, but bounds have all.
    let believed = answers["bounds"].rows.iter().filter(|row| row[6] == true);
    let believed: BTreeSet<_> = believed.map(|row| text(row, 0)).collect::<Result<_>>()?;
    for row in &answers["idle-losses"].rows {
        let endpoint = text(row, 0)?;
        if let Some(count) = truth.evicted.get(endpoint) {
            ensure!(number(row, 1)? == *count, "{row:?}, not {count}");
        } else {
            ensure!(
                truth.restarted.contains(endpoint),
                "{row:?}: nothing happened there"
            );
        }
    }
    let found = answers["unprotected"].rows.iter();
    let found = found.map(|row| {
        Ok((
            text(row, 0)?.to_owned(),
            text(row, 1)?.to_owned(),
            text(row, 2)?.to_owned(),
        ))
    });
    let found: BTreeSet<_> = found.collect::<Result<_>>()?;
    let expected = truth
        .unprotected
        .iter()
        .filter(|it| believed.contains(it.2.as_str()));
    let expected: BTreeSet<_> = expected.cloned().collect();
    ensure!(found == expected, "{found:#?}, not {expected:#?}");
    Ok(())
}

/// The logs of the three real hosts of `tests/golden/story`, by host.
fn real_logs() -> Result<Vec<(&'static str, String)>> {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/story");
    let log = |host: &'static str| -> Result<_> {
        // They are older than the Community ID: a replay adds it.
        let log: PathBuf = golden.join(format!("{host}.jsonl"));
        let mut kaprobe = command::kaprobe()?;
        kaprobe.args(["replay", "--json", "-q"]).arg(log);
        let (code, lines, stderr) = command::run_as(kaprobe, &[])?;
        ensure!(code == Some(0), "{stderr}");
        Ok((host, lines))
    };
    ["client", "server1", "server2"]
        .map(log)
        .into_iter()
        .collect()
}

/// The folder in the tree of syslog-ng that has its modules.
fn modules(tree: &Path) -> Result<PathBuf> {
    let folders = fs::read_dir(tree.join("usr/lib/syslog-ng"))?;
    let mut folders = folders.filter_map(|it| Some(it.ok()?.path()));
    let with_http = folders.find(|it| it.join("libhttp.so").exists());
    with_http.context("no modules")
}

/// syslog-ng with the configuration of `contrib/`, but for the place of the log and of the database.
fn syslog_ng(dir: &Path, log: &Path, database: SocketAddr) -> Result<Command> {
    let mut config = contrib("syslog-ng/kaprobe.conf")?;
    let log = log.to_string_lossy();
    for (theirs, here) in [
        ("/var/log/kaprobe/trace.jsonl\"\n", format!("{log}\"\n")),
        ("http://localhost:8123/", format!("http://{database}/")),
    ] {
        ensure!(config.contains(theirs), "no {theirs:?}");
        config = config.replace(theirs, &here);
    }
    let file = dir.join("kaprobe.conf");
    fs::write(&file, config)?;
    let tree = package::tree("syslog-ng-mod-http")?;
    let mut command = package::beside_host("syslog-ng-mod-http", "usr/sbin/syslog-ng")?;
    command.args(["--foreground", "--stderr", "--no-caps"]);
    for (flag, path) in [
        ("--cfgfile", file),
        ("--module-path", modules(&tree)?),
        ("--persist-file", dir.join("persist")),
        ("--pidfile", dir.join("pid")),
        ("--control", dir.join("control")),
    ] {
        command.arg(flag).arg(path);
    }
    Ok(command)
}

/// syslog-ng posts each line of a log that grows, once, as ClickHouse takes it.
pub fn syslog_ng_posts_each_line_once() -> Result<()> {
    package::on_host_only()?;
    let logs = real_logs()?;
    let dir = tempfile::tempdir()?;
    let log = dir.path().join("trace.jsonl");
    fs::write(&log, &logs[0].1)?;
    let server = PostServer::start()?;
    let syslog_ng = syslog_ng(dir.path(), &log, server.address)?;
    // It has no port: the address is that of the server above.
    let _syslog_ng = Server::start(syslog_ng, server.address)?;
    let mut written = logs[0].1.clone();
    for (_, more) in &logs[1..] {
        wait_until("the lines are posted", || {
            Ok(server.posted().text.len() >= written.len())
        })?;
        fs::OpenOptions::new()
            .append(true)
            .open(&log)?
            .write_all(more.as_bytes())?;
        written += more;
    }
    wait_until("all lines are posted", || {
        Ok(server.posted().text.len() >= written.len())
    })?;
    let posted = server.posted();
    ensure!(posted.text == written, "{posted:?}, not {written}");
    let into = "POST /?query=INSERT%20INTO%20kaprobe.lines%20FORMAT%20JSONEachRow&";
    ensure!(
        posted.requests.iter().all(|it| it.starts_with(into)),
        "{:?}",
        posted.requests
    );
    let records = written.lines().filter(|it| it.contains("\"event\":"));
    check_inserted(&posted.text, records.count() as u64)
}

/// The logs of the three real hosts of `tests/golden/story` tell their story in a database.
pub fn databases_find_the_real_story() -> Result<()> {
    package::on_host_only()?;
    let dir = tempfile::tempdir()?;
    let mut all = String::new();
    for (host, lines) in real_logs()? {
        all += &lines;
        fs::write(dir.path().join(format!("{host}.jsonl")), lines)?;
    }
    let files = dir.path().join("*.jsonl").to_string_lossy().into_owned();
    let [answers, _] = ask_both(&files, "")?;
    let found = stories(&answers)?;
    let story = Story {
        client: "client".to_owned(),
        endpoint: "10.9.0.100:5672".to_owned(),
        strayed_to: "server1".to_owned(),
        held_by: "server2".to_owned(),
    };
    ensure!(found == BTreeSet::from([story]), "{found:#?}");
    check_inserted(&all, number(&answers["count"].rows[0], 0)?)
}

/// Lines that are inserted as they are, as over HTTP, are as many records, with the headers of
/// three hosts.
fn check_inserted(lines: &str, records: u64) -> Result<()> {
    let insert = format!(
        "INSERT INTO kaprobe.lines SETTINGS date_time_input_format = 'best_effort' \
         FORMAT JSONEachRow\n{lines}"
    );
    let answers = Engine::ClickHouse.run(&[
        ("schema", contrib("clickhouse/schema.sql")?),
        ("keep", KEEP.to_owned()),
        ("insert", insert),
        ("records", "SELECT count() FROM kaprobe.records".to_owned()),
        (
            "traces",
            "SELECT uniqExact(host) FROM kaprobe.traces WHERE hz > 0".to_owned(),
        ),
    ])?;
    let [found, hosts] = ["records", "traces"].map(|name| number(&answers[name].rows[0], 0));
    let (found, hosts) = (found?, hosts?);
    ensure!(
        (found, hosts) == (records, 3),
        "{found} records of {hosts} hosts, not {records}"
    );
    Ok(())
}
