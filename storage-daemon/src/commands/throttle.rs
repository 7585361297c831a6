//! Throttle groups: limits that nodes share.

use qapi_runtime::{Error, Value};

use crate::daemon::Daemon;

impl Daemon {
    pub(super) fn throttle_limits(&self, _id: &str) -> Result<Value, Error> {
        Err(Error::generic("Throttle groups are not supported yet"))
    }

    pub(super) fn set_throttle_limits(&self, _id: &str, _limits: &Value) -> Result<(), Error> {
        Err(Error::generic("Throttle groups are not supported yet"))
    }

    pub(super) fn add_throttle_group(
        &self,
        _id: &str,
        _group: &schema::ThrottleGroupProperties,
    ) -> Result<(), Error> {
        Err(Error::generic("Throttle groups are not supported yet"))
    }

    pub(super) fn remove_throttle_group(&self, _id: &str) -> Result<(), Error> {
        Err(Error::generic("Throttle groups are not supported yet"))
    }
}
