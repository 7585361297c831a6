//! What options of the command line do: the same as the command of that name.

use crate::cli::CliError;
use crate::cli::keyval::Keyval;
use crate::daemon::Daemon;

/// `--monitor`: which channel to speak QMP on.
#[derive(Debug, PartialEq, Eq)]
pub struct MonitorOptions {
    /// Id of the channel.
    pub chardev: String,
}

/// Reads the value of `--monitor`.
pub fn monitor(text: &str) -> Result<MonitorOptions, CliError> {
    let given = Keyval::parse(text, Some("chardev"))?;
    if given.help {
        return Err(no_help());
    }
    let Some(chardev) = given.get("chardev") else {
        return Err(CliError::new("Parameter 'chardev' is missing"));
    };
    match given.get("mode") {
        None | Some("control") => {}
        Some("readline") => return Err(CliError::new("Only QMP is supported")),
        Some(mode) => {
            return Err(CliError::new(format!(
                "Parameter 'mode' does not accept value '{mode}'"
            )));
        }
    }
    // Accepted for compatibility: readers of JSON do not mind blanks, and their absence costs nobody.
    match given.get("pretty") {
        None | Some("on" | "yes" | "true" | "y" | "off" | "no" | "false" | "n") => {}
        Some(_) => return Err(CliError::new("Parameter 'pretty' expects 'on' or 'off'")),
    }
    given.only(&["chardev", "id", "mode", "pretty"])?;
    Ok(MonitorOptions {
        chardev: chardev.to_owned(),
    })
}

fn no_help() -> CliError {
    CliError::new("Help is not available for this option")
}

/// `--blockdev`
pub async fn blockdev(_daemon: &Daemon, _text: &str) -> Result<(), CliError> {
    Err(CliError::new("not there yet"))
}

/// `--nbd-server`
pub async fn nbd_server(_daemon: &Daemon, _text: &str) -> Result<(), CliError> {
    Err(CliError::new("not there yet"))
}

/// `--export`
pub async fn export(_daemon: &Daemon, _text: &str) -> Result<(), CliError> {
    Err(CliError::new("not there yet"))
}

/// `--object`; text to print instead, for `help`.
pub fn object(_daemon: &Daemon, _text: &str) -> Result<Option<String>, CliError> {
    Err(CliError::new("not there yet"))
}
