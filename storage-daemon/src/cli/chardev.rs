//! `--chardev`: the channels that monitors speak on.
//!
//! The syntax is older than that of the other options: flat, every key of the backend known here, and a bare
//! key switches something on (`server`) or off (`nowait`).

use super::CliError;

/// A channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chardev {
    /// Its id.
    pub id: String,
    /// What it is.
    pub backend: Backend,
}

/// Kinds of channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Backend {
    /// Swallows all.
    Null,
    /// Standard input and output.
    Stdio,
    /// A pair of named pipes, `PATH.in` and `PATH.out`, or one file for both directions.
    Pipe {
        /// What their names begin with.
        path: String,
    },
    /// A socket.
    Socket {
        /// Where.
        address: Address,
        /// Listen rather than connect.
        server: bool,
        /// Hold the start-up until the first client has come.
        wait: bool,
        /// Connect again this long after the connection was lost; 0 is never.
        reconnect_ms: u64,
    },
}

/// Where a socket is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// In the file system, or an abstract name.
    Unix {
        /// Path or name.
        path: String,
        /// It is an abstract name.
        is_abstract: bool,
    },
    /// TCP.
    Inet {
        /// Host name or address.
        host: String,
        /// Port number or service name.
        port: String,
        /// The last port to try.
        to: Option<u16>,
        /// IPv4 may be used.
        ipv4: Option<bool>,
        /// IPv6 may be used.
        ipv6: Option<bool>,
    },
    /// A descriptor that was passed on, by its number or by the name that systemd gave it.
    Descriptor(String),
}

const SOCKET_KEYS: &[&str] = &[
    "path",
    "abstract",
    "tight",
    "host",
    "port",
    "to",
    "ipv4",
    "ipv6",
    "fd",
    "server",
    "wait",
    "delay",
    "nodelay",
    "telnet",
    "tn3270",
    "websocket",
    "tls-creds",
    "tls-authz",
    "reconnect",
    "reconnect-ms",
];
/// Keys that every backend takes; those of ours that have no meaning here are accepted and ignored.
const COMMON_KEYS: &[&str] = &["id", "backend", "mux", "signal", "logfile", "logappend"];

impl Chardev {
    /// Parses the value of `--chardev`.
    pub fn parse(text: &str) -> Result<Self, CliError> {
        let items = items(text)?;
        let get = |key: &str| {
            items
                .iter()
                .rev()
                .find(|item| item.name == key)
                .map(|item| item.value.as_str())
        };
        let no_id = || CliError::new("chardev: no id specified");
        if get("id").is_some_and(|id| !crate::names::is_id(id)) {
            return Err(CliError::new(crate::names::id_expected("id")));
        }
        let Some(backend) = get("backend") else {
            let id = get("id").ok_or_else(no_id)?;
            return Err(CliError::new(format!("chardev: \"{id}\" missing backend")));
        };
        let keys: &[&str] = match backend {
            "null" => &[],
            "stdio" => &["signal"],
            "socket" => SOCKET_KEYS,
            "pipe" => &["path"],
            other => {
                return Err(CliError::new(format!(
                    "'{other}' is not a valid char driver name"
                )));
            }
        };
        let id = get("id").ok_or_else(no_id)?;
        for Item { name, .. } in &items {
            if !keys.contains(&name.as_str()) && !COMMON_KEYS.contains(&name.as_str()) {
                return Err(CliError::new(format!("Invalid parameter '{name}'")));
            }
        }
        if get("logfile").is_some() {
            return Err(CliError::new("'logfile' is not supported: see --log and --audit"));
        }
        let flag = |key: &str| get(key).map(|value| switch(key, value)).transpose();
        let backend = match backend {
            "stdio" => {
                // Who wants the terminal's own signals has them: no terminal is put into raw mode here.
                flag("signal")?;
                Backend::Stdio
            }
            "pipe" => Backend::Pipe {
                path: get("path")
                    .ok_or_else(|| CliError::new("chardev: pipe: no device path given"))?
                    .to_owned(),
            },
            "socket" => {
                for refused in ["telnet", "tn3270", "websocket"] {
                    if flag(refused)? == Some(true) {
                        return Err(CliError::new(format!("'{refused}' is not supported")));
                    }
                }
                if get("tls-authz").is_some() && get("tls-creds").is_none() {
                    return Err(CliError::new("'tls_authz' option requires 'tls_creds' option"));
                }
                if get("tls-creds").is_some() {
                    return Err(CliError::new(
                        "'tls-creds' is not supported for character devices",
                    ));
                }
                let server = flag("server")?.unwrap_or(false);
                let wait = flag("wait")?;
                if wait.is_some() && !server {
                    return Err(CliError::new(
                        "'wait' option is incompatible with socket in client connect mode",
                    ));
                }
                let address = address(&get, &flag)?;
                if get("reconnect").is_some() && get("reconnect-ms").is_some() {
                    return Err(CliError::new(
                        "'reconnect' and 'reconnect-ms' are mutually exclusive",
                    ));
                }
                for key in ["reconnect", "reconnect-ms"] {
                    if server && get(key).is_some() {
                        return Err(CliError::new(
                            "'reconnect' option is incompatible with socket in server listen mode",
                        ));
                    }
                }
                let reconnect =
                    number::<u64>("reconnect", get("reconnect"))?.map(|seconds| seconds.saturating_mul(1000));
                Backend::Socket {
                    address,
                    server,
                    wait: server && wait.unwrap_or(true),
                    reconnect_ms: number("reconnect-ms", get("reconnect-ms"))?
                        .or(reconnect)
                        .unwrap_or(0),
                }
            }
            // Only the names that were let through above are left.
            _ => Backend::Null,
        };
        Ok(Self {
            id: id.to_owned(),
            backend,
        })
    }
}

