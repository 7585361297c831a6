//! qom.json: objects.
//!
//! The tree has what clients look for in it: `/`, `/objects` and one object an id below that.

use qapi_runtime::{Call, Error, StringEnum, Value};
use schema::{
    ObjectDel, ObjectOptions, ObjectPropertyInfo, ObjectTypeInfo, QomCommands, QomGet, QomList,
    QomListProperties, QomListTypes, QomSet,
};

use super::throttle;
use crate::daemon::Daemon;
use crate::objects::properties::{self, Property};
use crate::objects::{Kind, Object};

/// Types and what they build on, for `qom-list-types`; those without `true` at the end cannot be made.
const TYPES: &[(&str, &str, bool)] = &[
    ("authz", "object", false),
    ("authz-list", "authz", true),
    ("authz-simple", "authz", true),
    ("container", "object", true),
    ("event-loop-base", "object", false),
    ("iothread", "event-loop-base", true),
    ("main-loop", "event-loop-base", true),
    ("secret_common", "object", false),
    ("secret", "secret_common", true),
    ("throttle-group", "object", true),
    ("tls-creds", "object", false),
    ("tls-creds-x509", "tls-creds", true),
    ("object", "", false),
];

/// The interface of all types that `object-add` can make.
const USER_CREATABLE: &str = "user-creatable";

/// A place in the tree.
enum Place {
    Root,
    Objects,
    Object(String, &'static str),
}

impl Place {
    fn type_name(&self) -> &'static str {
        match self {
            Self::Root | Self::Objects => "container",
            Self::Object(_, kind) => kind,
        }
    }
}

impl Daemon {
    fn place(&self, path: &str) -> Result<Place, Error> {
        let absolute = path.starts_with('/');
        let names: Vec<&str> = path.split('/').filter(|name| !name.is_empty()).collect();
        let id = match names.as_slice() {
            [] if absolute => return Ok(Place::Root),
            [] => return Err(Error::generic(format!("Path '{path}' is ambiguous"))),
            ["objects"] => return Ok(Place::Objects),
            ["objects", id] => id,
            // A path without a slash is looked up below every place; ours are all objects.
            [id] if !absolute => id,
            _ => "",
        };
        match self.objects.get(id) {
            Some(object) => Ok(Place::Object(id.to_owned(), object.type_name())),
            None => Err(Error::new(
                qapi_runtime::ErrorClass::DeviceNotFound,
                format!("Device '{path}' not found"),
            )),
        }
    }

    /// What stands below a place, if it is one that others stand below.
    fn child(&self, place: &Place, name: &str) -> Option<String> {
        match place {
            Place::Root => (name == "objects").then(|| "/objects".to_owned()),
            Place::Objects => self.objects.get(name).map(|_| format!("/objects/{name}")),
            Place::Object(..) => None,
        }
    }
}

fn info(name: &str, type_name: &str) -> ObjectPropertyInfo {
    ObjectPropertyInfo {
        name: name.to_owned(),
        r#type: type_name.to_owned(),
        description: None,
        default_value: None,
    }
}

/// `type`, which each object has, and the properties of its own type.
fn infos(type_name: &str) -> Option<Vec<ObjectPropertyInfo>> {
    let own = properties::of_type(type_name)?;
    let own = own.iter().map(|property| info(property.name, property.type_name));
    Some(std::iter::once(info("type", "string")).chain(own).collect())
}

fn no_property(type_name: &str, name: &str) -> Error {
    Error::generic(format!("Property '{type_name}.{name}' not found"))
}

fn not_writable(type_name: &str, name: &str) -> Error {
    Error::generic(format!("Property '{type_name}.{name}' is not writable"))
}

impl QomCommands for Daemon {
    async fn qom_list(&self, _call: &Call, args: QomList) -> Result<Vec<ObjectPropertyInfo>, Error> {
        Ok(match self.place(&args.path)? {
            Place::Root => vec![info("type", "string"), info("objects", "child<container>")],
            Place::Objects => std::iter::once(info("type", "string"))
                .chain(
                    self.objects
                        .list()
                        .into_iter()
                        .map(|(id, kind)| info(&id, &format!("child<{kind}>"))),
                )
                .collect(),
            Place::Object(_, kind) => infos(kind).unwrap_or_default(),
        })
    }

    async fn qom_get(&self, _call: &Call, args: QomGet) -> Result<Value, Error> {
        let place = self.place(&args.path)?;
        let type_name = place.type_name();
        let name = args.property.as_str();
        if name == "type" {
            return Ok(Value::from(type_name));
        }
        if let Some(child) = self.child(&place, name) {
            return Ok(Value::from(child));
        }
        let Place::Object(id, _) = place else {
            return Err(no_property(type_name, name));
        };
        match Property::find(type_name, name) {
            Some(property) if property.is_throttle() => self.throttle_property(&id, name),
            _ => self
                .objects
                .get(&id)
                .and_then(|object| object.properties.get(name).cloned())
                .ok_or_else(|| no_property(type_name, name)),
        }
    }

    async fn qom_set(&self, _call: &Call, args: QomSet) -> Result<(), Error> {
        let place = self.place(&args.path)?;
        let type_name = place.type_name();
        let name = args.property.as_str();
        if name == "type" || self.child(&place, name).is_some() {
            return Err(not_writable(type_name, name));
        }
        let (Place::Object(id, _), Some(property)) = (place, Property::find(type_name, name)) else {
            return Err(no_property(type_name, name));
        };
        match name {
            "limits" => self.set_throttle_limits(&id, &args.value),
            _ if property.is_throttle() => Err(Error::generic("Property cannot be set after initialization")),
            _ => self.objects.set_property(&id, property, &args.value),
        }
    }

    async fn qom_list_types(&self, _call: &Call, args: QomListTypes) -> Result<Vec<ObjectTypeInfo>, Error> {
        let parent = |name: &str| {
            TYPES
                .iter()
                .find(|(known, parent, _)| *known == name && !parent.is_empty())
                .map(|(_, parent, _)| *parent)
        };
        let implements = |name: &'static str| {
            let Some(wanted) = args.implements.as_deref() else {
                return true;
            };
            if wanted == USER_CREATABLE {
                return schema::ObjectType::VALUES
                    .iter()
                    .any(|creatable| creatable.wire_name() == name);
            }
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
                parent: (!parent.is_empty()).then(|| (*parent).to_owned()),
            })
            .collect())
    }

    async fn qom_list_properties(
        &self,
        _call: &Call,
        args: QomListProperties,
    ) -> Result<Vec<ObjectPropertyInfo>, Error> {
        if args.typename == USER_CREATABLE {
            return Err(Error::generic("Parameter 'typename' expects a QOM type"));
        }
        match infos(&args.typename) {
            Some(infos) => Ok(infos),
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
        let limits = || match &options.branch {
            schema::ObjectOptionsBranch::ThrottleGroup(group) => throttle::limits(group).map(Some),
            _ => Ok(None),
        };
        self.objects.add(options, limits, |limits| match limits {
            Some(limits) => self.add_throttle_group(&options.id, limits),
            None => Ok(()),
        })
    }

    fn remove_object(&self, id: &str) -> Result<(), Error> {
        if matches!(
            self.objects.get(id),
            Some(Object {
                kind: Kind::ThrottleGroup,
                ..
            })
        ) {
            self.remove_throttle_group(id)?;
        }
        self.objects.remove(id).map(drop)
    }
}
