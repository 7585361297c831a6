//! What can be known and set of objects, and what kind of value each property has.
//!
//! An object keeps its properties as it was given them; who needs one at work asks for it then, so that a
//! change counts from then on. Numbers that only tune what tunes itself here are kept and shown.

use std::collections::BTreeMap;

use qapi_runtime::{Decode, Document, Error, StringEnum, Value};
use schema::{QAuthZListPolicy, QAuthZListRule, QCryptoSecretFormat, QCryptoTLSCredsEndpoint};
use serde_json::{Map, json};

/// So many threads can be asked for.
const MOST_THREADS: i64 = 0x7FFF_FFFF;

/// A property of a type.
#[derive(Debug, Clone, Copy)]
pub struct Property {
    /// Its name.
    pub name: &'static str,
    /// What kind of value it has, as queries show it.
    pub type_name: &'static str,
    kind: Kind,
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    Text,
    /// A number of an event loop: not negative, with a default.
    Tuning(i64),
    Switch,
    Endpoint,
    SecretFormat,
    AuthzPolicy,
    AuthzRules,
    /// Kept by the block layer.
    Throttle,
}

const fn property(name: &'static str, type_name: &'static str, kind: Kind) -> Property {
    Property {
        name,
        type_name,
        kind,
    }
}

macro_rules! event_loop {
    ($($more:expr),*) => {
        &[
            property("thread-pool-min", "int", Kind::Tuning(0)),
            property("aio-max-batch", "int", Kind::Tuning(0)),
            property("thread-pool-max", "int", Kind::Tuning(64)),
            $($more),*
        ]
    };
}

const EVENT_LOOP: &[Property] = event_loop![];
const IOTHREAD: &[Property] = event_loop![
    property("poll-max-ns", "int", Kind::Tuning(32_768)),
    property("poll-grow", "int", Kind::Tuning(0)),
    property("poll-shrink", "int", Kind::Tuning(0))
];
const SECRET_COMMON: &[Property] = &[
    property("iv", "string", Kind::Text),
    property("keyid", "string", Kind::Text),
    property("format", "QCryptoSecretFormat", Kind::SecretFormat),
];
const SECRET: &[Property] = &[
    property("iv", "string", Kind::Text),
    property("keyid", "string", Kind::Text),
    property("format", "QCryptoSecretFormat", Kind::SecretFormat),
    property("file", "string", Kind::Text),
    property("data", "string", Kind::Text),
];
const TLS_CREDS: &[Property] = &[
    property("endpoint", "QCryptoTLSCredsEndpoint", Kind::Endpoint),
    property("dir", "string", Kind::Text),
    property("verify-peer", "bool", Kind::Switch),
    property("priority", "string", Kind::Text),
];
const TLS_CREDS_X509: &[Property] = &[
    property("endpoint", "QCryptoTLSCredsEndpoint", Kind::Endpoint),
    property("dir", "string", Kind::Text),
    property("verify-peer", "bool", Kind::Switch),
    property("priority", "string", Kind::Text),
    property("sanity-check", "bool", Kind::Switch),
    property("passwordid", "string", Kind::Text),
];
const AUTHZ_SIMPLE: &[Property] = &[property("identity", "string", Kind::Text)];
const AUTHZ_LIST: &[Property] = &[
    property("policy", "QAuthZListPolicy", Kind::AuthzPolicy),
    property("rules", "QAuthZListRule", Kind::AuthzRules),
];
/// In the order in which clients have always seen them.
const THROTTLE_GROUP: &[Property] = &[
    property("x-bps-write-max-length", "int", Kind::Throttle),
    property("x-iops-total-max-length", "int", Kind::Throttle),
    property("x-iops-size", "int", Kind::Throttle),
    property("limits", "ThrottleLimits", Kind::Throttle),
    property("x-bps-total", "int", Kind::Throttle),
    property("x-iops-read-max-length", "int", Kind::Throttle),
    property("x-bps-write", "int", Kind::Throttle),
    property("x-iops-write-max-length", "int", Kind::Throttle),
    property("x-bps-read-max", "int", Kind::Throttle),
    property("x-iops-read-max", "int", Kind::Throttle),
    property("x-bps-total-max", "int", Kind::Throttle),
    property("x-bps-read-max-length", "int", Kind::Throttle),
    property("x-iops-read", "int", Kind::Throttle),
    property("x-bps-read", "int", Kind::Throttle),
    property("x-bps-write-max", "int", Kind::Throttle),
    property("x-iops-total-max", "int", Kind::Throttle),
    property("x-iops-total", "int", Kind::Throttle),
    property("x-iops-write", "int", Kind::Throttle),
    property("x-bps-total-max-length", "int", Kind::Throttle),
    property("x-iops-write-max", "int", Kind::Throttle),
];

/// The properties of a type but for `type`, which each has; `None` for a type that is not known.
pub fn of_type(name: &str) -> Option<&'static [Property]> {
    Some(match name {
        "object" | "container" | "authz" => &[],
        "event-loop-base" | "main-loop" => EVENT_LOOP,
        "iothread" => IOTHREAD,
        "secret_common" => SECRET_COMMON,
        "secret" => SECRET,
        "tls-creds" => TLS_CREDS,
        "tls-creds-x509" => TLS_CREDS_X509,
        "authz-simple" => AUTHZ_SIMPLE,
        "authz-list" => AUTHZ_LIST,
        "throttle-group" => THROTTLE_GROUP,
        _ => return None,
    })
}

