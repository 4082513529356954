//! The table of programs and of what they call their keepalive settings.

use std::sync::LazyLock;

use serde::Deserialize;

use crate::model::named::named_enum;
use crate::model::remedy::Reach;
use crate::model::socket::Process;

/// The table, with its sources.
const TABLE: &str = include_str!("../../data/programs.toml");

/// A program and its keepalive settings on one side of its connections.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Program {
    /// The name for people.
    pub name: String,
    /// The command names of its processes.
    comm: Vec<String>,
    /// A word of the process's `cmdline`, for a program that a runtime runs.
    runs: Option<String>,
    /// The port of the server that it connects to.
    remote_port: Option<u16>,
    /// The connections that the settings are for.
    side: ConnectionSide,
    /// What turns SO_KEEPALIVE on: a setting, or `always`. Absent if one of `settings`
    /// does.
    #[serde(default)]
    pub(super) keepalive: Option<String>,
    /// The settings, with placeholders for the values. Without one, the sysctl decides.
    #[serde(default)]
    pub(super) settings: Vec<String>,
    /// What stands between several settings where they are written on one line.
    #[serde(default = "semicolon")]
    pub(super) separator: String,
    /// Each of `settings` turns SO_KEEPALIVE on.
    #[serde(default)]
    pub(super) implies_switch: bool,
    /// The setting of the idle time sets the interval too, to the idle time divided by
    /// this.
    pub(super) interval_of_idle: Option<u64>,
    /// The setting of the idle time sets the interval too, to this many seconds.
    pub(super) interval_s: Option<u64>,
    /// The program sets these values only where the sysctl's are longer.
    #[serde(default)]
    pub(super) follows_sysctl_below: SysctlLimits,
    /// Where the settings are written, and how the program is told. Absent without one.
    #[serde(default)]
    pub apply: String,
    /// The connections that a change reaches.
    pub reaches: Reach,
    /// Another way, which is not a keepalive setting.
    #[serde(rename = "or")]
    pub(super) or_else: Option<String>,
    /// The versions that the row is known to hold for.
    pub versions: String,
    /// The documents that say so.
    pub source: String,
}

/// What stands between settings that are lines of a file.
fn semicolon() -> String {
    "; ".to_owned()
}

/// The longest times that a program takes from the sysctls, s.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SysctlLimits {
    pub(super) idle_s: u64,
    pub(super) interval_s: u64,
}

named_enum! {
    /// The side of a connection that a process is on.
    pub enum ConnectionSide {
        /// It accepted the connection.
        Accepted = "accepted",
        /// It initiated the connection.
        Initiated = "initiated",
        /// Either.
        Both = "both",
    }
}

/// `keepalive` of a program that always turns SO_KEEPALIVE on.
pub(super) const ALWAYS: &str = "always";

/// The rows of the table.
#[must_use]
pub fn programs() -> &'static [Program] {
    static PROGRAMS: LazyLock<Vec<Program>> = LazyLock::new(|| {
        #[derive(Deserialize)]
        struct Table {
            program: Vec<Program>,
        }
        // A test checks that the table can be read.
        toml::from_str(TABLE).map_or_else(|_| Vec::new(), |it: Table| it.program)
    });
    &PROGRAMS
}

/// The program of a process, for its connections on one side.
#[must_use]
pub fn find(process: &Process, side: ConnectionSide, rport: u16) -> Option<&'static Program> {
    let mut fitting = programs().iter().filter(|it| it.fits(process, rport));
    fitting.find(|it| it.side == side || it.side == ConnectionSide::Both)
}

impl Program {
    fn fits(&self, process: &Process, rport: u16) -> bool {
        let comm = process.comm.as_ref().map(|it| it.as_str());
        let cmdline = process.cmdline.as_ref().map(|it| it.as_str());
        let is_named = comm.is_some_and(|comm| self.comm.iter().any(|it| it == comm));
        let is_run = match (&self.runs, cmdline) {
            (Some(runs), Some(cmdline)) => is_run(cmdline, runs),
            (Some(_), None) => false,
            (None, _) => is_named,
        };
        is_run && self.remote_port.is_none_or(|port| port == rport)
    }
}

