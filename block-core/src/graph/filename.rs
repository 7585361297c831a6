//! The name by which people know what a node shows: a path where that says it all, else a `json:` description that
//! names the options which matter.

use std::fmt::Write;
use std::sync::Arc;

use super::{ChildRole, Node};
use crate::options::{BackingRef, DriverOptions, GivenValue, NodeOptions, NullOptions, place_in_table};

impl Node {
    /// The file name that queries show.
    pub fn filename(self: &Arc<Self>) -> String {
        let options = self.options();
        self.plain_filename_by(&options).unwrap_or_else(|| {
            // A filter that only watches shows what it filters.
            if let DriverOptions::CopyBeforeWrite(_) | DriverOptions::SnapshotAccess { .. } = &options.driver
                && let Some(child) = self.child("file")
            {
                return child.node().filename();
            }
            let mut out = "json:".to_owned();
            self.describe_by(&options, &mut out);
            out
        })
    }

    /// The name without a description, where there is one.
    fn plain_filename(self: &Arc<Self>) -> Option<String> {
        self.plain_filename_by(&self.options())
    }

    /// The same, by the node's options: they are copied once for each question, not for each part of the answer.
    fn plain_filename_by(self: &Arc<Self>, options: &NodeOptions) -> Option<String> {
        let strong = strong_options(&options.driver);
        // A file with rules has its place in the short form.
        let given = options
            .given
            .iter()
            .any(|(name, _)| listed(strong, name) && name != "config");
        // A format's file must be a protocol's: formats on formats are told in full.
        let below = || {
            let node = self.child("file")?.node();
            match &node.options().driver {
                DriverOptions::Raw(_)
                | DriverOptions::Qcow2(_)
                | DriverOptions::CopyBeforeWrite(_)
                | DriverOptions::SnapshotAccess { .. } => None,
                _ => node.plain_filename(),
            }
        };
        match &options.driver {
            _ if given => None,
            DriverOptions::Raw(raw) if raw.offset != 0 || raw.size.is_some() => None,
            DriverOptions::Qcow2(_) if self.is_backing_overridden() => None,
            DriverOptions::Raw(_) | DriverOptions::Qcow2(_) => below(),
            DriverOptions::NullCo(null) | DriverOptions::NullAio(null)
                if null.size != NullOptions::default().size =>
            {
                None
            }
            DriverOptions::Throttle { .. } => None,
            DriverOptions::CopyBeforeWrite(_) | DriverOptions::SnapshotAccess { .. } => {
                self.child("file")?.node().plain_filename()
            }
            DriverOptions::Blkdebug(blkdebug) => {
                let image = self.child("image")?.node().plain_filename()?;
                let config = blkdebug.config.as_deref().unwrap_or_default();
                Some(format!("blkdebug:{config}:{image}"))
            }
            DriverOptions::NullCo(_)
            | DriverOptions::NullAio(_)
            | DriverOptions::File(_)
            | DriverOptions::HostDevice(_)
            | DriverOptions::Nbd(_) => Some(self.driver().info().filename),
        }
    }

    /// Whether the backing node is another one than the image's header names.
    fn is_backing_overridden(self: &Arc<Self>) -> bool {
        let header = self.driver().info().backing_file.map(|(name, _)| name);
        match (header, self.backing()) {
            (None, None) => false,
            (Some(_), None) | (None, Some(_)) => true,
            (Some(header), Some(backing)) => {
                let from_image = match &self.options().driver {
                    DriverOptions::Qcow2(qcow2) => matches!(qcow2.backing, BackingRef::FromImage),
                    _ => false,
                };
                !from_image && header != backing.filename()
            }
        }
    }

    /// Appends the options that matter, as JSON.
    fn describe(self: &Arc<Self>, out: &mut String) {
        self.describe_by(&self.options(), out);
    }

    fn describe_by(self: &Arc<Self>, options: &NodeOptions, out: &mut String) {
        let strong = strong_options(&options.driver);
        let mut members: Vec<(String, Value)> = vec![(
            "driver".to_owned(),
            Value::Given(GivenValue::Text(self.driver().name().to_owned())),
        )];
        for (name, value) in options.given.iter().filter(|(name, _)| listed(strong, name)) {
            members.push((name.clone(), Value::Given(value.clone())));
        }
        // A file that the program itself opened has no options that were given.
        if let DriverOptions::File(file) | DriverOptions::HostDevice(file) = &options.driver {
            members.retain(|(name, _)| name != "filename");
            members.push((
                "filename".to_owned(),
                Value::Given(GivenValue::Text(file.filename.clone())),
            ));
        }
        for child in self.children() {
            if child.role() != ChildRole::Backing {
                members.push((child.name().to_owned(), Value::Node(child.node())));
            }
        }
        if matches!(&options.driver, DriverOptions::Qcow2(_)) && self.is_backing_overridden() {
            let backing = self.backing().map_or(Value::Given(GivenValue::Null), Value::Node);
            members.push(("backing".to_owned(), backing));
        }
        members.sort_by_key(|(name, _)| place_in_table(name));
        out.push('{');
        for (at, (name, value)) in members.iter().enumerate() {
            if at > 0 {
                out.push_str(", ");
            }
            quote(name, out);
            out.push_str(": ");
            match value {
                Value::Given(GivenValue::Null | GivenValue::Empty) => out.push_str("null"),
                Value::Given(GivenValue::Bool(value)) => {
                    let _ = write!(out, "{value}");
                }
                Value::Given(GivenValue::Number(value)) => {
                    let _ = write!(out, "{value}");
                }
                Value::Given(GivenValue::Text(text)) => quote(text, out),
                Value::Node(node) => node.describe(out),
            }
        }
        out.push('}');
    }
}

/// Options that change what a node shows: a name that leaves them out would name something else.
fn strong_options(driver: &DriverOptions) -> &'static [&'static str] {
    match driver {
        DriverOptions::Raw(_) => &["offset", "size"],
        DriverOptions::NullCo(_) | DriverOptions::NullAio(_) => &["size", "read-zeroes"],
        DriverOptions::Throttle { .. } => &["throttle-group"],
        DriverOptions::Blkdebug(_) => &[
            "config",
            "align",
            "max-transfer",
            "opt-write-zero",
            "max-write-zero",
            "opt-discard",
            "max-discard",
            "inject-error.",
            "set-state.",
        ],
        DriverOptions::File(_)
        | DriverOptions::HostDevice(_)
        | DriverOptions::Qcow2(_)
        | DriverOptions::CopyBeforeWrite(_)
        | DriverOptions::SnapshotAccess { .. }
        | DriverOptions::Nbd(_) => &[],
    }
}

fn listed(list: &[&str], name: &str) -> bool {
    list.iter()
        .any(|entry| *entry == name || (entry.ends_with('.') && name.starts_with(entry)))
}

enum Value {
    Given(GivenValue),
    Node(Arc<Node>),
}

/// Appends a JSON string.
fn quote(text: &str, out: &mut String) {
    out.push('"');
    let plain = |each: char| !matches!(each, '"' | '\\') && !each.is_control();
    if text.chars().all(plain) {
        out.push_str(text);
        out.push('"');
        return;
    }
    for each in text.chars() {
        match each {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '\r' => out.push_str("\\r"),
            each if each.is_control() => {
                let _ = write!(out, "\\u{:04x}", u32::from(each));
            }
            each => out.push(each),
        }
    }
    out.push('"');
}
