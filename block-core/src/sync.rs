//! Small helpers around locks.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks, also after another thread panicked while holding the lock: the data behind our locks are changed in single
/// steps, so that a poisoned lock still guards a consistent value.
pub(crate) fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
