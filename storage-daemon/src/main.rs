//! The program `storage-daemon`.

use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Result<Vec<String>, _> = std::env::args_os()
        .skip(1)
        .map(std::ffi::OsString::into_string)
        .collect();
    match arguments {
        Ok(arguments) => ExitCode::from(storage_daemon::startup::run(&arguments)),
        Err(argument) => {
            eprintln!(
                "{}: {}: Unexpected argument (not UTF-8)",
                storage_daemon::process::program_name(),
                argument.display()
            );
            ExitCode::from(1)
        }
    }
}
