//! Sentences and names of a report.

use crate::model::values::{Confidence, VerdictName};
use crate::report::collect::Collection;
use crate::report::conversation::Ends;
use crate::text::cell::endpoint;
use crate::text::escape::Escaped;
use crate::text::units::Ms;

/// The names of hosts.
pub(super) struct Hosts<'a>(pub(super) &'a Collection);

impl Hosts<'_> {
    /// The name of a host for people.
    pub(super) fn name(&self, host: usize) -> String {
        let named = self.0.host_name(host).map(Escaped::to_string);
        let only = || {
            let traces = self.0.recording.traces.first();
            traces.map(|it| it.host.to_string())
        };
        named
            .or_else(only)
            .filter(|it| !it.is_empty())
            .unwrap_or_else(|| "host not known".to_owned())
    }
}

/// The ends of a connection.
pub(super) fn arrow([first, second]: Ends) -> String {
    format!("{} → {}", endpoint(first), endpoint(second))
}

/// A verdict as a line of text shows it.
pub(super) fn verdict_text(
    verdict: VerdictName,
    confidence: Option<Confidence>,
    idle_ms: Option<u64>,
    advice: Option<&Escaped>,
) -> String {
    let mut text = verdict.to_string();
    if let Some(ms) = idle_ms {
        text.push_str(&format!(" idle {}", Ms(ms)));
    }
    if let Some(confidence) = confidence {
        text.push_str(&format!(" ({confidence})"));
    }
    if let Some(advice) = advice {
        text.push_str(": ");
        text.push_str(advice.as_str());
    }
    text
}
