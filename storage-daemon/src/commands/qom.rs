//! qom.json: objects.
//!
//! The tree has what clients look for in it: `/`, `/objects` and one object an id below that.

use qapi_runtime::{Call, Error, Value};
use schema::{
    ObjectDel, ObjectOptions, ObjectPropertyInfo, ObjectTypeInfo, QomCommands, QomGet, QomList,
    QomListProperties, QomListTypes, QomSet,
};

use crate::daemon::Daemon;
use crate::objects;

/// Types and what they build on, for `qom-list-types`; those without `true` at the end cannot be made.
const TYPES: &[(&str, &str, bool)] = &[
    ("container", "object", true),
    ("event-loop-base", "object", false),
    ("iothread", "event-loop-base", true),
    ("secret_common", "object", false),
    ("secret", "secret_common", true),
    ("throttle-group", "object", true),
    ("tls-creds", "object", false),
    ("tls-creds-x509", "tls-creds", true),
];

/// Properties of a type, with their types.
pub fn properties(type_name: &str) -> Option<&'static [(&'static str, &'static str)]> {
    const IOTHREAD: &[(&str, &str)] = &[
        ("type", "string"),
        ("aio-max-batch", "int"),
        ("poll-grow", "int"),
        ("poll-max-ns", "int"),
        ("poll-shrink", "int"),
        ("thread-pool-max", "int"),
        ("thread-pool-min", "int"),
    ];
    const SECRET: &[(&str, &str)] = &[
        ("type", "string"),
        ("data", "string"),
        ("file", "string"),
        ("format", "QCryptoSecretFormat"),
        ("iv", "string"),
        ("keyid", "string"),
    ];
    // The single limits are for command lines that cannot nest; the order is the one that clients have seen so far.
    const THROTTLE_GROUP: &[(&str, &str)] = &[
        ("type", "string"),
        ("x-bps-write-max-length", "int"),
        ("x-iops-total-max-length", "int"),
        ("x-iops-size", "int"),
        ("limits", "ThrottleLimits"),
        ("x-bps-total", "int"),
        ("x-iops-read-max-length", "int"),
        ("x-bps-write", "int"),
        ("x-iops-write-max-length", "int"),
        ("x-bps-read-max", "int"),
        ("x-iops-read-max", "int"),
        ("x-bps-total-max", "int"),
        ("x-bps-read-max-length", "int"),
        ("x-iops-read", "int"),
        ("x-bps-read", "int"),
        ("x-bps-write-max", "int"),
        ("x-iops-total-max", "int"),
        ("x-iops-total", "int"),
        ("x-iops-write", "int"),
        ("x-bps-total-max-length", "int"),
        ("x-iops-write-max", "int"),
    ];
    const TLS_CREDS_X509: &[(&str, &str)] = &[
        ("type", "string"),
        ("dir", "string"),
        ("endpoint", "QCryptoTLSCredsEndpoint"),
        ("passwordid", "string"),
        ("priority", "string"),
        ("sanity-check", "bool"),
        ("verify-peer", "bool"),
    ];
    match type_name {
        "iothread" => Some(IOTHREAD),
        "secret" => Some(SECRET),
        "throttle-group" => Some(THROTTLE_GROUP),
        "tls-creds-x509" => Some(TLS_CREDS_X509),
        "container" => Some(&[("type", "string")]),
        _ => None,
    }
}

/// A place in the tree.
enum Place {
    Root,
    Objects,
    Object(String, &'static str),
}

impl Daemon {
    fn place(&self, path: &str) -> Result<Place, Error> {
        let inside = match path.strip_prefix('/') {
            Some(inside) => inside.trim_end_matches('/'),
            // A path without a slash is looked up below every place; ours are all objects.
            None => path,
        };
        let id = match inside {
            "" if path.starts_with('/') => return Ok(Place::Root),
            "objects" => return Ok(Place::Objects),
            _ => inside
                .strip_prefix("objects/")
                .unwrap_or(if path.starts_with('/') { "" } else { inside }),
        };
        match self.objects.get(id) {
            Some(object) => Ok(Place::Object(id.to_owned(), object.type_name())),
            None => Err(Error::new(
                qapi_runtime::ErrorClass::DeviceNotFound,
                format!("Device '{path}' not found"),
            )),
        }
    }
}

fn property(name: &str, type_name: &str) -> ObjectPropertyInfo {
    ObjectPropertyInfo {
        name: name.to_owned(),
        r#type: type_name.to_owned(),
        description: None,
        default_value: None,
    }
}

impl QomCommands for Daemon {
    async fn qom_list(&self, _call: &Call, args: QomList) -> Result<Vec<ObjectPropertyInfo>, Error> {
        Ok(match self.place(&args.path)? {
            Place::Root => vec![
                property("type", "string"),
                property("objects", "child<container>"),
            ],
            Place::Objects => std::iter::once(property("type", "string"))
                .chain(
                    self.objects
                        .list()
                        .into_iter()
                        .map(|(id, kind)| property(&id, &format!("child<{kind}>"))),
                )
                .collect(),
            Place::Object(_, kind) => properties(kind)
                .unwrap_or_default()
                .iter()
                .map(|(name, kind)| property(name, kind))
                .collect(),
        })
    }

