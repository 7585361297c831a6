//! The backing file that a header names: what has to be opened for it.
//!
//! Names are paths, relative to the image, or begin with a protocol. What a `json:` name says is for those to tell who
//! know the words of clients.

use super::{BlockError, ErrorKind, Result};
use crate::drivers::by_name::{self, Name};
use crate::graph::{Child, Graph};
use crate::options::{DriverOptions, FileOptions, NodeOptions, NodeRef, Qcow2Options, RawOptions};

fn unsupported(what: String) -> BlockError {
    BlockError::new(ErrorKind::Unsupported, what)
}

/// The file's name that a relative name is relative to: that of the first node with a name of its own below a node that
/// can only be described.
fn image_name(file: &Child) -> Result<String> {
    let mut node = file.node();
    loop {
        // A name that goes through the fault injector has the file's own behind the last colon.
        let name = node.filename();
        let name = name.trim_start_matches("blkdebug::");
        if !name.starts_with("json:") {
            return Ok(name.to_owned());
        }
        let Some(below) = node.child("file").or_else(|| node.child("image")) else {
            return Err(BlockError::new(
                ErrorKind::Invalid,
                format!("Cannot generate a base directory with the filename '{name}'"),
            ));
        };
        node = below.node();
    }
}

/// How to open the backing file that a header names.
pub(super) fn backing_options(
    graph: &Graph,
    file: &Child,
    name: &str,
    format: Option<&str>,
) -> Result<NodeRef> {
    let (driver, path) = match by_name::read(name)? {
        Name::Description(description) => {
            let options = graph.parse_description(description, format)?;
            return Ok(NodeRef::Options(Box::new(options)));
        }
        Name::Server(server) => (DriverOptions::Nbd(server), None),
        Name::Path(name) => {
            let filename = if name.starts_with('/') {
                name.to_owned()
            } else {
                let image = image_name(file)?;
                match image.rsplit_once('/') {
                    Some((folder, _)) => format!("{folder}/{name}"),
                    None => name.to_owned(),
                }
            };
            let driver = DriverOptions::File(FileOptions {
                filename: filename.clone(),
                ..FileOptions::default()
            });
            (driver, Some(filename))
        }
    };
    let below = NodeRef::Options(Box::new(NodeOptions {
        driver,
        ..NodeOptions::default()
    }));
    let raw = |file| {
        DriverOptions::Raw(RawOptions {
            file,
            offset: 0,
            size: None,
        })
    };
    let driver = match format {
        Some("qcow2") => qcow2_options(below),
        Some("raw") => raw(below),
        Some(other) => return Err(unsupported(format!("Unknown driver '{other}'"))),
        // An image without a format for its backing file: the content decides, where it is a file.
        None => match path.map(|path| std::fs::File::open(path).and_then(|mut file| magic(&mut file))) {
            Some(Ok(magic)) if &magic == b"QFI\xfb" => qcow2_options(below),
            _ => raw(below),
        },
    };
    Ok(NodeRef::Options(Box::new(NodeOptions {
        driver,
        ..NodeOptions::default()
    })))
}

fn magic(file: &mut std::fs::File) -> std::io::Result<[u8; 4]> {
    let mut magic = [0u8; 4];
    std::io::Read::read_exact(file, &mut magic).map(|()| magic)
}

fn qcow2_options(file: NodeRef) -> DriverOptions {
    DriverOptions::Qcow2(Qcow2Options::new(file))
}
