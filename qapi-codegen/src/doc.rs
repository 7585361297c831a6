//! Documentation comments.

pub mod markdown;
