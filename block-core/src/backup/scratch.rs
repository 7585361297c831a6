//! Memory for bytes on their way from one place to another, on threads that wait for the kernel.

use std::cell::RefCell;

/// Runs with a buffer that each thread keeps for itself.
pub fn with_buffer<T>(len: usize, run: impl FnOnce(&mut [u8]) -> T) -> T {
    thread_local! {
        static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
    }
    BUFFER.with_borrow_mut(|buffer| {
        if buffer.len() < len {
            buffer.resize(len, 0);
        }
        run(buffer.get_mut(..len).unwrap_or_default())
    })
}