fn address<'v>(
    get: &impl Fn(&str) -> Option<&'v str>,
    flag: &impl Fn(&str) -> Result<Option<bool>, CliError>,
) -> Result<Address, CliError> {
    match (get("path"), get("host"), get("fd")) {
        (Some(path), None, None) => Ok(Address::Unix {
            path: path.to_owned(),
            is_abstract: flag("abstract")?.unwrap_or(false),
        }),
        (None, Some(host), None) => Ok(Address::Inet {
            host: host.to_owned(),
            port: get("port")
                .ok_or_else(|| CliError::new("chardev: socket: no port given"))?
                .to_owned(),
            to: number("to", get("to"))?,
            ipv4: flag("ipv4")?,
            ipv6: flag("ipv6")?,
        }),
        (None, None, Some(fd)) => Ok(Address::Descriptor(fd.to_owned())),
        (None, None, None) => Err(CliError::new("Unable to parse FD number ")),
        _ => Err(CliError::new(
            "None or one of 'path', 'fd' or 'host' option required.",
        )),
    }
}

fn switch(key: &str, value: &str) -> Result<bool, CliError> {
    match value {
        "on" | "yes" | "true" | "y" => Ok(true),
        "off" | "no" | "false" | "n" => Ok(false),
        _ => Err(CliError::new(format!("Parameter '{key}' expects 'on' or 'off'"))),
    }
}

fn number<T: std::str::FromStr>(key: &str, value: Option<&str>) -> Result<Option<T>, CliError> {
    value
        .map(|text| {
            text.parse()
                .map_err(|_| CliError::new(format!("Parameter '{key}' expects a number")))
        })
        .transpose()
}

/// What is said of each switch that is written without a value.
pub fn deprecations(text: &str) -> Result<Vec<String>, CliError> {
    let warning = |Item { name, value, short }: Item| {
        let short = short?;
        // The switch is one that takes something away: `delay` is its opposite.
        let (name, value) = match (name.as_str(), value.as_str()) {
            ("delay", "on") => ("nodelay", "off"),
            other => other,
        };
        Some(format!(
            "warning: short-form boolean option '{short}' deprecated\nPlease use {name}={value} instead"
        ))
    };
    Ok(items(text)?.into_iter().filter_map(warning).collect())
}

/// One name and its value, and how it was written when the value was left out.
struct Item {
    name: String,
    value: String,
    short: Option<String>,
}

