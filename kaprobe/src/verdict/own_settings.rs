//! Says a remedy in the words of the program that held the connection.

use crate::model::record::Record;
use crate::model::remedy::SetIn;
use crate::programs::settings::in_words_of;
use crate::programs::table::{ConnectionSide, Program, find};
use crate::text::escape::Escaped;
use crate::verdict::finding::Finding;

/// The program's own settings for a remedy, as clauses. Empty if
/// the program is not known, or has none.
///
/// A record does not tell which side the program is on: if its settings differ, both are
/// said. A guess does not advise the sysctls that some programs need besides: they change
/// every program of the namespace.
pub(super) fn clause(record: &Record, finding: &Finding) -> String {
    let Some(remedy) = finding.remedy.filter(|it| it.set_in != SetIn::Peer) else {
        return String::new();
    };
    let rport = record.endpoints.map_or(0, |it| it.rport);
    let on = |side| find(&record.process, side, rport);
    let accepted = on(ConnectionSide::Accepted);
    let initiated = on(ConnectionSide::Initiated);
    let said = |program: Option<&Program>, side: &str| {
        let program = program?;
        let said = in_words_of(program, &remedy, &record.settings)?;
        if said.program_sysctl.is_some() && !finding.is_settled() {
            return None;
        }
        let apply = said.program_apply.as_ref().map_or("", Escaped::as_str);
        let besides = said.program_sysctl.map(|it| format!(", and {it}"));
        Some(format!(
            "in {}{side}: {} {apply}{}",
            program.name,
            said.program_set?,
            besides.unwrap_or_default(),
        ))
    };
    if accepted == initiated {
        return said(accepted, "").unwrap_or_default();
    }
    let both = [
        said(accepted, ", for what it accepted"),
        said(initiated, ", for what it initiated"),
    ];
    both.into_iter().flatten().collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::owner::Owner;
    use crate::model::remedy::Remedy;
    use crate::model::socket::{Endpoints, Process, Settings};
    use crate::model::values::{Confidence, Origin, VerdictName};
    use crate::verdict::finding::Explanation;

    #[test]
    fn a_verdict_names_the_programs_own_setting() {
        let remedy = Some(Remedy::first_probe(SetIn::Sysctl, 175));
        let user_timeout = Some(Remedy {
            time_s: None,
            user_timeout_ms: Some(75_000),
            ..Remedy::first_probe(SetIn::Program, 1)
        });
        let peer = Some(Remedy::first_probe(SetIn::Peer, 175));
        let pgbouncer = "in PgBouncer: tcp_keepidle = 175 in pgbouncer.ini, then `RELOAD` on its \
                         console or SIGHUP";
        let haproxy = "in HAProxy, for what it accepted: clitcpka-idle 175s in the frontend, then \
                       reload; in HAProxy, for what it initiated: srvtcpka-idle 175s in the \
                       backend, then reload";
        let redis = "in Redis, for what it accepted: tcp-keepalive 175 by `CONFIG SET` at once, \
                     and in redis.conf";
        for (comm, remedy, expected) in [
            ("pgbouncer", remedy, pgbouncer),
            ("haproxy", remedy, haproxy),
            ("redis-server", remedy, redis),
            ("mariadbd", remedy, ""),
            ("unknown", remedy, ""),
            ("pgbouncer", peer, ""),
            ("pgbouncer", None, ""),
            ("redis-server", user_timeout, ""),
        ] {
            let record = Record {
                process: Owner::from(Process {
                    comm: Some(Escaped::from(comm)),
                    ..Process::default()
                }),
                endpoints: Some(Endpoints::default()),
                settings: Settings {
                    keepalive: Some(true),
                    keepalive_time_ms: Some(7_200_000),
                    keepalive_time_from: Some(Origin::Sysctl),
                    ..Settings::default()
                },
                ..Record::default()
            };
            let finding = Finding {
                remedy,
                ..Finding::new(
                    VerdictName::IdleEviction,
                    Confidence::Low,
                    Explanation::InUse,
                )
            };
            assert_eq!(clause(&record, &finding), expected, "{comm}");
        }
    }
}
