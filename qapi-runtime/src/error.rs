//! The error that a QMP client sees: a class to match on and a text to read.

use std::fmt;

/// QMP's error classes; everything new is [`ErrorClass::GenericError`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorClass {
    /// Whatever has no class of its own.
    GenericError,
    /// No such command, or not at this time.
    CommandNotFound,
    /// The device is not in use.
    DeviceNotActive,
    /// No such device.
    DeviceNotFound,
    /// The kernel's virtualisation lacks something.
    KVMMissingCap,
}

impl ErrorClass {
    /// The class as it is on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            ErrorClass::GenericError => "GenericError",
            ErrorClass::CommandNotFound => "CommandNotFound",
            ErrorClass::DeviceNotActive => "DeviceNotActive",
            ErrorClass::DeviceNotFound => "DeviceNotFound",
            ErrorClass::KVMMissingCap => "KVMMissingCap",
        }
    }
}

/// Why a command failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    /// What programs match on.
    pub class: ErrorClass,
    /// What people read.
    pub desc: String,
}

impl Error {
    /// An error of a class.
    pub fn new(class: ErrorClass, desc: impl Into<String>) -> Self {
        Error {
            class,
            desc: desc.into(),
        }
    }

    /// An error of the class that most errors have.
    pub fn generic(desc: impl Into<String>) -> Self {
        Error::new(ErrorClass::GenericError, desc)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.desc)
    }
}

impl std::error::Error for Error {}
