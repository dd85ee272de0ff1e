//! Ends the wait of a worker.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::FromRawFd;
use std::sync::Arc;

/// Ends the wait of a worker from another thread.
#[derive(Clone, Debug)]
pub struct Waker(pub(super) Arc<File>);

impl Waker {
    pub(super) fn new() -> io::Result<Self> {
        // SAFETY: no pointers; the descriptor is checked before it is owned.
        let fd = unsafe { libc::eventfd(0, libc::EFD_NONBLOCK | libc::EFD_CLOEXEC) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: `fd` was just opened and belongs to nobody else.
        Ok(Self(Arc::new(unsafe { File::from_raw_fd(fd) })))
    }

    /// Makes the worker's wait end, now or as soon as it begins.
    pub fn wake(&self) {
        // Fails only if 2^64 - 2 wakes are pending: it will wake, then.
        let _ = (&*self.0).write(&1u64.to_ne_bytes());
    }

    pub(super) fn reset(&self) {
        let mut count = [0; 8];
        let _ = (&*self.0).read(&mut count);
    }
}
