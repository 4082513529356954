//! Takes a snapshot so that other programs hardly feel it: what a trace starts from is not
//! urgent.

use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use rustix::thread::{CapabilitySet, Pid, capabilities, gettid};
use rustix::time::{ClockId, clock_gettime};

/// How long loading the programs waits for CPU time that nothing else wants.
const PATIENCE: Duration = Duration::from_secs(2);

/// Each pause is this many times as long as the CPU time used since the last.
const PAUSE: u32 = 9;

/// How long all pauses of a snapshot may be together.
const MOST_PAUSES: Duration = Duration::from_secs(5);

/// A CPU time after which there is a pause. Other threads of this CPU wait no longer than that.
const SLICE: Duration = Duration::from_micros(200);

/// Runs `act` on a thread that takes only CPU time that nothing else wants, and after
/// [`PATIENCE`] like any other.
///
/// `act` must hold no lock of the kernel that other programs wait for, such as that of a socket:
/// they would wait until this thread gets CPU time.
///
/// # Errors
/// When no thread can be started, or `act` panics.
pub(super) fn in_idle_time<T: Send>(act: impl FnOnce() -> T + Send) -> Result<T> {
    thread::scope(|scope| {
        let ((begun, thread_id), (ended, end)) = (channel(), channel());
        let thread = thread::Builder::new().name("load".to_owned());
        let thread = thread
            .spawn_scoped(scope, move || {
                let _waits = begun.send(make_idle());
                let done = act();
                let _has_waited = ended.send(());
                done
            })
            .context("cannot start a thread")?;
        let idle = thread_id.recv().ok().flatten();
        if let Some(idle) = idle
            && end.recv_timeout(PATIENCE) == Err(RecvTimeoutError::Timeout)
        {
            let _is_over = set_policy(idle, libc::SCHED_OTHER);
        }
        thread.join().map_err(|_| anyhow!("a thread has died"))
    })
}

/// Gives this thread only CPU time that nothing else wants, if that can be undone: only
/// CAP_SYS_NICE allows it (`user_check_sched_setscheduler`, kernel/sched/syscalls.c).
fn make_idle() -> Option<Pid> {
    let mine = capabilities(None).ok()?.effective;
    if !mine.contains(CapabilitySet::SYS_NICE) {
        return None;
    }
    let own = gettid();
    set_policy(own, libc::SCHED_IDLE).then_some(own)
}

/// Sets the scheduling policy of a thread. Returns whether that is allowed.
fn set_policy(thread: Pid, policy: libc::c_int) -> bool {
    let priority = libc::sched_param { sched_priority: 0 };
    // SAFETY: the kernel reads the struct during the call, and checks the other arguments.
    unsafe {
        libc::sched_setscheduler(thread.as_raw_nonzero().get(), policy, &raw const priority) == 0
    }
}

/// Pauses between slices of work, on one thread.
#[derive(Debug, Default)]
pub(super) struct Pauses {
    /// CPU time of the thread at the end of the last pause.
    worked: Option<Duration>,
    /// How long all pauses were so far.
    paused: Duration,
}

impl Pauses {
    /// Pauses if the thread has worked for a while since the last pause. Call it often, and
    /// without a lock of the kernel.
    pub(super) fn pause(&mut self) {
        let Ok(now) = Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)) else {
            return;
        };
        let since = now.saturating_sub(*self.worked.get_or_insert(now));
        if since < SLICE {
            return;
        }
        let pause = self.next_pause(since);
        thread::sleep(pause);
        self.worked = Some(now);
    }

    /// The length of a pause after so much work.
    fn next_pause(&mut self, worked: Duration) -> Duration {
        let pause = (worked * PAUSE).min(MOST_PAUSES.saturating_sub(self.paused));
        self.paused += pause;
        pause
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_are_bounded() {
        let mut pauses = Pauses::default();
        let ms = Duration::from_millis;
        assert_eq!(pauses.next_pause(ms(1)), ms(9));
        assert_eq!(pauses.next_pause(ms(500)), ms(4_500));
        assert_eq!(pauses.next_pause(ms(500)), ms(491));
        assert_eq!(pauses.next_pause(ms(500)), Duration::ZERO);
    }

    #[test]
    fn what_is_done_in_idle_time_is_done() -> Result<()> {
        let policy = || {
            // SAFETY: the kernel checks the argument; 0 is the calling thread.
            unsafe { libc::sched_getscheduler(0) }
        };
        let mine = capabilities(None)?.effective;
        let expected = match mine.contains(CapabilitySet::SYS_NICE) {
            true => libc::SCHED_IDLE,
            false => libc::SCHED_OTHER,
        };
        assert_eq!(in_idle_time(policy)?, expected);
        assert_eq!(policy(), libc::SCHED_OTHER);
        Ok(())
    }
}
