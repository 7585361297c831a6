//! The backing file that a header names: what has to be opened for it.
//!
//! Names are paths, relative to the image, or begin with a protocol. What a `json:` name says is for those to tell who
//! know the words of clients.

use super::{BlockError, ErrorKind, Result};
use crate::graph::{Child, Graph};
use crate::options::{
    DriverOptions, FileOptions, NbdAddress, NbdOptions, NodeOptions, NodeRef, Qcow2Options, RawOptions,
};

/// The port of NBD servers that are named without one.
const NBD_PORT: &str = "10809";

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
    let name = name.strip_prefix("file:").unwrap_or(name);
    if let Some(description) = name.strip_prefix("json:") {
        let options = graph.parse_description(description, format)?;
        return Ok(NodeRef::Options(Box::new(options)));
    }
    let protocol = name
        .split_once(':')
        .map(|(protocol, _)| protocol)
        .filter(|protocol| !protocol.contains('/'));
    let (driver, path) = match protocol {
        Some("nbd" | "nbd+unix" | "nbd+tcp") => (DriverOptions::Nbd(nbd_options(name)?), None),
        Some(protocol) => return Err(unsupported(format!("Unknown protocol '{protocol}'"))),
        None => {
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

/// A server by its name: `nbd:unix:PATH[:exportname=E]`, `nbd:HOST:PORT[:exportname=E]`, `nbd://HOST[:PORT]/E` or
/// `nbd+unix:///E?socket=PATH`.
fn nbd_options(name: &str) -> Result<NbdOptions> {
    let invalid = || BlockError::new(ErrorKind::Invalid, format!("No valid URL specified: '{name}'"));
    let (server, export) = if let Some(rest) = name.strip_prefix("nbd+unix://") {
        let (path, query) = rest.split_once('?').ok_or_else(invalid)?;
        let socket = query
            .split('&')
            .find_map(|part| part.strip_prefix("socket="))
            .ok_or_else(invalid)?;
        let export = path.trim_start_matches('/');
        (NbdAddress::Unix(unescape(socket)), unescape(export))
    } else if let Some(rest) = name
        .strip_prefix("nbd://")
        .or_else(|| name.strip_prefix("nbd+tcp://"))
    {
        let (authority, export) = rest.split_once('/').unwrap_or((rest, ""));
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => (host, port),
            _ => (authority, NBD_PORT),
        };
        let address = NbdAddress::Inet {
            host: host.trim_matches(['[', ']']).to_owned(),
            port: port.to_owned(),
        };
        (address, unescape(export))
    } else {
        let rest = name.strip_prefix("nbd:").ok_or_else(invalid)?;
        let (place, export) = match rest.split_once(":exportname=") {
            Some((place, export)) => (place, export),
            None => (rest, ""),
        };
        let address = match place.strip_prefix("unix:") {
            Some(path) => NbdAddress::Unix(path.to_owned()),
            None => {
                let (host, port) = place.rsplit_once(':').ok_or_else(invalid)?;
                NbdAddress::Inet {
                    host: host.trim_matches(['[', ']']).to_owned(),
                    port: port.to_owned(),
                }
            }
        };
        (address, export.to_owned())
    };
    Ok(NbdOptions {
        server,
        export: (!export.is_empty()).then_some(export),
        tls_creds: None,
        tls_hostname: None,
        x_dirty_bitmap: None,
        reconnect_delay: 0,
        open_timeout: 0,
    })
}

/// Takes the `%XX` of a URI away.
fn unescape(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let code = after
            .get(..2)
            .filter(|_| first == b'%')
            .and_then(|code| std::str::from_utf8(code).ok())
            .and_then(|code| u8::from_str_radix(code, 16).ok());
        match code {
            Some(code) => {
                bytes.push(code);
                rest = after.get(2..).unwrap_or_default();
            }
            None => {
                bytes.push(first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nbd_servers_by_name() {
        let unix = |path: &str| NbdAddress::Unix(path.to_owned());
        let inet = |host: &str, port: &str| NbdAddress::Inet {
            host: host.to_owned(),
            port: port.to_owned(),
        };
        for (name, server, export) in [
            ("nbd:unix:/run/x:exportname=e", unix("/run/x"), Some("e")),
            ("nbd:unix:/run/x", unix("/run/x"), None),
            ("nbd:localhost:10809", inet("localhost", "10809"), None),
            ("nbd://localhost/e", inet("localhost", "10809"), Some("e")),
            ("nbd://[::1]:99/e", inet("::1", "99"), Some("e")),
            ("nbd+unix:///a%20b?socket=/run/y", unix("/run/y"), Some("a b")),
        ] {
            let options = nbd_options(name).unwrap();
            assert_eq!(options.server, server);
            assert_eq!(options.export.as_deref(), export);
        }
        assert!(nbd_options("nbd+unix:///e").is_err());
        assert!(nbd_options("nbd:e").is_err());
    }
}
