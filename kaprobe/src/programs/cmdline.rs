//! Tells what a runtime runs, from its command line: `java -jar broker.jar`. Pure.
//!
//! Only the program's name is kept. Its arguments may hold secrets, and the runtime's
//! options say nothing about the program.

use crate::text::escape::Escaped;

/// Longest word that is kept, bytes.
const WORD_LIMIT: usize = 64;

/// A program that runs other programs, so that its own name says little.
struct Runtime {
    /// The name of its executable.
    name: &'static str,
    /// The name is followed by a version, as in `python3.13`.
    versioned: bool,
    /// Options whose value is the next argument.
    takes_value: &'static [&'static str],
    /// Options that name the program, together with the next argument.
    names_program: &'static [&'static str],
    /// Options after which no program is named.
    no_program: &'static [&'static str],
    /// Arguments to skip.
    skipped: &'static [&'static str],
    /// The first argument that is not an option names the program.
    positional: bool,
}

const PLAIN: Runtime = Runtime {
    name: "",
    versioned: false,
    takes_value: &[],
    names_program: &[],
    no_program: &[],
    skipped: &[],
    positional: true,
};

const RUNTIMES: [Runtime; 8] = [
    Runtime {
        name: "java",
        takes_value: &[
            "-cp",
            "-classpath",
            "--class-path",
            "-p",
            "--module-path",
            "--upgrade-module-path",
            "--add-modules",
            "--limit-modules",
            "--add-exports",
            "--add-opens",
            "--add-reads",
            "--patch-module",
            "--enable-native-access",
            "--source",
        ],
        names_program: &["-jar", "-m", "--module"],
        ..PLAIN
    },
    Runtime {
        name: "python",
        versioned: true,
        takes_value: &["-W", "-X", "--check-hash-based-pycs"],
        names_program: &["-m"],
        no_program: &["-c", "-"],
        ..PLAIN
    },
    Runtime {
        name: "node",
        takes_value: &[
            "-r",
            "--require",
            "--import",
            "--loader",
            "--experimental-loader",
            "-C",
            "--conditions",
        ],
        no_program: &["-e", "--eval", "-p", "--print", "-"],
        ..PLAIN
    },
    Runtime {
        name: "dotnet",
        takes_value: &[
            "--additionalprobingpath",
            "--additional-deps",
            "--depsfile",
            "--fx-version",
            "--roll-forward",
            "--runtimeconfig",
        ],
        skipped: &["exec"],
        ..PLAIN
    },
    Runtime {
        name: "beam.smp",
        names_program: &["-s", "-sname", "-name"],
        positional: false,
        ..PLAIN
    },
    Runtime {
        name: "ruby",
        versioned: true,
        takes_value: &["-I", "-r", "-C", "-E"],
        no_program: &["-e", "-"],
        ..PLAIN
    },
    Runtime {
        name: "perl",
        versioned: true,
        no_program: &["-e", "-E", "-"],
        ..PLAIN
    },
    Runtime {
        name: "php",
        versioned: true,
        takes_value: &["-c", "-d", "-z"],
        names_program: &["-f"],
        no_program: &["-r", "-"],
        ..PLAIN
    },
];

impl Runtime {
    fn of(executable: &str) -> Option<&'static Self> {
        RUNTIMES.iter().find(|it| it.is_named(executable))
    }

    fn is_named(&self, executable: &str) -> bool {
        let version = executable.strip_prefix(self.name);
        version.is_some_and(|it| {
            let is_version = |byte: u8| byte.is_ascii_digit() || byte == b'.';
            it.is_empty() || (self.versioned && it.bytes().all(is_version))
        })
    }

    /// The words that name the program among the arguments.
    fn program<'a>(&self, mut arguments: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
        while let Some(argument) = arguments.next() {
            if self.no_program.contains(&argument) {
                return vec![argument];
            }
            if self.names_program.contains(&argument) {
                return [argument].into_iter().chain(arguments.next()).collect();
            }
            if self.takes_value.contains(&argument) {
                arguments.next();
            } else if self.positional
                && !argument.starts_with(['-', '@'])
                && !self.skipped.contains(&argument)
            {
                return vec![argument];
            }
        }
        Vec::new()
    }
}

/// Whether an executable is a runtime, so that [`describe`] needs its command line.
#[must_use]
pub fn is_runtime(executable: &[u8]) -> bool {
    Runtime::of(&base_name(executable)).is_some()
}

