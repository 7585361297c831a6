//! Names that stand for nodes: paths, servers and descriptions, as headers of images and clients give them.

use crate::error::{BlockError, ErrorKind, Result};
use crate::options::{NbdAddress, NbdOptions};

/// The port of NBD servers that are named without one.
const NBD_PORT: &str = "10809";

/// What a name says.
#[derive(Debug)]
pub enum Name<'a> {
    /// A file, by its path.
    Path(&'a str),
    /// A server.
    Server(NbdOptions),
    /// Options of a node, which those read who know the words of clients.
    Description(&'a str),
}

/// Reads a name. A protocol ends with the first colon, unless a slash comes before.
pub fn read(name: &str) -> Result<Name<'_>> {
    let name = name.strip_prefix("file:").unwrap_or(name);
    if let Some(description) = name.strip_prefix("json:") {
        return Ok(Name::Description(description));
    }
    let protocol = name
        .split_once(':')
        .map(|(protocol, _)| protocol)
        .filter(|protocol| !protocol.contains('/'));
    match protocol {
        Some("nbd" | "nbd+unix" | "nbd+tcp") => Ok(Name::Server(nbd_options(name)?)),
        Some(protocol) => Err(BlockError::new(
            ErrorKind::Unsupported,
            format!("Unknown protocol '{protocol}'"),
        )),
        None => Ok(Name::Path(name)),
    }
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
        for (name, path) in [("/a:b", "/a:b"), ("file:c", "c"), ("./x:y", "./x:y")] {
            assert!(
                matches!(read(name), Ok(Name::Path(found)) if found == path),
                "{name}"
            );
        }
        assert!(matches!(read("json:{}"), Ok(Name::Description("{}"))));
        for (name, text) in [("foo:x", "Unknown protocol 'foo'"), (":x", "Unknown protocol ''")] {
            assert_eq!(read(name).unwrap_err().to_string(), text);
        }
        assert!(nbd_options("nbd+unix:///e").is_err());
        assert!(nbd_options("nbd:e").is_err());
    }
}
