//! Objects that users make by `object-add`: what nodes and servers refer to by id.

pub mod authz;
pub mod properties;
mod secret;

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use qapi_runtime::{Error, Value, bridge};
use schema::{ObjectOptions, ObjectOptionsBranch as Branch};

use crate::cli::CliError;
use crate::names;
use crate::tls::{self, Credentials};
use properties::Properties;

/// Most objects at once.
const MAX_OBJECTS: usize = 65_536;

/// What kind of object it is, with what it is at work.
#[derive(Clone)]
pub enum Kind {
    /// Who may use a service, by rules.
    AuthzList,
    /// The one who may use a service.
    AuthzSimple,
    /// Accepted so that the command lines that name one work; all I/O shares the daemon's data threads.
    Iothread,
    /// Accepted for its tuning, as the above.
    MainLoop,
    /// A secret's bytes.
    Secret(Arc<[u8]>),
    /// Limits that nodes share; the block layer keeps them under the same id.
    ThrottleGroup,
    /// TLS credentials.
    TlsCreds(Credentials),
}

/// An object.
#[derive(Clone)]
pub struct Object {
    /// What it is.
    pub kind: Kind,
    /// What can be known and set of it.
    pub properties: Properties,
}

impl Object {
    /// The name of its type.
    pub fn type_name(&self) -> &'static str {
        match self.kind {
            Kind::AuthzList => "authz-list",
            Kind::AuthzSimple => "authz-simple",
            Kind::Iothread => "iothread",
            Kind::MainLoop => "main-loop",
            Kind::Secret(_) => "secret",
            Kind::ThrottleGroup => "throttle-group",
            Kind::TlsCreds(_) => "tls-creds-x509",
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
    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Entry>> {
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
    fn check_new(&self, id: &str) -> Result<(), Error> {
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
    fn insert(&self, id: String, object: Object) {
        self.lock().insert(id, Entry { object, users: 0 });
    }

    /// Takes an object away, unless it is used.
    pub fn remove(&self, id: &str) -> Result<Object, Error> {
        let mut entries = self.lock();
        match entries.get(id) {
            None => Err(Error::generic(format!("object '{id}' not found"))),
            // The main loop uses its own object, once it has one.
            Some(entry) if entry.users > 0 || matches!(entry.object.kind, Kind::MainLoop) => Err(in_use(id)),
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
        match &entry.object.kind {
            Kind::TlsCreds(Credentials::Server(config)) => {
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
            Kind::TlsCreds(Credentials::Client(_)) => {
                Err(Error::generic("Expecting TLS credentials with a server endpoint"))
            }
            _ => Err(Error::generic(format!(
                "Object with id '{id}' is not TLS credentials"
            ))),
        }
    }

    /// TLS credentials for a client.
    pub fn client_credentials(&self, id: &str) -> Result<Arc<rustls::ClientConfig>, Error> {
        match self.get(id).map(|object| object.kind) {
            Some(Kind::TlsCreds(Credentials::Client(config))) => Ok(config),
            Some(Kind::TlsCreds(Credentials::Server(_))) => {
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

impl Objects {
    /// Makes the object that the options describe and adds it. Throttle groups are the block layer's to make: that is
    /// done by `make_group`, with the limits that `check_group` has found to be right.
    pub fn add<Group>(
        &self,
        options: &ObjectOptions,
        check_group: impl FnOnce() -> Result<Group, Error>,
        make_group: impl FnOnce(Group) -> Result<(), Error>,
    ) -> Result<(), Error> {
        if !names::is_id(&options.id) {
            return Err(Error::generic("Parameter 'id' expects an identifier"));
        }
        let given = bridge::serialize(options, serde_json::value::Serializer)
            .map_err(|error| Error::generic(error.to_string()))?;
        let given = match given {
            Value::Object(given) => given,
            _ => serde_json::Map::new(),
        };
        let type_name = given.get("qom-type").and_then(Value::as_str);
        let type_name = type_name.unwrap_or_default().to_owned();
        // In this order: what is wrong with one member, then with the id, then with all together; but a main loop's
        // members are looked at together as each is set.
        let properties = Properties::new(&type_name, given)?;
        if type_name == "main-loop" {
            properties.check_together()?;
        }
        let group = check_group()?;
        self.check_new(&options.id)?;
        properties.check_together()?;
        let kind = self.make(options)?;
        if matches!(kind, Kind::ThrottleGroup) {
            make_group(group)?;
        }
        self.insert(options.id.clone(), Object { kind, properties });
        Ok(())
    }

    fn make(&self, options: &ObjectOptions) -> Result<Kind, Error> {
        Ok(match &options.branch {
            Branch::AuthzList(_) => Kind::AuthzList,
            Branch::AuthzSimple(_) => Kind::AuthzSimple,
            Branch::Iothread(_) => Kind::Iothread,
            Branch::MainLoop(_) if self.has_main_loop() => {
                return Err(Error::generic("only one main-loop instance allowed"));
            }
            Branch::MainLoop(_) => Kind::MainLoop,
            Branch::Secret(secret) => {
                let key = || match &secret.base.keyid {
                    Some(id) => self.secret(id).map(Some),
                    None => Ok(None),
                };
                Kind::Secret(secret::load(secret, key)?.into())
            }
            Branch::ThrottleGroup(_) => Kind::ThrottleGroup,
            Branch::TlsCredsX509(x509) => Kind::TlsCreds(credentials(x509)?),
        })
    }

    fn has_main_loop(&self) -> bool {
        let entries = self.lock();
        entries
            .values()
            .any(|entry| matches!(entry.object.kind, Kind::MainLoop))
    }

    /// The bytes of a secret.
    pub fn secret(&self, id: &str) -> Result<Arc<[u8]>, Error> {
        match self.get(id).map(|object| object.kind) {
            Some(Kind::Secret(bytes)) => Ok(bytes),
            Some(_) => Err(Error::generic(format!("Object with id '{id}' is not a secret"))),
            None => Err(Error::generic(format!("No secret with id '{id}'"))),
        }
    }

    /// Changes a property.
    pub fn set_property(&self, id: &str, property: properties::Property, value: &Value) -> Result<(), Error> {
        match self.lock().get_mut(id) {
            Some(entry) => entry.object.properties.set(property, value),
            None => Err(Error::generic(format!("object '{id}' not found"))),
        }
    }

    /// Whether the object of that id lets a client of that name in.
    pub fn authorizes(&self, id: &str, identity: &str) -> Result<bool, Error> {
        match self.get(id) {
            Some(object) if matches!(object.kind, Kind::AuthzList | Kind::AuthzSimple) => {
                authz::allows(&object, identity)
            }
            Some(_) => Err(Error::generic(format!("Object '{id}' is not a QAuthZ subclass"))),
            None => Err(Error::generic(format!("Cannot find QAuthZ object ID {id}"))),
        }
    }
}

fn credentials(x509: &schema::TlsCredsX509Properties) -> Result<Credentials, Error> {
    let Some(dir) = &x509.base.dir else {
        return Err(Error::generic("Missing 'dir' property value"));
    };
    let dir = PathBuf::from(dir);
    let verify_peer = x509.base.verify_peer.unwrap_or(true);
    let credentials = match x509.base.endpoint {
        Some(schema::QCryptoTLSCredsEndpoint::Server) => tls::load_server(&dir, verify_peer),
        Some(schema::QCryptoTLSCredsEndpoint::Client) | None => tls::load_client(&dir, verify_peer),
    };
    let credentials = credentials.map_err(|CliError(text)| Error::generic(text))?;
    if x509.passwordid.is_some() {
        return Err(Error::generic("Encrypted private keys are not supported"));
    }
    Ok(credentials)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn iothread() -> Object {
        Object {
            kind: Kind::Iothread,
            properties: Properties::default(),
        }
    }

    #[test]
    fn an_object_in_use_stays() {
        let objects = Arc::new(Objects::default());
        objects.insert("i".into(), iothread());
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
    fn an_id_is_given_once() {
        let objects = Objects::default();
        objects.insert("a".into(), iothread());
        assert!(objects.check_new("a").is_err());
        assert!(objects.check_new("b").is_ok());
    }
}
