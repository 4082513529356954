//! A PostgreSQL server of a Debian package, and sessions of psql with it.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::SocketAddr;
use std::process::{ChildStdin, ChildStdout, Command, Stdio};

use anyhow::{Context as _, Result, ensure};

use crate::child::Killed;
use crate::package::{Root, Server};
use crate::wait::wait_until;

const CONFIG: &str = "pg/data/postgresql.conf";

/// A database that lets everybody in.
#[derive(Debug)]
pub struct Postgres {
    root: Root,
    address: SocketAddr,
}

/// A running psql, in a session. It ends when dropped.
#[derive(Debug)]
pub struct Session {
    child: Killed,
    commands: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Postgres {
    /// Makes the database of a server at an address. Moves this thread into its own mount
    /// namespace.
    pub fn make(address: SocketAddr) -> Result<Self> {
        let root = Root::of("postgresql-17")?;
        root.write(
            "etc/passwd",
            "root:x:0:0::/:/bin/false\nuser:x:1000:1000::/tmp:/bin/false\n",
        )?;
        root.write("etc/group", "root:x:0:\nuser:x:1000:\n")?;
        root.make_user_dir("pg")?;
        let postgres = Self { root, address };
        let mut initdb = postgres.program("initdb");
        initdb.args([
            "--no-sync",
            "--locale=C",
            "--encoding=UTF8",
            "-D",
            "/pg/data",
        ]);
        let made = initdb.env("PATH", "/usr/bin").output()?;
        ensure!(made.status.success(), "{made:?}");
        let access = "host all all 0.0.0.0/0 trust\n";
        postgres.root.write("pg/data/pg_hba.conf", access)?;
        postgres.write_config("")?;
        Ok(postgres)
    }

    /// Starts the server in this network namespace, and waits until it lets psql in.
    pub fn start(&self) -> Result<Server> {
        let mut postgres = self.program("postgres");
        postgres.args(["-D", "/pg/data"]);
        let server = Server::start(postgres, self.address)?;
        // It accepts connections before it lets them in.
        wait_until("PostgreSQL has started", || {
            let asked = self.psql("").args(["-c", "select 1"]).output()?;
            Ok(asked.status.success())
        })?;
        Ok(server)
    }

    /// Adds lines to the configuration, and has the server read it again. psql connects from
    /// this network namespace.
    pub fn configure(&self, lines: &str) -> Result<()> {
        self.write_config(lines)?;
        let mut psql = self.psql("");
        let reloaded = psql.args(["-c", "select pg_reload_conf()"]).output()?;
        ensure!(reloaded.status.success(), "{reloaded:?}");
        Ok(())
    }

    fn write_config(&self, lines: &str) -> Result<()> {
        let (address, port) = (self.address.ip(), self.address.port());
        let config = format!(
            "port = {port}\nlisten_addresses = '{address}'\nunix_socket_directories = ''\n\
             fsync = off\nlogging_collector = off\nlog_min_messages = panic\n{lines}\n"
        );
        self.root.write(CONFIG, &config)
    }

    fn program(&self, name: &str) -> Command {
        let path = format!("usr/lib/postgresql/17/bin/{name}");
        self.root.command_as_user(&path)
    }

    /// A psql with these parameters in its connection string.
    fn psql(&self, parameters: &str) -> Command {
        let mut psql = self.program("psql");
        let (address, port) = (self.address.ip(), self.address.port());
        let to = format!("host={address} port={port} dbname=postgres user=user {parameters}");
        psql.args([&to, "--no-psqlrc", "--tuples-only", "--no-align"]);
        psql
    }

    /// Starts a session from this network namespace, and waits until it is let in.
    pub fn session(&self, parameters: &str) -> Result<Session> {
        let mut psql = self.psql(parameters);
        let psql = psql.args(["-f", "-"]).stdin(Stdio::piped());
        let psql = psql.stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = Killed(psql.spawn()?);
        let commands = child.stdin.take().context("no stdin")?;
        let answers = child.stdout.take().context("no stdout")?;
        let mut session = Session {
            child,
            commands,
            answers: BufReader::new(answers),
        };
        session.send("select 1;")?;
        let answer = session.answer()?;
        ensure!(answer.as_deref() == Some("1"), "{parameters}: {answer:?}");
        Ok(session)
    }
}

impl Session {
    /// Sends a command.
    pub fn send(&mut self, command: &str) -> Result<()> {
        Ok(writeln!(self.commands, "{command}")?)
    }

    /// Waits for the next line of an answer. `None` if the connection was lost: psql ends
    /// then.
    pub fn answer(&mut self) -> Result<Option<String>> {
        let mut line = String::new();
        if self.answers.read_line(&mut line)? == 0 {
            self.child.wait()?;
            return Ok(None);
        }
        Ok(Some(line.trim_end().to_owned()))
    }
}
