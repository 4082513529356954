//! What a command's help ends with: notes, and examples. The man pages have the same.

use std::fmt::Write as _;

use crate::text::wrap::wrapped;

/// Notes and examples of a command.
#[derive(Debug)]
pub struct Guide {
    /// The command; empty for `kaprobe` itself.
    pub command: &'static str,
    /// Paragraphs.
    pub notes: &'static [&'static str],
    /// At least one.
    pub examples: &'static [UsageExample],
}

/// A command line, and what it does.
#[derive(Debug)]
pub struct UsageExample {
    /// As typed in a shell.
    pub line: &'static str,
    /// What it does, without a period.
    pub what: &'static str,
}

const fn example(line: &'static str, what: &'static str) -> UsageExample {
    UsageExample { line, what }
}

/// The exit codes, as `exit` has them.
pub const EXIT_CODES: &[(&str, &str)] = &[
    ("0", "Success, or stopped on request."),
    ("1", "Something failed on the way."),
    ("2", "The command line makes no sense."),
    ("3", "A privilege is missing."),
    ("4", "The kernel lacks what is needed."),
    (
        "5",
        "audit only: not every connection is safe, or kept by its traffic or by its peer's \
         probes.",
    ),
];

const FILTERS: &str = "Several values of one filter mean OR; different filters mean AND. \
                       Separate values with commas, or repeat the flag.";