    async fn qom_get(&self, _call: &Call, args: QomGet) -> Result<Value, Error> {
        let place = self.place(&args.path)?;
        let kind = match &place {
            Place::Root | Place::Objects => "container",
            Place::Object(_, kind) => kind,
        };
        match (args.property.as_str(), place) {
            ("type", _) => Ok(Value::from(kind)),
            ("limits", Place::Object(id, "throttle-group")) => self.throttle_limits(&id),
            (name, Place::Object(id, "throttle-group")) if name.starts_with("x-") => {
                let limits = self.throttle_limits(&id)?;
                let value = name.strip_prefix("x-").and_then(|name| limits.get(name)).cloned();
                value.ok_or_else(|| Error::generic(format!("Property '{kind}.{name}' not found")))
            }
            (name, _)
                if properties(kind)
                    .unwrap_or_default()
                    .iter()
                    .any(|(known, _)| *known == name) =>
            {
                Err(Error::generic(format!(
                    "Property '{kind}.{name}' is not readable"
                )))
            }
            (name, _) => Err(Error::generic(format!("Property '{kind}.{name}' not found"))),
        }
    }

    async fn qom_set(&self, _call: &Call, args: QomSet) -> Result<(), Error> {
        let place = self.place(&args.path)?;
        let kind = match &place {
            Place::Root | Place::Objects => "container",
            Place::Object(_, kind) => kind,
        };
        match (args.property.as_str(), &place) {
            ("limits", Place::Object(id, "throttle-group")) => self.set_throttle_limits(id, &args.value),
            (name, Place::Object(_, "throttle-group"))
                if name.starts_with("x-")
                    && properties(kind)
                        .unwrap_or_default()
                        .iter()
                        .any(|(known, _)| *known == name) =>
            {
                Err(Error::generic("Property cannot be set after initialization"))
            }
            (name, _)
                if properties(kind)
                    .unwrap_or_default()
                    .iter()
                    .any(|(known, _)| *known == name) =>
            {
                Err(Error::generic(format!(
                    "Property '{kind}.{name}' is not writable"
                )))
            }
            (name, _) => Err(Error::generic(format!("Property '{kind}.{name}' not found"))),
        }
    }

    async fn qom_list_types(&self, _call: &Call, args: QomListTypes) -> Result<Vec<ObjectTypeInfo>, Error> {
        let parent = |name: &str| {
            TYPES
                .iter()
                .find(|(known, ..)| *known == name)
                .map(|(_, parent, _)| *parent)
        };
        let implements = |name: &'static str| {
            let Some(wanted) = args.implements.as_deref() else {
                return true;
            };
            let mut at = Some(name);
            while let Some(name) = at {
                if name == wanted {
                    return true;
                }
                at = parent(name);
            }
            false
        };
        let with_abstract = args.r#abstract.unwrap_or(false);
        Ok(TYPES
            .iter()
            .filter(|(name, _, concrete)| (*concrete || with_abstract) && implements(name))
            .map(|(name, parent, concrete)| ObjectTypeInfo {
                name: (*name).to_owned(),
                r#abstract: (!concrete).then_some(true),
                parent: Some((*parent).to_owned()),
            })
            .collect())
    }

    async fn qom_list_properties(
        &self,
        _call: &Call,
        args: QomListProperties,
    ) -> Result<Vec<ObjectPropertyInfo>, Error> {
        match properties(&args.typename) {
            Some(known) => Ok(known.iter().map(|(name, kind)| property(name, kind)).collect()),
            None => Err(Error::new(
                qapi_runtime::ErrorClass::DeviceNotFound,
                format!("Class '{}' not found", args.typename),
            )),
        }
    }

    async fn object_add(&self, _call: &Call, args: ObjectOptions) -> Result<(), Error> {
        self.add_object(&args)
    }

    async fn object_del(&self, _call: &Call, args: ObjectDel) -> Result<(), Error> {
        self.remove_object(&args.id)
    }
}

impl Daemon {
    /// Makes an object; the command line does it too.
    pub fn add_object(&self, options: &ObjectOptions) -> Result<(), Error> {
        self.objects.check_new(&options.id)?;
        let object = objects::make(options)?;
        if let schema::ObjectOptionsBranch::ThrottleGroup(group) = &options.branch {
            self.add_throttle_group(&options.id, group)?;
        }
        self.objects.insert(options.id.clone(), object);
        Ok(())
    }

    fn remove_object(&self, id: &str) -> Result<(), Error> {
        if matches!(self.objects.get(id), Some(objects::Object::ThrottleGroup)) {
            self.remove_throttle_group(id)?;
        }
        self.objects.remove(id).map(drop)
    }
}
