//! Throttle groups: limits that nodes share. The block layer keeps them under their objects' ids.

use block_core::drivers::throttle::{Rate, ThrottleLimits};
use qapi_runtime::{Error, Value};
use serde_json::{Map, json};

use crate::convert::error::generic;
use crate::daemon::Daemon;

/// The members of one rate: average, burst, length of a burst.
struct Given {
    name: &'static str,
    average: Option<i64>,
    max: Option<i64>,
    max_length: Option<i64>,
}

/// What a rate is called, and where it is kept.
fn rate<'l>(limits: &'l mut ThrottleLimits, name: &str) -> Option<&'l mut Rate> {
    Some(match name {
        "iops-total" => &mut limits.iops_total,
        "iops-read" => &mut limits.iops_read,
        "iops-write" => &mut limits.iops_write,
        "bps-total" => &mut limits.bps_total,
        "bps-read" => &mut limits.bps_read,
        "bps-write" => &mut limits.bps_write,
        _ => return None,
    })
}

const NAMES: [&str; 6] = [
    "iops-total",
    "iops-read",
    "iops-write",
    "bps-total",
    "bps-read",
    "bps-write",
];

/// What to do about a negative number: members of the limits are checked later, against all bounds at once.
#[derive(Clone, Copy)]
enum Negative {
    Refuse,
    CheckLater,
}

/// Puts what is given in place of what was there.
fn apply(
    limits: &mut ThrottleLimits,
    given: &schema::ThrottleLimits,
    negative: Negative,
) -> Result<(), Error> {
    macro_rules! given {
        ($name:literal, $average:ident, $max:ident, $max_length:ident) => {
            Given {
                name: $name,
                average: given.$average,
                max: given.$max,
                max_length: given.$max_length,
            }
        };
    }
    for one in [
        given!("iops-total", iops_total, iops_total_max, iops_total_max_length),
        given!("iops-read", iops_read, iops_read_max, iops_read_max_length),
        given!("iops-write", iops_write, iops_write_max, iops_write_max_length),
        given!("bps-total", bps_total, bps_total_max, bps_total_max_length),
        given!("bps-read", bps_read, bps_read_max, bps_read_max_length),
        given!("bps-write", bps_write, bps_write_max, bps_write_max_length),
    ] {
        if let Some(rate) = rate(limits, one.name) {
            set(&mut rate.average, one.average, negative)?;
            set(&mut rate.max, one.max, negative)?;
            set_length(&mut rate.max_length_seconds, one.name, one.max_length, negative)?;
        }
    }
    set(&mut limits.iops_size, given.iops_size, negative)
}

fn set(place: &mut u64, value: Option<i64>, negative: Negative) -> Result<(), Error> {
    if let Some(value) = value {
        if value < 0 && matches!(negative, Negative::Refuse) {
            return Err(Error::generic("Property values cannot be negative"));
        }
        *place = value.cast_unsigned();
    }
    Ok(())
}

/// Lengths are kept in 32 bits. A negative one is as long as can be, which the check of the limits complains of.
fn set_length(place: &mut u64, name: &str, value: Option<i64>, negative: Negative) -> Result<(), Error> {
    match value.map(u32::try_from) {
        None => Ok(()),
        Some(Ok(seconds)) => {
            *place = u64::from(seconds);
            Ok(())
        }
        Some(Err(_)) if value < Some(0) => {
            if matches!(negative, Negative::Refuse) {
                return Err(Error::generic("Property values cannot be negative"));
            }
            *place = value.unwrap_or_default().cast_unsigned();
            Ok(())
        }
        Some(Err(_)) => Err(Error::generic(format!(
            "{name}-max-length value must be in the range [0, {}]",
            u32::MAX
        ))),
    }
}

/// The members that stand by themselves, for command lines, as one set of limits.
fn loose(group: &schema::ThrottleGroupProperties) -> schema::ThrottleLimits {
    schema::ThrottleLimits {
        iops_total: group.x_iops_total,
        iops_total_max: group.x_iops_total_max,
        iops_total_max_length: group.x_iops_total_max_length,
        iops_read: group.x_iops_read,
        iops_read_max: group.x_iops_read_max,
        iops_read_max_length: group.x_iops_read_max_length,
        iops_write: group.x_iops_write,
        iops_write_max: group.x_iops_write_max,
        iops_write_max_length: group.x_iops_write_max_length,
        bps_total: group.x_bps_total,
        bps_total_max: group.x_bps_total_max,
        bps_total_max_length: group.x_bps_total_max_length,
        bps_read: group.x_bps_read,
        bps_read_max: group.x_bps_read_max,
        bps_read_max_length: group.x_bps_read_max_length,
        bps_write: group.x_bps_write,
        bps_write_max: group.x_bps_write_max,
        bps_write_max_length: group.x_bps_write_max_length,
        iops_size: group.x_iops_size,
    }
}

