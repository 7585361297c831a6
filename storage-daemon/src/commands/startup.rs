//! What options of the command line do: the same as the command of that name.

use qapi_runtime::scanner::Scanner;
use qapi_runtime::{Decode, Document};
use schema::{BlockExportOptions, BlockdevOptions, NbdServerOptions, ObjectOptions};

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
pub async fn blockdev(daemon: &Daemon, text: &str) -> Result<(), CliError> {
    let options: BlockdevOptions = decode(text, Some("driver"))?;
    daemon.add_node(options).await.map_err(CliError::new)
}

/// `--nbd-server`: the address is not nested as deep as in the command of that name.
pub async fn nbd_server(daemon: &Daemon, text: &str) -> Result<(), CliError> {
    let document = document(text, None)?;
    let root = document
        .root()
        .ok_or_else(|| CliError::new("Parameter 'addr' is missing"))?;
    let options = NbdServerOptions::decode(root).map_err(CliError::new)?;
    daemon
        .start_nbd_server(options.base, options.addr)
        .await
        .map_err(CliError::new)
}

/// `--export`
pub fn export(daemon: &Daemon, text: &str) -> Result<(), CliError> {
    let options: BlockExportOptions = decode(text, Some("type"))?;
    daemon.add_export(options).map_err(CliError::new)
}

/// `--object`; text to print instead, for `help`.
pub fn object(daemon: &Daemon, text: &str) -> Result<Option<String>, CliError> {
    if !text.starts_with('{') {
        let given = Keyval::parse(text, Some("qom-type"))?;
        if given.help {
            return object_help(given.get("qom-type")).map(Some);
        }
    }
    let options: ObjectOptions = decode(text, Some("qom-type"))?;
    // A bad id is told with more words here than to programs.
    if !crate::names::is_id(&options.id) {
        return Err(CliError::new(crate::names::id_expected("id")));
    }
    daemon.add_object(&options).map_err(CliError::new)?;
    Ok(None)
}

fn object_help(kind: Option<&str>) -> Result<String, CliError> {
    const KINDS: [&str; 4] = ["iothread", "secret", "throttle-group", "tls-creds-x509"];
    let Some(kind) = kind else {
        let list: String = KINDS.iter().map(|kind| format!("  {kind}\n")).collect();
        return Ok(format!("List of user creatable objects:\n{list}"));
    };
    match super::qom::properties(kind) {
        Some(properties) if KINDS.contains(&kind) => {
            let list: String = properties
                .iter()
                .filter(|(name, _)| *name != "type")
                .map(|(name, kind)| format!("  {name}=<{kind}>\n"))
                .collect();
            Ok(format!("{kind} options:\n{list}"))
        }
        _ => Err(CliError::new(format!(
            "Parameter 'qom-type' does not accept value '{kind}'"
        ))),
    }
}

/// An option's value as one of the schema's types.
fn decode<T: Decode>(text: &str, implied_key: Option<&str>) -> Result<T, CliError> {
    let document = document(text, implied_key)?;
    let root = document
        .root()
        .ok_or_else(|| CliError::new("Expecting at least one JSON value"))?;
    T::decode(root).map_err(CliError::new)
}

/// The value as a document: JSON where it begins with a brace, else `key=value`.
fn document(text: &str, implied_key: Option<&str>) -> Result<Document, CliError> {
    if !text.starts_with('{') {
        let given = Keyval::parse(text, implied_key)?;
        return if given.help {
            Err(no_help())
        } else {
            given.document()
        };
    }
    let mut scanner = Scanner::default();
    // A message ends with its last brace; blanks after it are nothing.
    let mut input = text.as_bytes();
    let document = match scanner.next(&mut input) {
        Some(Ok(document)) => document.clone(),
        Some(Err(error)) => return Err(CliError::new(error)),
        None => return Err(CliError::new("JSON parse error, premature EOI")),
    };
    if input.iter().any(|byte| !byte.is_ascii_whitespace()) {
        return Err(CliError::new("Expecting at most one JSON value"));
    }
    Ok(document)
}
