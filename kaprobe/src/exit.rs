//! The exit codes, and errors that carry one.

use std::fmt::{self, Display};
use std::io;

use rustix::io::Errno;

/// An exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    /// Success, or stopped on request.
    Ok = 0,
    /// Something failed on the way.
    Failure = 1,
    /// The command line makes no sense.
    Usage = 2,
    /// A privilege is missing.
    Privilege = 3,
    /// The kernel lacks what is needed.
    Kernel = 4,
    /// The audit has finished, and not every connection is known to be safe.
    NotSafe = 5,
}

impl From<Code> for std::process::ExitCode {
    fn from(code: Code) -> Self {
        Self::from(code as u8)
    }
}

/// An error with an exit code. As a context it gives its exit code to the error below it:
/// `result.context(Error::kernel("cannot attach …"))`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    code: Code,
    message: String,
}

impl Error {
    /// Something failed on the way.
    pub fn failure(message: impl Into<String>) -> Self {
        Self {
            code: Code::Failure,
            message: message.into(),
        }
    }

    /// The command line makes no sense.
    pub fn usage(message: impl Into<String>) -> Self {
        Self {
            code: Code::Usage,
            message: message.into(),
        }
    }

    /// A privilege is missing.
    pub fn privilege(message: impl Into<String>) -> Self {
        Self {
            code: Code::Privilege,
            message: message.into(),
        }
    }

    /// The kernel lacks what is needed.
    pub fn kernel(message: impl Into<String>) -> Self {
        Self {
            code: Code::Kernel,
            message: message.into(),
        }
    }

    /// Its exit code.
    #[must_use]
    pub fn code(&self) -> Code {
        self.code
    }
}

impl Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}

/// What this process or the host has run out of, if that is the cause of an error: of file
/// descriptors or memory. Such an error says nothing about what the kernel supports or
/// allows.
#[must_use]
pub fn exhausted(error: &anyhow::Error) -> Option<io::Error> {
    let raw = |cause: &(dyn std::error::Error + 'static)| match cause.downcast_ref::<io::Error>() {
        Some(io) => io.raw_os_error(),
        None => cause.downcast_ref().copied().map(Errno::raw_os_error),
    };
    let all = [Errno::MFILE, Errno::NFILE, Errno::NOMEM].map(Errno::raw_os_error);
    let found = error.chain().filter_map(raw).find(|raw| all.contains(raw));
    found.map(io::Error::from_raw_os_error)
}

/// The exit code of any error: that of the outermost [`Error`] in it, else
/// [`Code::Failure`]. An error by [`exhausted`] is always a [`Code::Failure`].
#[must_use]
pub fn code_of(error: &anyhow::Error) -> Code {
    match error.downcast_ref::<Unread>() {
        Some(unread) => code_of(&unread.error),
        None if exhausted(error).is_some() => Code::Failure,
        None => error
            .downcast_ref::<Error>()
            .map_or(Code::Failure, Error::code),
    }
}

/// An error of a command whose exit code is known: it has the error's message and source.
#[derive(Debug)]
struct Unread {
    error: anyhow::Error,
    code: Code,
}

impl Display for Unread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)
    }
}

impl std::error::Error for Unread {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.error.source()
    }
}

/// Adds to an error the exit code for the case that it only means that the reader of the
/// output has gone. In every other case [`code_of`] gives the code of the error.
#[must_use]
pub fn unread(error: anyhow::Error, code: Code) -> anyhow::Error {
    Unread { error, code }.into()
}

/// The exit code of a command when the reader of its output has gone: the one that
/// [`unread`] has added, or [`Code::Ok`].
#[must_use]
pub fn code_if_unread(error: &anyhow::Error) -> Code {
    error
        .downcast_ref::<Unread>()
        .map_or(Code::Ok, |unread| unread.code)
}

#[cfg(test)]
mod tests {
    use anyhow::{Context as _, anyhow};

    use super::*;

    #[test]
    fn what_has_run_out_is_not_what_the_kernel_lacks() {
        let of = |errno: Errno| io::Error::from(errno);
        let rows = [
            (anyhow!(of(Errno::MFILE)), Some(Errno::MFILE)),
            (anyhow!(Errno::NFILE), Some(Errno::NFILE)),
            (
                anyhow!(of(Errno::NOMEM)).context("deep"),
                Some(Errno::NOMEM),
            ),
            (anyhow!(of(Errno::PERM)), None),
            (anyhow!("EMFILE"), None),
        ];
        for (why, expected) in rows {
            let why = why.context(Error::kernel("no way to hook"));
            let found = exhausted(&why).and_then(|it| it.raw_os_error());
            assert_eq!(found, expected.map(Errno::raw_os_error), "{why:#}");
            let code = expected.map_or(Code::Kernel, |_| Code::Failure);
            assert_eq!(code_of(&why), code, "{why:#}");
        }
    }

    #[test]
    fn an_error_is_a_message_and_one_code() {
        let plain = anyhow!("deep\nreason");
        let rows = [
            (
                plain.context("on top"),
                Code::Failure,
                "on top: deep\nreason",
            ),
            (Error::usage("bad port").into(), Code::Usage, "bad port"),
            (
                anyhow!("EPERM").context(Error::privilege("cannot load")),
                Code::Privilege,
                "cannot load: EPERM",
            ),
            (
                anyhow::Error::from(Error::kernel("no BTF")).context("tracing"),
                Code::Kernel,
                "tracing: no BTF",
            ),
        ];
        for (error, code, text) in rows {
            let message = format!("{error:#}");
            assert_eq!((code_of(&error), message.as_str()), (code, text));
        }
        let at_end = unread(anyhow!("EPIPE").context(Error::kernel("x")), Code::NotSafe);
        assert_eq!(format!("{at_end:#}"), "x: EPIPE");
        assert_eq!(code_of(&at_end), Code::Kernel);
        assert_eq!(code_if_unread(&at_end), Code::NotSafe);
        assert_eq!(code_if_unread(&anyhow!("EPIPE")), Code::Ok);
        let through: anyhow::Result<()> = Err(Error::kernel("x")).context("y");
        assert_eq!(through.map_err(|e| code_of(&e)), Err(Code::Kernel));
    }
}
