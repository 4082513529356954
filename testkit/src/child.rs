//! A child process that does not outlive its owner.

use std::ops::{Deref, DerefMut};
use std::process::Child;

/// A child process. Killed when dropped.
#[derive(Debug)]
pub struct Killed(pub Child);

impl Deref for Killed {
    type Target = Child;

    fn deref(&self) -> &Child {
        &self.0
    }
}

impl DerefMut for Killed {
    fn deref_mut(&mut self) -> &mut Child {
        &mut self.0
    }
}

impl Drop for Killed {
    fn drop(&mut self) {
        // The child may have ended before. An error changes nothing.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