/// What a runtime runs: the name of its executable and the program's. `None` if the
/// executable is not a runtime. `cmdline` is the content of /proc/PID/cmdline.
#[must_use]
pub fn describe(executable: &[u8], cmdline: &[u8]) -> Option<Escaped> {
    let executable = base_name(executable);
    let runtime = Runtime::of(&executable)?;
    let arguments: Vec<_> = cmdline
        .split(|&byte| byte == 0)
        .map(String::from_utf8_lossy)
        .collect();
    // A process may overwrite its arguments with a title (setproctitle).
    let is_title = !arguments
        .first()
        .is_some_and(|it| it.contains(runtime.name));
    let program = if is_title {
        Vec::new()
    } else {
        let rest = arguments.iter().skip(1).map(AsRef::as_ref);
        runtime.program(rest.filter(|it: &&str| !it.is_empty()))
    };
    let mut text = cut(&executable);
    for word in program {
        text.push(' ');
        text += &cut(&base_name(word.as_bytes()));
    }
    Some(Escaped::from(text.as_str()))
}

/// The last component of a path, without the kernel's mark of a file that was deleted
/// (`d_path`, fs/d_path.c).
fn base_name(path: &[u8]) -> String {
    let path = path.strip_suffix(b" (deleted)").unwrap_or(path);
    let name = path.rsplit(|&byte| byte == b'/').next().unwrap_or(path);
    String::from_utf8_lossy(name).into_owned()
}

fn cut(word: &str) -> String {
    if word.len() <= WORD_LIMIT {
        return word.to_owned();
    }
    let mut end = WORD_LIMIT;
    while !word.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}…", &word[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn described(executable: &str, arguments: &[&str]) -> Option<String> {
        let cmdline = arguments.join("\0") + "\0";
        describe(executable.as_bytes(), cmdline.as_bytes()).map(|it| it.to_string())
    }

    #[test]
    fn a_runtime_is_told_by_what_it_runs() {
        for (executable, arguments, expected) in [
            (
                "/usr/lib/jvm/java-21/bin/java",
                &[
                    "java",
                    "-Xmx4g",
                    "-Dpassword=secret",
                    "-jar",
                    "/opt/broker.jar",
                    "--key=secret",
                ][..],
                "java -jar broker.jar",
            ),
            (
                "/usr/bin/java",
                &[
                    "/usr/bin/java",
                    "-cp",
                    "/a.jar:/b.jar",
                    "--add-opens",
                    "a/b=c",
                    "@args",
                    "kafka.Kafka",
                    "x.properties",
                ],
                "java kafka.Kafka",
            ),
            (
                "/usr/bin/java",
                &["java", "-m", "app/app.Main"],
                "java -m app.Main",
            ),
            (
                "/usr/bin/python3.13",
                &[
                    "python3",
                    "-u",
                    "-W",
                    "error",
                    "/srv/manage.py",
                    "runserver",
                ],
                "python3.13 manage.py",
            ),
            (
                "/usr/bin/python3.13",
                &["/usr/bin/python3", "-m", "gunicorn", "app"],
                "python3.13 -m gunicorn",
            ),
            (
                "/usr/bin/python3",
                &["python3", "-c", "import secret"],
                "python3 -c",
            ),
            (
                "/usr/bin/python3.13",
                &["gunicorn: worker [app]"],
                "python3.13",
            ),
            (
                "/usr/bin/node",
                &["node", "--require", "./x.js", "server.js"],
                "node server.js",
            ),
            ("/usr/bin/node", &["node", "-e", "secret"], "node -e"),
            (
                "/usr/share/dotnet/dotnet",
                &["dotnet", "exec", "--depsfile", "x", "/app/web.dll"],
                "dotnet web.dll",
            ),
            (
                "/usr/lib/erlang/erts-15.2/bin/beam.smp",
                &[
                    "/usr/lib/erlang/erts-15.2/bin/beam.smp",
                    "-W",
                    "w",
                    "--",
                    "-root",
                    "/usr/lib/erlang",
                    "-s",
                    "rabbit",
                    "boot",
                ],
                "beam.smp -s rabbit",
            ),
            (
                "/usr/bin/ruby3.3",
                &["ruby", "-I", "lib", "bin/rails"],
                "ruby3.3 rails",
            ),
            (
                "/usr/bin/php8.4 (deleted)",
                &["php8.4", "-d", "a=b", "worker.php"],
                "php8.4 worker.php",
            ),
            ("/usr/bin/perl", &["perl"], "perl"),
            ("/usr/bin/java", &[], "java"),
            (
                "/opt/java",
                &["java", "\u{1b}[2J\n.Main"],
                "java \\u{1b}[2J\\n.Main",
            ),
        ] {
            assert_eq!(described(executable, arguments).as_deref(), Some(expected));
        }
        let long = "x".repeat(5_000);
        let cut = described("/usr/bin/java", &["java", &long]);
        assert_eq!(
            cut.map(|it| it.chars().count()),
            Some("java ".len() + WORD_LIMIT + 1)
        );
    }

    #[test]
    fn other_programs_are_told_by_their_command_name() {
        for executable in [
            "/usr/sbin/nginx",
            "/usr/bin/javac",
            "/usr/bin/nodejs-x",
            "",
            "/usr/bin/pythonish",
        ] {
            assert_eq!(described(executable, &["x"]), None, "{executable}");
            assert!(!is_runtime(executable.as_bytes()));
        }
    }
}
