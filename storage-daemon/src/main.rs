//! The program `storage-daemon`.

fn main() {}
