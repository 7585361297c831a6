//! The program `qapi`.

use std::process::ExitCode;

fn main() -> ExitCode {
    qapi_cli::main()
}
