//! A child process that does not outlive its owner.

use std::ops::{Deref, DerefMut};
use std::process::Child;

/// A child that is killed when this is dropped.
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
        // Ended already or not: either way there is nothing left to do about it.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
