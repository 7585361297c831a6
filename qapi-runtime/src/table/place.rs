//! Making values where they are to be.

use std::marker::PhantomData;
use std::mem::MaybeUninit;

/// Room for a value of type `T`.
///
/// Only this crate makes places, and for each lifetime `'p` one: a [`Filled`] of that lifetime is for this place.
#[derive(Debug)]
pub struct Place<'p, T> {
    pointer: *mut T,
    /// Neither longer nor shorter lifetimes will do.
    only: PhantomData<fn(&'p ()) -> &'p ()>,
}

/// The proof that the place was filled.
#[derive(Debug)]
#[must_use]
pub struct Filled<'p, T> {
    of: PhantomData<fn() -> T>,
    only: PhantomData<fn(&'p ()) -> &'p ()>,
}

impl<'p, T> Place<'p, T> {
    /// # Safety
    /// The pointer is good for writing a `T`. When a `Filled` is there, a `T` is; the caller takes care of it.
    pub(crate) unsafe fn new(pointer: *mut T) -> Self {
        Place {
            pointer,
            only: PhantomData,
        }
    }

    pub(super) fn pointer(&self) -> *mut u8 {
        self.pointer.cast()
    }

    /// # Safety
    /// The value was written.
    pub(super) unsafe fn filled(self) -> Filled<'p, T> {
        Filled {
            of: PhantomData,
            only: PhantomData,
        }
    }

    /// Puts the value there.
    pub fn fill(self, value: T) -> Filled<'p, T> {
        // SAFETY: a place is good for writing, and now it was written.
        unsafe {
            self.pointer.write(value);
            self.filled()
        }
    }
}

/// Makes a value from what fills a place.
pub(crate) fn make<T, E>(
    fill: impl for<'p> FnOnce(Place<'p, T>) -> Result<Filled<'p, T>, E>,
) -> Result<T, E> {
    let mut room = MaybeUninit::uninit();
    // SAFETY: there is room for a `T`, and when the place is filled there is one.
    unsafe {
        match fill(Place::new(room.as_mut_ptr())) {
            Ok(_) => Ok(room.assume_init()),
            Err(error) => Err(error),
        }
    }
}