/// The properties of one object.
#[derive(Clone, Default)]
pub struct Properties(BTreeMap<&'static str, Value>);

impl Properties {
    /// What an object of that type has when it is given these members.
    pub fn new(type_name: &str, mut given: Map<String, Value>) -> Result<Self, Error> {
        let mut values = BTreeMap::new();
        for property in of_type(type_name).unwrap_or_default() {
            let value = match (property.kind, given.remove(property.name)) {
                (Kind::Throttle, _) => continue,
                (_, Some(value)) => property.checked(value)?,
                (Kind::Text, None) => json!(""),
                (Kind::Tuning(default), None) => json!(default),
                (Kind::Switch, None) => json!(true),
                (Kind::Endpoint, None) => json!("client"),
                (Kind::SecretFormat, None) => json!("raw"),
                (Kind::AuthzPolicy, None) => json!("deny"),
                (Kind::AuthzRules, None) => json!([]),
            };
            values.insert(property.name, value);
        }
        Ok(Self(values))
    }

    /// Whether the properties fit together: looked at once an object has them all.
    pub fn check_together(&self) -> Result<(), Error> {
        self.check_thread_pool()
    }

    /// A property's value.
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.0.get(name)
    }

    /// A property's text; empty when there is none.
    pub fn text(&self, name: &str) -> &str {
        self.get(name).and_then(Value::as_str).unwrap_or_default()
    }

    /// Gives a property of the type a new value.
    pub fn set(&mut self, property: Property, value: &Value) -> Result<(), Error> {
        let value = property.checked(value.clone())?;
        self.0.insert(property.name, value);
        // The reference keeps the value that it then complains of; the next one may make it right.
        if matches!(property.kind, Kind::Tuning(_)) && !property.name.starts_with("poll-") {
            self.check_thread_pool()?;
        }
        Ok(())
    }

    fn check_thread_pool(&self) -> Result<(), Error> {
        let number = |name| self.get(name).and_then(Value::as_i64);
        match (number("thread-pool-min"), number("thread-pool-max")) {
            (Some(min), Some(max)) if max < 1 || min > max || max > MOST_THREADS => {
                Err(Error::generic("bad thread-pool-min/thread-pool-max values"))
            }
            _ => Ok(()),
        }
    }
}

impl Property {
    /// The property of that name.
    pub fn find(type_name: &str, name: &str) -> Option<Self> {
        of_type(type_name)?
            .iter()
            .find(|property| property.name == name)
            .copied()
    }

    /// Whether its value is the block layer's.
    pub fn is_throttle(self) -> bool {
        matches!(self.kind, Kind::Throttle)
    }

    /// The value, if it is one for this property.
    fn checked(self, value: Value) -> Result<Value, Error> {
        match self.kind {
            Kind::Text => self.decoded::<String>(&value)?,
            Kind::Switch => self.decoded::<bool>(&value)?,
            Kind::Endpoint => self.one_of::<QCryptoTLSCredsEndpoint>(&value)?,
            Kind::SecretFormat => self.one_of::<QCryptoSecretFormat>(&value)?,
            Kind::AuthzPolicy => self.one_of::<QAuthZListPolicy>(&value)?,
            Kind::AuthzRules => self.decoded::<Vec<QAuthZListRule>>(&value)?,
            Kind::Throttle => {}
            Kind::Tuning(_) => {
                self.decoded::<i64>(&value)?;
                if value.as_i64().is_none_or(|number| number < 0) {
                    return Err(Error::generic(format!(
                        "{} value must be in range [0, {}]",
                        self.name,
                        i64::MAX
                    )));
                }
            }
        }
        Ok(value)
    }

    fn one_of<T: StringEnum + Decode>(self, value: &Value) -> Result<(), Error> {
        self.decoded::<T>(value)
    }

    fn decoded<T: Decode>(self, value: &Value) -> Result<(), Error> {
        decode::<T>(self.name, value).map(drop)
    }
}

/// Reads a property's value as one of the schema's types; mistakes are told with the property's name.
pub fn decode<T: Decode>(name: &'static str, value: &Value) -> Result<T, Error> {
    let document: Document =
        serde_json::from_value(value.clone()).map_err(|error| Error::generic(error.to_string()))?;
    let root = document.root().ok_or_else(|| Error::generic("no value"))?;
    T::decode(root).map_err(|error| error.in_member(name).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(value: Value) -> Map<String, Value> {
        match value {
            Value::Object(map) => map,
            _ => Map::new(),
        }
    }

    #[test]
    fn defaults_and_what_is_given() {
        let made = Properties::new("iothread", given(json!({"poll-grow": 3}))).unwrap();
        assert_eq!(made.get("poll-grow"), Some(&json!(3)));
        assert_eq!(made.get("thread-pool-max"), Some(&json!(64)));
        assert_eq!(made.get("nothing"), None);
    }

    #[test]
    fn mistakes_are_told_with_the_name() {
        let text = |type_name: &str, name: &str, value: Value| {
            let mut made = Properties::new(type_name, Map::new()).unwrap();
            let property = Property::find(type_name, name).unwrap();
            made.set(property, &value).unwrap_err().to_string()
        };
        assert_eq!(
            text("iothread", "poll-grow", json!(-1)),
            "poll-grow value must be in range [0, 9223372036854775807]"
        );
        assert_eq!(
            text("iothread", "poll-grow", json!("x")),
            "Invalid parameter type for 'poll-grow', expected: integer"
        );
        assert_eq!(
            text("main-loop", "thread-pool-min", json!(65)),
            "bad thread-pool-min/thread-pool-max values"
        );
        assert_eq!(
            text("secret", "format", json!("x")),
            "Parameter 'format' does not accept value 'x'"
        );
        assert_eq!(
            text("authz-list", "rules", json!([{"match": "a"}])),
            "Parameter 'rules[0].policy' is missing"
        );
    }
}