/// The guides, in the order of the commands.
pub const GUIDES: &[Guide] = &[
    Guide {
        command: "",
        notes: &[
            "Tracing needs root, or CAP_BPF and CAP_PERFMON. kaprobe doctor says what this kernel \
             and these privileges allow.",
        ],
        examples: &[
            example("kaprobe demo", "what keepalive does, shown on this machine"),
            example("kaprobe trace -P 5672", "what happens on port 5672"),
            example(
                "kaprobe audit --behind aws-nlb",
                "what an idle timeout would end",
            ),
            example("kaprobe explain idle_eviction", "what a verdict means"),
        ],
    },
    Guide {
        command: "trace",
        notes: &[FILTERS],
        examples: &[
            example("kaprobe trace", "problems, and a status line"),
            example("kaprobe trace -v", "all events except the noise"),
            example("kaprobe trace -P 5672 -e all", "all events on port 5672"),
            example(
                "kaprobe trace --pod orders/broker-0",
                "one pod of Kubernetes",
            ),
            example(
                "kaprobe trace -D 5000-6000 --addr 10.0.0.0/8",
                "services of one network",
            ),
            example(
                "kaprobe trace -p 4242 -o keepalive.jsonl",
                "on the screen, and to a log",
            ),
            example("kaprobe trace --json -c 100 | jq .", "for programs"),
        ],
    },
    Guide {
        command: "top",
        notes: &[
            "A row is a program and a remote end: a server's address and port, or a port of this \
             host and its clients. Keys: Enter opens a row, Esc goes back, / filters, s sorts, p \
             pauses, ? shows all keys, q quits.",
            "To a pipe or file, write kaprobe sockets (what is now) or kaprobe trace (what \
             happens).",
        ],
        examples: &[
            example("kaprobe top", "this host"),
            example(
                "kaprobe top -P 5672 --behind aws-nlb",
                "one service, behind an AWS NLB",
            ),
            example(
                "kaprobe top --idle-timeout 350s --sort idle",
                "the longest idle first",
            ),
        ],
    },
    Guide {
        command: "record",
        notes: &[
            "A probe that the peer answers has no record of its own: one alive record for each \
             connection and interval counts them. All else is kept as trace shows it. kaprobe \
             replay DIR and kaprobe audit --log DIR read the folder.",
            FILTERS,
        ],
        examples: &[
            example("kaprobe record --dir /var/log/kaprobe", "the last days"),
            example(
                "kaprobe record --dir /var/log/kaprobe --max-size 2GiB -D 5672",
                "one service, in more room",
            ),
            example(
                "kaprobe replay /var/log/kaprobe --since -2h",
                "the last two hours",
            ),
        ],
    },
    Guide {
        command: "agent",
        notes: &[
            "Metrics are at http://127.0.0.1:10977/metrics, in the text format of OpenMetrics; \
             /healthz and /readyz say whether the agent is alive and ready. docs/agent.md has every \
             metric.",
            "SIGHUP reads --config again. SIGTERM ends the agent within a second.",
            FILTERS,
        ],
        examples: &[
            example("kaprobe agent", "metrics only"),
            example(
                "kaprobe agent --dir /var/log/kaprobe",
                "and the last days in a folder",
            ),
            example(
                "kaprobe agent --behind aws-nlb --listen 10.0.0.1:10977",
                "connections judged by an AWS NLB, metrics for other hosts",
            ),
        ],
    },
    Guide {
        command: "replay",
        notes: &[
            "Logs are JSON lines from kaprobe trace -o LOG.jsonl or --json. Several logs are \
             merged by time, and each record names its host.",
            FILTERS,
        ],
        examples: &[
            example("kaprobe replay run.jsonl", "the records of a trace"),
            example(
                "kaprobe replay run.jsonl -D 5672 -w",
                "one service, in detail",
            ),
            example(
                "kaprobe replay client.jsonl server1.jsonl",
                "one log from several hosts",
            ),
            example(
                "kaprobe replay --summary run.jsonl",
                "a summary for each remote endpoint",
            ),
            example(
                "kaprobe replay /var/log/kaprobe --since -2h",
                "what was recorded in the last two hours",
            ),
            example(
                "ssh host kaprobe trace --json | kaprobe replay -",
                "another host, live",
            ),
        ],
    },
    Guide {
        command: "report",
        notes: &[
            "The report is one HTML file without scripts, which loads nothing: attach it to a \
             ticket. Names of hosts, programs and addresses are in it.",
            FILTERS,
        ],
        examples: &[
            example("kaprobe report run.jsonl -o report.html", "one log"),
            example(
                "kaprobe report client.jsonl server1.jsonl -o report.html",
                "several hosts",
            ),
            example(
                "kaprobe report run.jsonl -D 5672 --behind aws-nlb > report.html",
                "one service",
            ),
        ],
    },
    Guide {
        command: "sockets",
        notes: &[
            FILTERS,
            "KEEPALIVE is time/interval/count. A star marks a value that the socket sets itself; \
             the others come from sysctls. ut is TCP_USER_TIMEOUT. \"off 60s*/75s/9\" means that \
             TCP_KEEPIDLE is set and SO_KEEPALIVE is not: no probe is sent.",
            "An address in brackets belongs to an AF_INET6 socket: [10.0.0.1]:443 is one that \
             carries IPv4. JSON has it as ::ffff:10.0.0.1.",
            "On a terminal, columns are left out and addresses cut until a line fits; KEEPALIVE, \
             DEAD-IN and IDLE are the last to go. COLUMNS overrides the terminal's width.",
        ],
        examples: &[
            example("kaprobe sockets", "all in this network namespace"),
            example(
                "kaprobe sockets --all-netns --sort idle",
                "all on this host, by idle time",
            ),
            example(
                "kaprobe sockets --group --sort dead",
                "a row for each program and service",
            ),
            example(
                "kaprobe sockets -P 5672 --state established --json | jq .",
                "for programs",
            ),
            example("kaprobe top", "the same as a live screen"),
        ],
    },
    Guide {
        command: "audit",
        notes: &[
            "Without --idle-timeout, --behind and --log, audit uses the timeouts that this host \
             applies itself, each for the connections that are known to pass there: conntrack of \
             their network namespace and of those that they are routed through, and IPVS if they \
             are to one of its services. It changes nothing.",
            "Exit code: 0 if every connection is safe, or kept by its traffic or by its peer's \
             probes; 5 if one is not, or could not be read.",
            "Text has one row per program and remote endpoint; CSV and JSON have one per \
             connection. JSON has a summary at the end.",
            "Without --observe, audit knows one moment only: it does not see the heartbeats of \
             programs, such as those of ssh (ServerAliveInterval), AMQP and gRPC, and of the \
             peer's probes only the last. With it, a connection that keepalive does not protect \
             is kept_by_traffic if its longest silence was at most half of the timeout, and at \
             most a third of the time that it was observed: a minute at least, or the timeout. It \
             is kept_by_peer if that takes the peer's probes. A longer silence may come.",
        ],
        examples: &[
            example(
                "kaprobe audit --idle-timeout 350s",
                "assume a timeout of 350 s",
            ),
            example(
                "kaprobe audit --behind aws-nlb --all-netns",
                "assume an AWS NLB; whole host",
            ),
            example(
                "kaprobe audit --log keepalive.jsonl -D 5672",
                "use timeouts seen in a log",
            ),
            example(
                "kaprobe audit --behind ipvs --observe 5m",
                "count the heartbeats of programs",
            ),
        ],
    },
    Guide {
        command: "demo",
        notes: &["It touches nothing but its own connections, and ends after some ten seconds."],
        examples: &[example("kaprobe demo", "every kind of event, explained")],
    },
    Guide {
        command: "doctor",
        notes: &["The exit code is 0 if tracing is possible."],
        examples: &[
            example("kaprobe doctor", "what works, and what a fallback loses"),
            example("kaprobe doctor --json | jq .", "for programs"),
        ],
    },
    Guide {
        command: "explain",
        notes: &[],
        examples: &[
            example("kaprobe explain", "a list of all"),
            example("kaprobe explain idle_eviction", "one of them"),
        ],
    },
    Guide {
        command: "completions",
        notes: &[],
        examples: &[
            example(
                "kaprobe completions bash > /etc/bash_completion.d/kaprobe",
                "for every user of bash",
            ),
            example(
                "kaprobe completions zsh > /usr/local/share/zsh/site-functions/_kaprobe",
                "for every user of zsh",
            ),
            example(
                "kaprobe completions fish > ~/.config/fish/completions/kaprobe.fish",
                "for one user of fish",
            ),
        ],
    },
    Guide {
        command: "man",
        notes: &[],
        examples: &[
            example("kaprobe man /usr/local/share/man/man1", "install all pages"),
            example("kaprobe man | man -l -", "read the first"),
        ],
    },
];

