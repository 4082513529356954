//! The process that holds a socket.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use crate::model::socket::Process;

/// The process that holds a socket, or that held it last. All its sockets and their records
/// share one copy; a change of one of them makes it a copy of its own.
#[derive(Clone, Debug, Default)]
pub struct Owner(Option<Arc<Process>>);

/// What is known of an owner that is not known.
static UNKNOWN: Process = Process::UNKNOWN;

/// How long an owner may be used that was named: until a time, or until something changes. Only
/// who names owners reads it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OwnerLease {
    /// It holds while this is the current generation.
    pub generation: u32,
    /// It holds before this time, s. 0 if it does not hold at all.
    pub until_s: u32,
}

impl Owner {
    /// Whether both share one copy, or neither is known. Two copies may be equal.
    #[must_use]
    pub fn is_same_copy(&self, other: &Self) -> bool {
        match (&self.0, &other.0) {
            (Some(own), Some(others)) => Arc::ptr_eq(own, others),
            (own, others) => own.is_none() && others.is_none(),
        }
    }

    /// Whether the process is known.
    #[must_use]
    pub const fn is_known(&self) -> bool {
        self.0.is_some()
    }
}

impl From<Process> for Owner {
    fn from(process: Process) -> Self {
        Self(Some(Arc::new(process)))
    }
}

impl Deref for Owner {
    type Target = Process;

    #[inline]
    fn deref(&self) -> &Process {
        self.0.as_deref().unwrap_or(&UNKNOWN)
    }
}

impl DerefMut for Owner {
    fn deref_mut(&mut self) -> &mut Process {
        Arc::make_mut(self.0.get_or_insert_default())
    }
}

impl PartialEq for Owner {
    fn eq(&self, other: &Self) -> bool {
        self.is_same_copy(other) || **self == **other
    }
}

impl Eq for Owner {}
