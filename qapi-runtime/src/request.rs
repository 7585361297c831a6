//! A message's members: is it a request, and for what.
//!
//! Knows the shape of a request and nothing of any command.

use crate::document::{Cursor, Token};
use crate::error::Error;

/// A well-formed request.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Request<'a> {
    pub(crate) command: &'a str,
    /// It came as `exec-oob`.
    pub(crate) oob: bool,
    /// The `arguments` object.
    pub(crate) arguments: Option<Cursor<'a>>,
    /// Any value at all; it comes back with the reply.
    pub(crate) id: Option<Cursor<'a>>,
}

/// A message that is no request; the reply still carries its id.
#[derive(Debug)]
pub(crate) struct Refused<'a> {
    pub(crate) id: Option<Cursor<'a>>,
    pub(crate) error: Error,
}

impl<'a> Request<'a> {
    /// Looks at a message; `exec-oob` is a member only once out-of-band execution is negotiated.
    pub(crate) fn read(message: Cursor<'a>, oob_negotiated: bool) -> Result<Self, Refused<'a>> {
        let Token::Object { .. } = message.token() else {
            return Err(Refused {
                id: None,
                error: Error::generic("QMP input must be a JSON object"),
            });
        };
        let mut execute = None;
        let mut exec_oob = None;
        let mut arguments = None;
        let mut id = None;
        let mut unexpected = None;
        for (key, value) in message.members() {
            match key {
                "execute" => execute = Some(value),
                "exec-oob" if oob_negotiated => exec_oob = Some(value),
                "arguments" => arguments = Some(value),
                "id" => id = Some(value),
                _ => {
                    unexpected.get_or_insert(key);
                }
            }
        }
        let refuse = |text: String| {
            Err(Refused {
                id,
                error: Error::generic(text),
            })
        };
        if let Some(key) = unexpected {
            return refuse(format!("QMP input member '{key}' is unexpected"));
        }
        // Types come before what is missing; of the two ways to say the command, `exec-oob` comes first.
        for (member, value) in [("exec-oob", exec_oob), ("execute", execute)] {
            if value.is_some_and(|value| value.as_str().is_none()) {
                return refuse(format!("QMP input member '{member}' must be a string"));
            }
        }
        if execute.is_some() && exec_oob.is_some() {
            return refuse("QMP input member 'execute' clashes with 'exec-oob'".into());
        }
        if arguments.is_some_and(|value| !matches!(value.token(), Token::Object { .. })) {
            return refuse("QMP input member 'arguments' must be an object".into());
        }
        let Some(command) = exec_oob.or(execute).and_then(Cursor::as_str) else {
            return refuse("QMP input lacks member 'execute'".into());
        };
        let oob = exec_oob.is_some();
        Ok(Request {
            command,
            oob,
            arguments,
            id,
        })
    }
}