/// The guide of a command.
#[must_use]
pub fn guide(command: &str) -> Option<&'static Guide> {
    GUIDES.iter().find(|it| it.command == command)
}

impl Guide {
    /// The end of the help, in lines of at most `width`.
    #[must_use]
    pub fn text(&self, width: usize) -> String {
        let mut text = String::new();
        for note in self.notes {
            text.extend([&wrapped("", note, width), "\n\n"]);
        }
        text.push_str("Examples:");
        let widest = self.examples.iter().map(|it| it.line.len()).max();
        let column = 2 + widest.unwrap_or_default() + 2;
        let fits = |it: &UsageExample| column + it.what.len() <= width;
        let is_table = self.examples.iter().all(fits);
        for UsageExample { line, what } in self.examples {
            // Writing to a String cannot fail.
            let _ = if is_table {
                let padding = column - 2;
                write!(text, "\n  {line:padding$}{what}")
            } else {
                write!(
                    text,
                    "\n{}\n{}",
                    wrapped("  ", line, width),
                    wrapped("      ", what, width)
                )
            };
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use unicode_width::UnicodeWidthStr as _;

    use super::*;
    use crate::cli;
    use crate::exit::Code;

    #[test]
    fn every_command_has_a_guide_with_examples() {
        let command = cli::command(None);
        let commands = command.get_subcommands().filter(|it| !it.is_hide_set());
        let names: BTreeSet<_> = commands.map(|it| it.get_name()).chain([""]).collect();
        let guided: BTreeSet<_> = GUIDES.iter().map(|it| it.command).collect();
        assert_eq!(guided, names);
        for it in GUIDES {
            assert!(!it.examples.is_empty(), "{it:?}");
            let is_own = |line: &str| line.contains(&format!("kaprobe {}", it.command));
            assert!(it.examples.iter().any(|it| is_own(it.line)), "{it:?}");
        }
    }

    #[test]
    fn examples_are_parsed() {
        for UsageExample { line, .. } in GUIDES.iter().flat_map(|it| it.examples) {
            let mut parsed = 0;
            for part in line.split('|') {
                let (words, _) = part.split_once('>').unwrap_or((part, ""));
                let mut words = words.split_whitespace().skip_while(|it| *it != "kaprobe");
                if words.clone().next().is_some() {
                    let matches = cli::command(None).try_get_matches_from(words.by_ref());
                    assert!(matches.is_ok(), "{line}: {matches:?}");
                    parsed += 1;
                }
            }
            assert!(parsed > 0, "{line}");
        }
    }

    #[test]
    fn text_fits_every_width() {
        for width in [40, 60, 80] {
            for it in GUIDES {
                for line in it.text(width).lines() {
                    let is_one_word = !line.trim().contains(' ');
                    assert!(line.width() <= width || is_one_word, "{width}: {line}");
                }
            }
        }
    }

    #[test]
    fn every_exit_code_is_explained() {
        use Code::{Failure, Kernel, NotSafe, Ok, Privilege, Usage};
        let codes = [Ok, Failure, Usage, Privilege, Kernel, NotSafe];
        let codes: Vec<_> = codes.into_iter().map(|it| (it as u8).to_string()).collect();
        let explained: Vec<_> = EXIT_CODES.iter().map(|it| it.0).collect();
        assert_eq!(explained, codes);
    }
}
