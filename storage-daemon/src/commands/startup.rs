//! What options of the command line do: the same as the command of that name.

use qapi_runtime::policy::{InputPolicy, OutputPolicy};
use qapi_runtime::scanner::Scanner;
use qapi_runtime::{Decode, Document, Policy, StringEnum};
use schema::{
    BlockExportOptions, BlockdevOptions, MonitorInputPolicy, MonitorOutputPolicy, NbdServerOptions,
    ObjectOptions, ObjectType,
};

use crate::cli::CliError;
use crate::cli::keyval::Keyval;
use crate::daemon::Daemon;
use crate::objects::properties;

/// `--monitor`: which channel to speak QMP on.
#[derive(Debug, PartialEq)]
pub struct MonitorOptions {
    /// Id of the channel.
    pub chardev: String,
    /// Talk to people, which this program does not; the channel is looked for first.
    pub readline: bool,
    /// Lay messages out for people.
    pub pretty: bool,
    /// What its clients are held to, as far as it is said.
    pub compat: Option<schema::MonitorPolicy>,
}

impl MonitorOptions {
    /// What the monitor's clients are held to where the others are held to `policy`.
    pub fn policy(&self, mut policy: Policy) -> Policy {
        let Some(compat) = &self.compat else { return policy };
        let input = |asked: Option<MonitorInputPolicy>, otherwise| match asked {
            Some(MonitorInputPolicy::Accept) => InputPolicy::Accept,
            Some(MonitorInputPolicy::Reject) => InputPolicy::Reject,
            None => otherwise,
        };
        let output = |asked: Option<MonitorOutputPolicy>, otherwise| match asked {
            Some(MonitorOutputPolicy::Accept) => OutputPolicy::Accept,
            Some(MonitorOutputPolicy::Hide) => OutputPolicy::Hide,
            None => otherwise,
        };
        policy.deprecated_input = input(compat.deprecated_input, policy.deprecated_input);
        policy.deprecated_output = output(compat.deprecated_output, policy.deprecated_output);
        policy.unstable_input = input(compat.unstable_input, policy.unstable_input);
        policy.unstable_output = output(compat.unstable_output, policy.unstable_output);
        policy
    }
}

/// Reads the value of `--monitor`.
pub fn monitor(text: &str) -> Result<MonitorOptions, CliError> {
    let options: schema::MonitorOptions = decode(text, Some("chardev"))?;
    Ok(MonitorOptions {
        chardev: options.chardev,
        readline: options.mode == Some(schema::MonitorMode::Readline),
        pretty: options.pretty.unwrap_or(false),
        compat: options.compat,
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
            return Ok(Some(object_help(given.get("qom-type"))));
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

fn object_help(kind: Option<&str>) -> String {
    let creatable = ObjectType::VALUES.iter().map(StringEnum::wire_name);
    if let Some(kind) = kind
        && creatable.clone().any(|known| known == kind)
    {
        let mut lines: Vec<_> = properties::of_type(kind)
            .unwrap_or_default()
            .iter()
            .map(|property| format!("  {}=<{}>\n", property.name, property.type_name))
            .collect();
        lines.sort_unstable();
        return format!("{kind} options:\n{}", lines.concat());
    }
    let mut lines: Vec<_> = creatable.map(|kind| format!("  {kind}\n")).collect();
    lines.sort_unstable();
    format!("List of user creatable objects:\n{}", lines.concat())
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