/// Splits into names and values. The first item may be the backend alone; later ones without `=` are switches.
fn items(text: &str) -> Result<Vec<Item>, CliError> {
    let mut items = Vec::new();
    let given = |name: &str, value: &str| Item {
        name: name.to_owned(),
        value: value.to_owned(),
        short: None,
    };
    let mut rest = text;
    let mut first = true;
    while !rest.is_empty() {
        let (item, after) = take_item(rest);
        rest = after;
        let assigned = match item.split_once('=') {
            // Before the first one stands nothing but the backend's name: a comma in it is its own.
            Some((name, _)) if first && name.contains(',') => None,
            assigned => assigned,
        };
        match assigned {
            Some((name, value)) => items.push(given(name, value)),
            None if first => items.push(given("backend", &item)),
            None => {
                let (name, value) = match item.strip_prefix("no") {
                    // `nodelay` is a name of its own.
                    Some(name) if item != "nodelay" => (name, "off"),
                    _ => (item.as_str(), "on"),
                };
                items.push(Item {
                    short: Some(item.clone()),
                    ..given(name, value)
                });
            }
        }
        first = false;
    }
    if items.len() > 64 {
        return Err(CliError::new("chardev: too many options"));
    }
    Ok(items)
}

fn take_item(text: &str) -> (String, &str) {
    let mut item = String::new();
    let mut rest = text;
    while let Some(comma) = rest.find(',') {
        let (before, after) = rest.split_at(comma);
        item.push_str(before);
        match after.strip_prefix(",,") {
            Some(doubled) => {
                item.push(',');
                rest = doubled;
            }
            None => return (item, after.strip_prefix(',').unwrap_or(after)),
        }
    }
    item.push_str(rest);
    (item, "")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn switches_without_a_value_are_warned_of() {
        let warned = deprecations("socket,id=a,path=x,server,nowait,nodelay,delay,x=y").unwrap();
        let text = |short: &str, long: &str| {
            format!("warning: short-form boolean option '{short}' deprecated\nPlease use {long} instead")
        };
        assert_eq!(
            warned,
            [
                text("server", "server=on"),
                text("nowait", "wait=off"),
                text("nodelay", "nodelay=on"),
                text("delay", "nodelay=off")
            ]
        );
        assert_eq!(deprecations("null,id=a").unwrap(), [] as [String; 0]);
    }

    #[test]
    fn sockets() {
        assert_eq!(
            Chardev::parse("socket,id=m,path=/a,,b,server=on,wait=off").unwrap(),
            Chardev {
                id: "m".into(),
                backend: Backend::Socket {
                    address: Address::Unix {
                        path: "/a,b".into(),
                        is_abstract: false
                    },
                    server: true,
                    wait: false,
                    reconnect_ms: 0
                }
            }
        );
        let short = Chardev::parse("socket,id=m,host=localhost,port=0,server,nowait").unwrap();
        assert!(matches!(
            short.backend,
            Backend::Socket {
                server: true,
                wait: false,
                ..
            }
        ));
        let waits = Chardev::parse("socket,id=m,path=x,server=on").unwrap();
        assert!(matches!(waits.backend, Backend::Socket { wait: true, .. }));
        assert_eq!(Chardev::parse("stdio,id=s").unwrap().backend, Backend::Stdio);
    }

    #[test]
    fn mistakes() {
        for (text, message) in [
            ("socket,path=x,server=on", "chardev: no id specified"),
            ("id=a", "chardev: \"a\" missing backend"),
            ("nope,id=a", "'nope' is not a valid char driver name"),
            ("socket,id=a,path=x,server=on,foo=1", "Invalid parameter 'foo'"),
            (
                "socket,id=a,path=x,server=maybe",
                "Parameter 'server' expects 'on' or 'off'",
            ),
            (
                "socket,id=a,path=x,fd=4,server=on",
                "None or one of 'path', 'fd' or 'host' option required.",
            ),
            ("socket,id=a,host=h,server=on", "chardev: socket: no port given"),
        ] {
            assert_eq!(Chardev::parse(text).unwrap_err().0, message, "{text}");
        }
        assert!(
            Chardev::parse("stdio,id=1a")
                .unwrap_err()
                .0
                .starts_with("Parameter 'id' expects an identifier")
        );
    }
}
