//! Objects that users make by `object-add`: what nodes and servers refer to by id.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use qapi_runtime::Error;
use schema::{ObjectOptions, ObjectOptionsBranch as Branch};

use crate::cli::CliError;
use crate::names;
use crate::process::os_text;
use crate::tls::{self, Credentials};

/// Largest secret that is read from a file.
const MAX_SECRET_BYTES: u64 = 1 << 20;
/// Most objects at once.
const MAX_OBJECTS: usize = 65_536;

/// An object.
#[derive(Clone)]
pub enum Object {
    /// Accepted so that the command lines that name one work; all I/O shares the daemon's data threads.
    Iothread,
    /// A secret's bytes.
    Secret(Arc<[u8]>),
    /// Limits that nodes share; the block layer keeps them under the same id.
    ThrottleGroup,
    /// TLS credentials.
    TlsCreds(Credentials),
}

impl Object {
    /// The name of its type.
    pub fn type_name(&self) -> &'static str {
        match self {
            Self::Iothread => "iothread",
            Self::Secret(_) => "secret",
            Self::ThrottleGroup => "throttle-group",
            Self::TlsCreds(_) => "tls-creds-x509",
        }
    }
}

impl fmt::Debug for Object {
    /// Shows the type only: secrets stay out of logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.type_name())
    }
}

struct Entry {
    object: Object,
    users: usize,
}

/// All objects by id.
#[derive(Default)]
pub struct Objects {
    entries: Mutex<BTreeMap<String, Entry>>,
}

impl fmt::Debug for Objects {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map()
            .entries(self.lock().iter().map(|(id, entry)| (id, &entry.object)))
            .finish()
    }
}

/// Keeps an object from being deleted while this lives.
pub struct ObjectUse {
    objects: Arc<Objects>,
    id: String,
}

impl fmt::Debug for ObjectUse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ObjectUse").field(&self.id).finish()
    }
}

impl Drop for ObjectUse {
    fn drop(&mut self) {
        if let Some(entry) = self.objects.lock().get_mut(&self.id) {
            entry.users = entry.users.saturating_sub(1);
        }
    }
}

impl Objects {
    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ids and types, by id.
    pub fn list(&self) -> Vec<(String, &'static str)> {
        self.lock()
            .iter()
            .map(|(id, entry)| (id.clone(), entry.object.type_name()))
            .collect()
    }

    /// The object of that id.
    pub fn get(&self, id: &str) -> Option<Object> {
        self.lock().get(id).map(|entry| entry.object.clone())
    }

    /// Whether the id can be given to a new object.
    pub fn check_new(&self, id: &str) -> Result<(), Error> {
        if !names::is_id(id) {
            return Err(Error::generic("Parameter 'id' expects an identifier"));
        }
        let entries = self.lock();
        if entries.contains_key(id) {
            return Err(Error::generic(format!(
                "attempt to add duplicate property '{id}' to object (type 'container')"
            )));
        }
        if entries.len() >= MAX_OBJECTS {
            return Err(Error::generic(format!("There are {MAX_OBJECTS} objects already")));
        }
        Ok(())
    }

    /// Adds an object that was made.
    pub fn insert(&self, id: String, object: Object) {
        self.lock().insert(id, Entry { object, users: 0 });
    }

    /// Takes an object away, unless it is used.
    pub fn remove(&self, id: &str) -> Result<Object, Error> {
        let mut entries = self.lock();
        match entries.get(id) {
            None => Err(Error::generic(format!("object '{id}' not found"))),
            Some(entry) if entry.users > 0 => Err(in_use(id)),
            Some(_) => match entries.remove(id) {
                Some(entry) => Ok(entry.object),
                None => Err(Error::generic(format!("object '{id}' not found"))),
            },
        }
    }

    /// TLS credentials for a server, held until the returned use is dropped.
    pub fn use_server_credentials(
        self: &Arc<Self>,
        id: &str,
    ) -> Result<(Arc<rustls::ServerConfig>, ObjectUse), Error> {
        let mut entries = self.lock();
        let entry = entries
            .get_mut(id)
            .ok_or_else(|| Error::generic(format!("No TLS credentials with id '{id}'")))?;
        match &entry.object {
            Object::TlsCreds(Credentials::Server(config)) => {
                let config = Arc::clone(config);
                entry.users += 1;
                Ok((
                    config,
                    ObjectUse {
                        objects: Arc::clone(self),
                        id: id.to_owned(),
                    },
                ))
            }
            Object::TlsCreds(Credentials::Client(_)) => {
                Err(Error::generic("Expecting TLS credentials with a server endpoint"))
            }
            _ => Err(Error::generic(format!(
                "Object with id '{id}' is not TLS credentials"
            ))),
        }
    }

    /// TLS credentials for a client.
    pub fn client_credentials(&self, id: &str) -> Result<Arc<rustls::ClientConfig>, Error> {
        match self.get(id) {
            Some(Object::TlsCreds(Credentials::Client(config))) => Ok(config),
            Some(Object::TlsCreds(Credentials::Server(_))) => {
                Err(Error::generic("Expecting TLS credentials with a client endpoint"))
            }
            Some(_) => Err(Error::generic(format!(
                "Object with id '{id}' is not TLS credentials"
            ))),
            None => Err(Error::generic(format!("No TLS credentials with id '{id}'"))),
        }
    }
}

