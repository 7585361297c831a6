//! Dirty bitmaps: which areas of a node were written since when.
//!
//! [`HBitmap`] is the plain set of bits; [`BitmapSet`] is what a node holds, with names, states and the rules of who may
//! change what; [`action`] has the steps that a transaction can undo. Formats that keep bitmaps are reached through
//! [`ImageStore`](crate::driver::ImageStore) by the callers; nothing here does I/O.

pub mod action;
mod digest;
mod hbitmap;
mod set;

pub use digest::for_each_piece;
pub use hbitmap::{HBitmap, Runs};
pub use set::{
    BitmapHandle, BitmapHold, BitmapInfo, BitmapMode, BitmapSet, BitmapSpec, BitmapUse, MAX_NAME_BYTES,
    default_granularity,
};
