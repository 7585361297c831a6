//! Who joins a transaction's group of jobs: the three ways to ask for it, decided in one place.
//!
//! A job joins when its own action says so (`transactional-cancel` in the action's `data` or in its `properties`), else
//! when the transaction says so (`transactional-cancel`, or `completion-mode`). The decision is made for the whole
//! request before anything is drained or prepared, so a contradiction costs nothing. `docs/transactions.md` has the
//! table of all combinations; the tests below read it row by row.
//!
//! Knows neither the schema's types nor the block layer.

/// What a transaction asks of all its actions.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TransactionWish {
    /// The transaction's `transactional-cancel`.
    pub transactional_cancel: Option<bool>,
    /// The transaction's `properties.completion-mode`, `true` for `grouped`.
    pub grouped: Option<bool>,
}

/// What one action asks for itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ActionWish<'a> {
    /// The action's `type`, for messages.
    pub kind: &'a str,
    /// Whether the action starts a job, so that there is something to group.
    pub starts_job: bool,
    /// `data.transactional-cancel`.
    pub data: Option<bool>,
    /// `properties.transactional-cancel`.
    pub properties: Option<bool>,
}

/// Decides for each action whether its job joins the group.
///
/// # Errors
///
/// The text for the client when two places contradict each other, or when an action that starts no job is asked to join.
pub fn decide(transaction: TransactionWish, actions: &[ActionWish<'_>]) -> Result<Vec<bool>, String> {
    let wide = match (transaction.transactional_cancel, transaction.grouped) {
        (Some(cancel), Some(grouped)) if cancel != grouped => {
            return Err(format!(
                "Transaction properties transactional-cancel = {cancel} and completion-mode = {} contradict each other",
                if grouped { "grouped" } else { "individual" }
            ));
        }
        (cancel, grouped) => cancel.or(grouped),
    };
    actions
        .iter()
        .map(|action| joins(transaction, wide, action))
        .collect()
}

fn joins(transaction: TransactionWish, wide: Option<bool>, action: &ActionWish<'_>) -> Result<bool, String> {
    let kind = action.kind;
    let own = match (action.data, action.properties) {
        (Some(data), Some(properties)) if data != properties => {
            return Err(format!(
                "Action '{kind}' has transactional-cancel = {data} in 'data' and {properties} in 'properties'"
            ));
        }
        (data, properties) => data.or(properties),
    };
    // `completion-mode: grouped` suits every action or none: that is QEMU's rule, and clients match its text.
    if transaction.grouped == Some(true) {
        if !action.starts_job {
            return Err(format!(
                "Action '{kind}' does not support transaction property completion-mode = grouped"
            ));
        }
        if own == Some(false) {
            return Err(format!(
                "Action '{kind}' has transactional-cancel = false beside transaction property completion-mode = grouped"
            ));
        }
    }
    let joins = own.or(wide).unwrap_or(false);
    if joins && !action.starts_job {
        return Err(format!(
            "Action '{kind}' does not support transaction property transactional-cancel = true"
        ));
    }
    Ok(joins)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cell(text: &str) -> Option<bool> {
        match text {
            "-" => None,
            "true" | "grouped" => Some(true),
            "false" | "individual" => Some(false),
            other => panic!("an unknown cell: {other}"),
        }
    }

    /// The documented table is what is implemented, and it has every combination exactly once.
    #[test]
    fn every_row_of_the_documented_table() {
        let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/transactions.md");
        let text = std::fs::read_to_string(page).expect("the page");
        let mut seen = std::collections::BTreeSet::new();
        for line in text.lines().filter(|line| line.starts_with("| `")) {
            let cells: Vec<&str> = line
                .trim_matches('|')
                .split('|')
                .map(|cell| cell.trim().trim_matches('`'))
                .collect();
            let [kind, data, properties, cancel, mode, outcome] = cells[..] else {
                panic!("not six cells: {line}")
            };
            let starts_job = kind == "blockdev-backup";
            assert!(
                seen.insert((kind, data, properties, cancel, mode)),
                "twice: {line}"
            );
            let transaction = TransactionWish {
                transactional_cancel: cell(cancel),
                grouped: cell(mode),
            };
            let action = ActionWish {
                kind,
                starts_job,
                data: cell(data),
                properties: cell(properties),
            };
            let decided = match decide(transaction, &[action]).map(|all| all[0]) {
                Ok(true) => "joins".to_owned(),
                Ok(false) => "alone".to_owned(),
                Err(text) => text,
            };
            assert_eq!(decided, outcome, "{line}");
        }
        assert_eq!(seen.len(), 3 * 3 * 3 * 3 + 3 * 3 * 3);
    }

    #[test]
    fn one_action_that_cannot_join_fails_all() {
        let job = ActionWish {
            kind: "drive-backup",
            starts_job: true,
            data: None,
            properties: None,
        };
        let add = ActionWish {
            kind: "block-dirty-bitmap-add",
            starts_job: false,
            data: None,
            properties: None,
        };
        let wide = TransactionWish {
            transactional_cancel: Some(true),
            grouped: None,
        };
        assert!(decide(wide, &[job, add]).is_err());
        let opted_out = ActionWish {
            properties: Some(false),
            ..add
        };
        assert_eq!(decide(wide, &[job, opted_out]), Ok(vec![true, false]));
    }
}
