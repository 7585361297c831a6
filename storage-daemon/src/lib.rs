//! A drop-in for qemu-storage-daemon.
//!
//! This crate wires the pieces together: it reads the command line, translates between the schema's types and
//! the block layer's, and owns the sockets. It does not know how a cluster is copied or a message is scanned.

pub mod channels;
pub mod cli;
pub mod commands;
pub mod convert;
pub mod daemon;
pub mod exports;
pub mod membership;
pub mod names;
pub mod net;
pub mod objects;
pub mod passed;
pub mod process;
pub mod startup;
pub mod tls;
pub mod transaction;
