//! Sockets that this process was started with: by systemd, or by whoever started it.

use std::os::fd::OwnedFd;
use std::sync::{Mutex, MutexGuard, PoisonError};

use qapi_runtime::Listener;
use qapi_runtime::listen::{self, PassedSocket};

use crate::cli::CliError;
use crate::process::os_text;

/// The sockets that systemd passed and nobody has taken yet.
#[derive(Debug, Default)]
pub struct Passed(Mutex<Vec<PassedSocket>>);

impl Passed {
    /// Takes what systemd has passed; to be called once.
    pub fn take() -> Result<Self, CliError> {
        let sockets = listen::systemd_sockets().map_err(|error| {
            CliError::new(format!(
                "a socket from systemd cannot be used: {}",
                os_text(&error)
            ))
        })?;
        Ok(Self(Mutex::new(sockets)))
    }

    fn lock(&self) -> MutexGuard<'_, Vec<PassedSocket>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The socket of that number, or of the name that systemd gave it.
    pub fn claim(&self, wanted: &str) -> Result<OwnedFd, CliError> {
        let number = wanted.parse::<i32>().ok();
        let mut sockets = self.lock();
        let at = sockets.iter().position(|socket| match number {
            Some(number) => socket.number == number,
            None => !socket.name.is_empty() && socket.name == wanted,
        });
        if let Some(at) = at {
            return Ok(sockets.swap_remove(at).fd);
        }
        match number {
            Some(number) => listen::inherited_socket(number)
                .map_err(|_| CliError::new(format!("File descriptor '{wanted}' is not a socket"))),
            None => Err(CliError::new(format!("Unable to parse FD number {wanted}"))),
        }
    }

    /// As [`claim`](Self::claim), for a socket that listens.
    pub fn claim_listener(&self, wanted: &str) -> Result<Listener, CliError> {
        listener(self.claim(wanted)?)
    }

    /// Those that nobody has claimed.
    pub fn rest(&self) -> Result<Vec<Listener>, CliError> {
        self.lock().drain(..).map(|socket| listener(socket.fd)).collect()
    }
}

fn listener(fd: OwnedFd) -> Result<Listener, CliError> {
    Listener::from_fd(fd).map_err(|error| CliError::new(os_text(&error)))
}
