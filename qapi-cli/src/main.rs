//! The program `qapi`.

fn main() {}
