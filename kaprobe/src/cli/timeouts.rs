//! Converts flags to the idle timeouts on the path of every connection.

use crate::cli::args::TimeoutArgs;
use crate::exit;
use crate::timeout::middlebox::middleboxes;
use crate::timeout::timeouts::Timeout;

/// The idle timeouts from the flags; empty if there are none.
///
/// # Errors
/// [`exit::Code::Usage`] if the flags conflict.
pub fn timeouts(args: &TimeoutArgs) -> Result<Vec<Timeout>, exit::Error> {
    if args.idle_timeout.is_some() && args.behind.len() > 1 {
        return Err(exit::Error::usage(
            "--idle-timeout goes with one --behind only",
        ));
    }
    let given_ms = args
        .idle_timeout
        .map(|it| u64::try_from(it.as_millis()).unwrap_or(u64::MAX));
    let behind = middleboxes().iter();
    let behind = behind.filter(|it| args.behind.contains(&it.id));
    let mut timeouts: Vec<_> = behind
        .map(|it| Timeout::of_middlebox(it, given_ms))
        .collect();
    if timeouts.is_empty() {
        timeouts.extend(given_ms.map(Timeout::given));
    }
    Ok(timeouts)
}