/// What is said of an object that cannot be deleted yet.
pub fn in_use(id: &str) -> Error {
    Error::generic(format!("object '{id}' is in use, can not be deleted"))
}

/// Makes the object that the options describe. Throttle groups are the block layer's to make.
pub fn make(options: &ObjectOptions) -> Result<Object, Error> {
    match &options.branch {
        Branch::Iothread(_) => Ok(Object::Iothread),
        Branch::Secret(secret) => Ok(Object::Secret(secret_bytes(secret)?.into())),
        Branch::ThrottleGroup(_) => Ok(Object::ThrottleGroup),
        Branch::TlsCredsX509(x509) => {
            if x509.passwordid.is_some() {
                return Err(Error::generic("Encrypted private keys are not supported"));
            }
            let Some(dir) = &x509.dir else {
                return Err(Error::generic("Missing 'dir' property value"));
            };
            let dir = PathBuf::from(dir);
            let verify_peer = x509.verify_peer.unwrap_or(true);
            let credentials = match x509.endpoint {
                Some(schema::QCryptoTLSCredsEndpoint::Server) => tls::load_server(&dir, verify_peer),
                Some(schema::QCryptoTLSCredsEndpoint::Client) | None => tls::load_client(&dir, verify_peer),
            };
            Ok(Object::TlsCreds(
                credentials.map_err(|CliError(text)| Error::generic(text))?,
            ))
        }
    }
}

fn secret_bytes(secret: &schema::SecretProperties) -> Result<Vec<u8>, Error> {
    if secret.keyid.is_some() || secret.iv.is_some() {
        return Err(Error::generic("Encrypted secrets are not supported"));
    }
    let raw = match (&secret.data, &secret.file) {
        (Some(_), Some(_)) => return Err(Error::generic("'file' and 'data' are mutually exclusive")),
        (None, None) => return Err(Error::generic("Either 'file' or 'data' must be provided")),
        (Some(data), None) => data.clone().into_bytes(),
        (None, Some(file)) => {
            let fail = |error: std::io::Error| {
                Error::generic(format!(
                    "Unable to read {file}: Failed to open file “{file}”: {}",
                    os_text(&error)
                ))
            };
            if std::fs::metadata(file).map_err(fail)?.len() > MAX_SECRET_BYTES {
                return Err(Error::generic(format!("Secret file {file} is too large")));
            }
            std::fs::read(file).map_err(fail)?
        }
    };
    match secret.format {
        Some(schema::QCryptoSecretFormat::Base64) => {
            decode_base64(&raw).ok_or_else(|| Error::generic("Base64 data is not valid"))
        }
        Some(schema::QCryptoSecretFormat::Raw) | None => {
            if std::str::from_utf8(&raw).is_err() {
                return Err(Error::generic("Data from secret is not valid UTF-8"));
            }
            Ok(raw)
        }
    }
}

/// Standard base64 with padding; white space between the letters is allowed.
fn decode_base64(text: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3);
    let mut bits: u32 = 0;
    let mut letters = 0_u32;
    let mut padding = 0_u32;
    for &letter in text.iter().filter(|letter| !letter.is_ascii_whitespace()) {
        let value = match letter {
            b'A'..=b'Z' => letter - b'A',
            b'a'..=b'z' => letter - b'a' + 26,
            b'0'..=b'9' => letter - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            b'=' => {
                padding += 1;
                continue;
            }
            _ => return None,
        };
        if padding > 0 {
            return None;
        }
        bits = bits << 6 | u32::from(value);
        letters += 1;
        if letters.is_multiple_of(4) {
            bytes.extend_from_slice(bits.to_be_bytes().get(1..)?);
            bits = 0;
        }
    }
    match (letters % 4, padding) {
        (0, 0) => {}
        (2, 2) => bytes.push((bits >> 4).to_be_bytes()[3]),
        (3, 1) => bytes.extend_from_slice((bits >> 2).to_be_bytes().get(2..)?),
        _ => return None,
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64() {
        for (text, bytes) in [
            ("", &b""[..]),
            ("TQ==", b"M"),
            ("TWE=", b"Ma"),
            ("TWFu", b"Man"),
            ("TWFu\nTQ==\n", b"ManM"),
        ] {
            assert_eq!(decode_base64(text.as_bytes()).as_deref(), Some(bytes), "{text}");
        }
        for text in ["T", "TQ=", "TQ", "T=Q=", "TW*u", "TWFu="] {
            assert_eq!(decode_base64(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn an_object_in_use_stays() {
        let objects = Arc::new(Objects::default());
        objects.insert("i".into(), Object::Iothread);
        objects.lock().get_mut("i").unwrap().users = 1;
        let held = ObjectUse {
            objects: Arc::clone(&objects),
            id: "i".into(),
        };
        assert!(objects.remove("i").unwrap_err().to_string().contains("is in use"));
        drop(held);
        objects.remove("i").unwrap();
        assert!(objects.remove("i").unwrap_err().to_string().contains("not found"));
    }

    #[test]
    fn names_are_checked() {
        let objects = Objects::default();
        objects.insert("a".into(), Object::Iothread);
        assert!(objects.check_new("1").is_err());
        assert!(objects.check_new("a").is_err());
        assert!(objects.check_new("b").is_ok());
    }
}