/// The limits of a new group. `limits` have to make sense by themselves; those that stand alone do so with the rest,
/// when the group is made.
pub(super) fn limits(group: &schema::ThrottleGroupProperties) -> Result<ThrottleLimits, Error> {
    let mut limits = ThrottleLimits::default();
    if let Some(given) = &group.limits {
        apply(&mut limits, given, Negative::CheckLater)?;
        limits.check().map_err(generic)?;
    }
    apply(&mut limits, &loose(group), Negative::Refuse)?;
    Ok(limits)
}

impl Daemon {
    fn throttle_group(
        &self,
        id: &str,
    ) -> Result<std::sync::Arc<block_core::drivers::throttle::ThrottleGroup>, Error> {
        let group = self.graph.throttle_groups().get(id);
        group.ok_or_else(|| Error::generic(format!("object '{id}' not found")))
    }

    fn throttle_limits(&self, id: &str) -> Result<Value, Error> {
        let mut limits = self.throttle_group(id)?.limits();
        let mut shown = Map::new();
        for name in NAMES {
            if let Some(rate) = rate(&mut limits, name) {
                shown.insert(name.to_owned(), json!(rate.average));
                shown.insert(format!("{name}-max"), json!(rate.max));
                shown.insert(format!("{name}-max-length"), json!(rate.max_length_seconds));
            }
        }
        shown.insert("iops-size".to_owned(), json!(limits.iops_size.cast_signed()));
        Ok(Value::Object(shown))
    }

    /// A property of a group: all limits, or one of them with `x-` before its name.
    pub(super) fn throttle_property(&self, id: &str, name: &str) -> Result<Value, Error> {
        let limits = self.throttle_limits(id)?;
        let Some(one) = name.strip_prefix("x-") else {
            return Ok(limits);
        };
        limits
            .get(one)
            .cloned()
            .ok_or_else(|| Error::generic(format!("Property 'throttle-group.{name}' not found")))
    }

    /// Changes what is given and leaves the rest.
    pub(super) fn set_throttle_limits(&self, id: &str, limits: &Value) -> Result<(), Error> {
        let given: schema::ThrottleLimits = crate::objects::properties::decode("limits", limits)?;
        let group = self.throttle_group(id)?;
        let mut limits = group.limits();
        apply(&mut limits, &given, Negative::CheckLater)?;
        group.set_limits(limits).map_err(generic)
    }

    pub(super) fn add_throttle_group(&self, id: &str, limits: ThrottleLimits) -> Result<(), Error> {
        self.graph
            .throttle_groups()
            .create(id, limits)
            .map(drop)
            .map_err(generic)
    }

    pub(super) fn remove_throttle_group(&self, id: &str) -> Result<(), Error> {
        self.graph.throttle_groups().remove(id).map_err(generic)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_given_stays() {
        let mut limits = ThrottleLimits::default();
        let mut given: schema::ThrottleLimits = serde_json::from_value(json!({"iops-total": 100})).unwrap();
        apply(&mut limits, &given, Negative::Refuse).unwrap();
        given = serde_json::from_value(json!({"iops-total-max": 200, "iops-size": 4096})).unwrap();
        apply(&mut limits, &given, Negative::Refuse).unwrap();
        assert_eq!(
            limits.iops_total,
            Rate {
                average: 100,
                max: 200,
                max_length_seconds: 1
            }
        );
        assert_eq!(limits.iops_size, 4096);
        given = serde_json::from_value(json!({"iops-total-max-length": -1})).unwrap();
        let mut burst = limits;
        apply(&mut burst, &given, Negative::CheckLater).unwrap();
        assert_eq!(
            burst.check().unwrap_err().to_string(),
            "burst length too high for this burst rate"
        );
        given = serde_json::from_value(json!({"bps-read": -1})).unwrap();
        assert_eq!(
            apply(&mut limits, &given, Negative::Refuse)
                .unwrap_err()
                .to_string(),
            "Property values cannot be negative"
        );
    }
}
