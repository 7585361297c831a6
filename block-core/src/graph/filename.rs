//! The name by which people know what a node shows: a path where that says it all, else a `json:` description that
//! names the options which matter.

use std::fmt::Write;
use std::sync::Arc;

use super::{ChildRole, Node};
use crate::options::{BackingRef, DriverOptions, NullOptions};

impl Node {
    /// The file name that queries show.
    pub fn filename(self: &Arc<Self>) -> String {
        self.plain_filename().unwrap_or_else(|| {
            let mut out = "json:".to_owned();
            self.describe(&mut out);
            out
        })
    }

    /// The name without a description, where there is one.
    fn plain_filename(self: &Arc<Self>) -> Option<String> {
        let below = |name: &str| self.child(name)?.node().plain_filename();
        match &self.options().driver {
            DriverOptions::Raw(raw) if raw.offset != 0 || raw.size.is_some() => None,
            DriverOptions::Raw(_) => below("file"),
            DriverOptions::Qcow2(_) if self.is_backing_overridden() => None,
            DriverOptions::Qcow2(_) => below("file"),
            DriverOptions::NullCo(null) if null.size != NullOptions::default().size => None,
            DriverOptions::Throttle { .. } => None,
            DriverOptions::NullCo(_)
            | DriverOptions::File(_)
            | DriverOptions::HostDevice(_)
            | DriverOptions::CopyBeforeWrite(_)
            | DriverOptions::SnapshotAccess { .. }
            | DriverOptions::Blkdebug(_)
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
        // The order of members is the one that clients have seen so far.
        let mut members: Vec<(&str, Value)> = Vec::new();
        let mut after = None;
        match &self.options().driver {
            DriverOptions::Raw(raw) => {
                if raw.offset != 0 {
                    members.push(("offset", Value::Number(raw.offset)));
                }
                after = raw.size.map(|size| ("size", Value::Number(size)));
            }
            DriverOptions::Qcow2(_) if self.is_backing_overridden() => {
                members.push(("backing", self.backing().map_or(Value::Null, Value::Node)));
            }
            DriverOptions::NullCo(null) if null.size != NullOptions::default().size => {
                after = Some(("size", Value::Number(null.size)));
            }
            DriverOptions::Throttle { throttle_group, .. } => {
                members.push(("throttle-group", Value::Text(throttle_group.clone())));
            }
            DriverOptions::File(file) | DriverOptions::HostDevice(file) => {
                after = Some(("filename", Value::Text(file.filename.clone())));
            }
            _ => {}
        }
        members.push(("driver", Value::Text(self.driver().name().to_owned())));
        members.extend(after);
        let children = self.children();
        for child in children.iter().filter(|child| child.role() != ChildRole::Backing) {
            members.push((child.name(), Value::Node(child.node())));
        }
        out.push('{');
        for (at, (name, value)) in members.iter().enumerate() {
            if at > 0 {
                out.push_str(", ");
            }
            quote(name, out);
            out.push_str(": ");
            match value {
                Value::Null => out.push_str("null"),
                Value::Number(number) => {
                    let _ = write!(out, "{number}");
                }
                Value::Text(text) => quote(text, out),
                Value::Node(node) => node.describe(out),
            }
        }
        out.push('}');
    }
}

enum Value {
    Null,
    Number(u64),
    Text(String),
    Node(Arc<Node>),
}

/// Appends a JSON string.
fn quote(text: &str, out: &mut String) {
    out.push('"');
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
