//! transaction.json: several steps as one.

use qapi_runtime::{Call, Error};
use schema::{Transaction, TransactionCommands};

use crate::daemon::Daemon;
use crate::transaction;

impl TransactionCommands for Daemon {
    async fn transaction(&self, _call: &Call, args: Transaction) -> Result<(), Error> {
        let daemon = self.shared()?;
        self.on_data(transaction::run(daemon, args)).await
    }
}