/// Whether a command line names a program, or begins with a runtime of this name.
fn is_run(cmdline: &str, name: &str) -> bool {
    let is_version = |it: &str| it.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    let mut words = cmdline.split(' ');
    let runtime = words.next().and_then(|it| it.strip_prefix(name));
    runtime.is_some_and(is_version) || words.any(|word| word == name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::escape::Escaped;

    #[test]
    fn the_table_can_be_read() {
        #[derive(Deserialize)]
        struct Table {
            program: Vec<Program>,
        }
        let read = toml::from_str::<Table>(TABLE);
        assert!(read.is_ok_and(|it| it.program.len() > 20));
        for it in programs() {
            assert!(!it.source.is_empty() && !it.versions.is_empty(), "{it:?}");
            let has_own =
                !it.settings.is_empty() || it.keepalive.as_deref().is_some_and(|it| it != ALWAYS);
            assert_eq!(has_own, !it.apply.is_empty(), "{it:?}");
            assert!(has_own || it.keepalive.is_some(), "{it:?}");
            assert!(!it.implies_switch || !it.settings.is_empty(), "{it:?}");
            // Programs are told apart by names that the kernel has room for.
            assert!(it.comm.iter().all(|it| it.len() < 16), "{it:?}");
        }
    }

    /// Without this, a row below another that always fits would never be taken.
    #[test]
    fn every_row_is_taken_for_some_process() {
        for row in programs() {
            let sides = match row.side {
                ConnectionSide::Both => {
                    [ConnectionSide::Accepted, ConnectionSide::Initiated].to_vec()
                }
                side => vec![side],
            };
            for side in sides {
                for comm in &row.comm {
                    let process = Process {
                        comm: Some(Escaped::from(comm.as_str())),
                        cmdline: row.runs.as_ref().map(|runs| {
                            let text = match (comm.as_str(), runs.as_str()) {
                                ("python3", _) => "python3.13 x.py".to_owned(),
                                (comm, runs) if comm == runs => format!("{comm} x"),
                                (comm, runs) => format!("{comm} {runs}"),
                            };
                            Escaped::from(text.as_str())
                        }),
                        ..Process::default()
                    };
                    let found = find(&process, side, row.remote_port.unwrap_or(1));
                    assert_eq!(found, Some(row), "{comm} {side}");
                }
            }
        }
    }

    #[test]
    fn a_program_is_told_by_comm_and_cmdline() {
        let name = |comm: &str, cmdline: Option<&str>, side, rport| {
            let process = Process {
                comm: Some(Escaped::from(comm)),
                cmdline: cmdline.map(Escaped::from),
                ..Process::default()
            };
            find(&process, side, rport).map(|it| it.name.as_str())
        };
        let (accepted, initiated) = (ConnectionSide::Accepted, ConnectionSide::Initiated);
        for (comm, cmdline, side, rport, expected) in [
            ("postgres", None, accepted, 1, Some("PostgreSQL")),
            (
                "postgres",
                None,
                initiated,
                1,
                Some("PostgreSQL as a client"),
            ),
            ("pgbouncer", None, initiated, 1, Some("PgBouncer")),
            ("postgresql", None, accepted, 1, None),
            (
                "beam.smp",
                Some("beam.smp -s rabbit"),
                accepted,
                1,
                Some("RabbitMQ"),
            ),
            (
                "beam.smp",
                Some("beam.smp -s ejabberd"),
                accepted,
                1,
                Some("Erlang"),
            ),
            (
                "java",
                Some("java kafka.Kafka"),
                accepted,
                1,
                Some("Kafka broker"),
            ),
            ("java", Some("java -jar x.jar"), initiated, 9, Some("Java")),
            (
                "C2 CompilerThre",
                Some("java -jar x.jar"),
                initiated,
                9,
                Some("Java"),
            ),
            ("java", None, initiated, 9, None),
            (
                "node-MainThread",
                Some("node x.js"),
                accepted,
                9,
                Some("Node.js"),
            ),
            (
                "gunicorn",
                Some("python3.13 -m gunicorn"),
                accepted,
                9,
                Some("Python"),
            ),
            (
                "python3",
                Some("python3.13 x.py"),
                initiated,
                5432,
                Some("Python, if this is psycopg"),
            ),
        ] {
            assert_eq!(
                name(comm, cmdline, side, rport),
                expected,
                "{comm} {cmdline:?}"
            );
        }
    }
}
