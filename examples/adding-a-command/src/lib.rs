//! Adding a command: `lamp-dim` came later than `lamp-switch`.
//!
//! 1. Write it into `lamp.json`, documentation included. `cargo build` checks the schema and points at
//!    the line when something is wrong there.
//! 2. `cargo build` now says `not all trait items implemented, missing: lamp_dim`.
//! 3. Write the method. The arguments come decoded and checked; what the schema forbids never gets here.
//!
//! The row in the table, introspection and documentation are there already.

use qapi_runtime::{Call, Error};
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

/// What the compiler made of `lamp.json`.
pub mod schema {
    include!(concat!(env!("OUT_DIR"), "/lamp.rs"));
}

/// A lamp.
#[derive(Debug, Default)]
pub struct Lamp {
    shines: AtomicBool,
    percent: AtomicU8,
}

impl schema::LampCommands for Lamp {
    async fn lamp_switch(&self, _call: &Call, args: schema::LampSwitch) -> Result<(), Error> {
        self.shines.store(args.on, Ordering::Relaxed);
        Ok(())
    }

    async fn lamp_dim(&self, _call: &Call, args: schema::LampDim) -> Result<(), Error> {
        if args.percent > 100 {
            return Err(Error::generic("A lamp has no more than 100 percent"));
        }
        if let Some(over_ms) = args.over_ms {
            tokio::time::sleep(std::time::Duration::from_millis(over_ms.into())).await;
        }
        self.percent.store(args.percent, Ordering::Relaxed);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use qapi_runtime::{Document, Peer, Policy, SessionId};
    use std::sync::Arc;

    async fn run(lamp: &Arc<Lamp>, command: &'static str, arguments: &str) -> Result<(), Error> {
        let arguments: Document = serde_json::from_str(arguments).unwrap();
        let table = schema::commands::<Lamp>();
        let call = Call {
            command,
            session: SessionId(1),
            peer: Arc::new(Peer::Stdio),
            oob: false,
            policy: Policy::default(),
        };
        table
            .find(command)
            .unwrap()
            .start(lamp, call, arguments.root())?
            .await
            .map(drop)
    }

    #[tokio::test]
    async fn the_new_command_works_and_its_schema_is_enforced() {
        let lamp = Arc::new(Lamp::default());
        run(&lamp, "lamp-switch", r#"{"on": true}"#).await.unwrap();
        run(&lamp, "lamp-dim", r#"{"percent": 40}"#).await.unwrap();
        assert_eq!(lamp.percent.load(Ordering::Relaxed), 40);
        assert!(lamp.shines.load(Ordering::Relaxed));
        for (arguments, text) in [
            (r#"{"percent": 101}"#, "A lamp has no more than 100 percent"),
            (r#"{"percent": 256}"#, "Parameter 'percent' expects uint8_t"),
            (r#"{}"#, "Parameter 'percent' is missing"),
        ] {
            assert_eq!(run(&lamp, "lamp-dim", arguments).await.unwrap_err().desc, text);
        }
        assert!(
            schema::INTROSPECTION
                .windows(8)
                .any(|window| window == b"lamp-dim")
        );
    }
}
