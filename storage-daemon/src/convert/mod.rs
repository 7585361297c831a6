//! Between the schema's types and the block layer's: nothing here does anything but translate.

pub mod error;
pub mod events;
pub mod jobs;
pub mod nodes;
pub mod options;
pub mod stats;
