//! What a node's image is called: a plain name where that says all, else a `json:` description.
//!
//! Such a name is written into overlays as their backing file's, so it must describe what is really below: an
//! image whose backing file is another than its header says is described whole.

use std::sync::Arc;

use block_core::graph::{ChildRole, Node};
use block_core::options::{DriverOptions, NbdAddress, NullOptions};
use serde_json::{Map, Value, json};

use super::nodes::resolve;

/// How deep descriptions nest at most.
const MAX_DEPTH: usize = 64;

/// The name of a node's image.
pub fn filename(node: &Arc<Node>) -> String {
    match exact(node, 0) {
        Some(name) => name,
        None => format!("json:{}", spaced(&description(node, 0))),
    }
}

/// The plain name, where there is one that says all.
fn exact(node: &Arc<Node>, depth: usize) -> Option<String> {
    if depth > MAX_DEPTH {
        return Some(node.driver().info().filename);
    }
    match node.options().driver {
        DriverOptions::File(file) | DriverOptions::HostDevice(file) => Some(file.filename),
        DriverOptions::NullCo(null) => {
            (null.size == NullOptions::default().size && !null.read_zeroes).then(|| "null-co://".to_owned())
        }
        DriverOptions::Raw(raw) => {
            if raw.offset != 0 || raw.size.is_some() {
                return None;
            }
            exact(&child(node, &[ChildRole::Storage, ChildRole::Filtered])?, depth + 1)
        }
        DriverOptions::Qcow2(_) => {
            if backing_is_overridden(node, depth) {
                return None;
            }
            exact(&child(node, &[ChildRole::Storage])?, depth + 1)
        }
        DriverOptions::Blkdebug(blkdebug) => {
            let plain = blkdebug.inject_error.is_empty()
                && blkdebug.set_state.is_empty()
                && blkdebug.align == 0
                && blkdebug.max_transfer == 0;
            let below = exact(&child(node, &[ChildRole::Filtered, ChildRole::Storage])?, depth + 1)?;
            plain.then(|| format!("blkdebug::{below}"))
        }
        DriverOptions::CopyBeforeWrite(_) | DriverOptions::SnapshotAccess { .. } => {
            Some(filename(&child(node, &[ChildRole::Filtered, ChildRole::Storage])?))
        }
        DriverOptions::Throttle { .. } => None,
        DriverOptions::Nbd(nbd) => {
            let export = nbd.export.map(|export| format!("/{export}")).unwrap_or_default();
            Some(match nbd.server {
                NbdAddress::Unix(path) => format!("nbd+unix://{export}?socket={path}"),
                NbdAddress::Inet { host, port } => format!("nbd://{host}:{port}{export}"),
            })
        }
        _ => Some(node.driver().info().filename),
    }
}

fn child(node: &Arc<Node>, roles: &[ChildRole]) -> Option<Arc<Node>> {
    node.children().into_iter().find(|child| roles.contains(&child.role())).map(|child| child.node())
}

/// Whether what is below is another than the header of the image says.
fn backing_is_overridden(node: &Arc<Node>, depth: usize) -> bool {
    let info = node.driver().info();
    match (child(node, &[ChildRole::Backing]), info.backing_file) {
        (None, None) => false,
        (Some(_), None) | (None, Some(_)) => true,
        (Some(below), Some((name, _))) => {
            let image = child(node, &[ChildRole::Storage]).and_then(|file| exact(&file, depth + 1)).unwrap_or_default();
            resolve(&image, &name).as_deref() != Some(filename(&below).as_str())
        }
    }
}

/// All that is needed to open such a node again, but for names.
fn description(node: &Arc<Node>, depth: usize) -> Value {
    let mut members = Map::new();
    let driver = node.driver().name();
    members.insert("driver".into(), json!(driver));
    let mut below = |name: &str, roles: &[ChildRole], members: &mut Map<String, Value>| {
        if let Some(found) = child(node, roles).filter(|_| depth <= MAX_DEPTH) {
            members.insert(name.into(), description(&found, depth + 1));
        }
    };
    match node.options().driver {
        DriverOptions::File(file) | DriverOptions::HostDevice(file) => {
            members.insert("filename".into(), json!(file.filename));
        }
        DriverOptions::NullCo(null) => {
            if null.size != NullOptions::default().size {
                members.insert("size".into(), json!(null.size));
            }
            if null.read_zeroes {
                members.insert("read-zeroes".into(), json!(true));
            }
        }
        DriverOptions::Raw(raw) => {
            if raw.offset != 0 {
                members.insert("offset".into(), json!(raw.offset));
            }
            if let Some(size) = raw.size {
                members.insert("size".into(), json!(size));
            }
            below("file", &[ChildRole::Storage, ChildRole::Filtered], &mut members);
        }
        DriverOptions::Qcow2(_) => {
            if backing_is_overridden(node, depth) {
                members.insert("backing".into(), Value::Null);
                below("backing", &[ChildRole::Backing], &mut members);
            }
            below("file", &[ChildRole::Storage], &mut members);
        }
        DriverOptions::Throttle { throttle_group, .. } => {
            members.insert("throttle-group".into(), json!(throttle_group));
            below("file", &[ChildRole::Filtered, ChildRole::Storage], &mut members);
        }
        DriverOptions::Blkdebug(blkdebug) => {
            if blkdebug.align != 0 {
                members.insert("align".into(), json!(blkdebug.align));
            }
            below("image", &[ChildRole::Filtered, ChildRole::Storage], &mut members);
        }
        DriverOptions::CopyBeforeWrite(_) | DriverOptions::SnapshotAccess { .. } => {
            if let Some(found) = child(node, &[ChildRole::Filtered, ChildRole::Storage]) {
                return description(&found, depth + 1);
            }
        }
        DriverOptions::Nbd(nbd) => {
            match nbd.server {
                NbdAddress::Unix(path) => {
                    members.insert("server.type".into(), json!("unix"));
                    members.insert("server.path".into(), json!(path));
                }
                NbdAddress::Inet { host, port } => {
                    members.insert("server.type".into(), json!("inet"));
                    members.insert("server.host".into(), json!(host));
                    members.insert("server.port".into(), json!(port));
                }
            }
            if let Some(export) = nbd.export {
                members.insert("export".into(), json!(export));
            }
        }
        _ => {}
    }
    Value::Object(members)
}

/// The order in which clients know the members of such descriptions; others follow.
const ORDER: [&str; 10] = [
    "image", "throttle-group", "offset", "read-zeroes", "backing", "driver", "size", "file", "filename", "align",
];

/// JSON with a blank after each comma and colon.
fn spaced(value: &Value) -> String {
    match value {
        Value::Object(members) => {
            let rank = |name: &str| ORDER.iter().position(|known| *known == name).unwrap_or(ORDER.len());
            let mut sorted: Vec<_> = members.iter().collect();
            sorted.sort_by_key(|(name, _)| rank(name));
            let inside: Vec<String> =
                sorted.into_iter().map(|(name, value)| format!("{}: {}", Value::from(name.as_str()), spaced(value))).collect();
            format!("{{{}}}", inside.join(", "))
        }
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_have_their_order_and_blanks() {
        let value = json!({"file": {"filename": "a \"b\"", "driver": "file"}, "size": 5, "driver": "raw", "offset": 1});
        assert_eq!(
            spaced(&value),
            r#"{"offset": 1, "driver": "raw", "size": 5, "file": {"driver": "file", "filename": "a \"b\""}}"#
        );
    }
}
