//! Which jobs of a transaction live and die together.
//!
//! This is the whole rule, in one place: it is decided from what the request says, before anything is drained
//! or prepared. `docs/transactions.md` has it as a table, and each row of that table is a test here.

/// How a transaction as a whole says that its jobs form a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Whole {
    /// The argument `transactional-cancel`.
    pub transactional_cancel: Option<bool>,
    /// `properties.completion-mode`: grouped is true, individual is false.
    pub grouped: Option<bool>,
}

/// What one action says.
#[derive(Debug, Clone, Copy)]
pub struct Member {
    /// The action's type, for error texts.
    pub kind: &'static str,
    /// It starts a job.
    pub starts_job: bool,
    /// `data.transactional-cancel`.
    pub in_data: Option<bool>,
    /// `properties.transactional-cancel`.
    pub in_properties: Option<bool>,
}

/// For each action whether its job joins the group, or why the transaction cannot be run.
pub fn decide(whole: Whole, members: &[Member]) -> Result<Vec<bool>, String> {
    let default = agree(whole.transactional_cancel, whole.grouped).map_err(|()| {
        "'transactional-cancel' and 'properties.completion-mode' of the transaction contradict each other"
            .to_owned()
    })?;
    let grouped = whole.grouped == Some(true);
    members
        .iter()
        .map(|member| {
            let kind = member.kind;
            let own = agree(member.in_data, member.in_properties).map_err(|()| {
                format!(
                    "Action '{kind}' has 'transactional-cancel' in 'data' and in 'properties', and they contradict \
                     each other"
                )
            })?;
            if grouped && !member.starts_job {
                return Err(unsupported(kind, "completion-mode = grouped"));
            }
            match own {
                Some(false) if grouped => {
                    Err(format!("Action '{kind}' cannot opt out of transaction property completion-mode = grouped"))
                }
                Some(false) => Ok(false),
                Some(true) if member.starts_job => Ok(true),
                None if member.starts_job => Ok(default.unwrap_or(false)),
                None if default != Some(true) => Ok(false),
                Some(true) | None => Err(unsupported(kind, "transactional-cancel = true")),
            }
        })
        .collect()
}

/// One answer of two that may each be missing.
fn agree(one: Option<bool>, other: Option<bool>) -> Result<Option<bool>, ()> {
    match (one, other) {
        (Some(a), Some(b)) if a != b => Err(()),
        _ => Ok(one.or(other)),
    }
}

fn unsupported(kind: &str, what: &str) -> String {
    format!("Action '{kind}' does not support transaction property {what}")
}

#[cfg(test)]
mod tests {
    use super::*;

    const NO: Option<bool> = Some(false);
    const YES: Option<bool> = Some(true);

    /// What the request comes to.
    #[derive(Debug, PartialEq, Clone, Copy)]
    enum Outcome {
        Joins,
        Alone,
        WholeContradicts,
        ActionContradicts,
        OptsOut,
        NotGrouped,
        NotCancel,
    }
    use Outcome::*;

    fn outcome(whole: Whole, member: Member) -> Outcome {
        match decide(whole, &[member]) {
            Ok(joins) => {
                if joins[0] {
                    Joins
                } else {
                    Alone
                }
            }
            Err(text) if text.starts_with("'transactional-cancel' and") => WholeContradicts,
            Err(text) if text.contains("in 'data' and in 'properties'") => ActionContradicts,
            Err(text) if text.contains("cannot opt out") => OptsOut,
            Err(text)
                if text == "Action 'k' does not support transaction property completion-mode = grouped" =>
            {
                NotGrouped
            }
            Err(text)
                if text == "Action 'k' does not support transaction property transactional-cancel = true" =>
            {
                NotCancel
            }
            Err(text) => panic!("unknown text: {text}"),
        }
    }

    /// The whole table: transaction-wide member, completion mode; then the outcome for an action that says
    /// nothing, false, true, for a job and for an action without one.
    #[test]
    fn whole_times_own() {
        let table = [
            (None, None, [Alone, Alone, Joins], [Alone, Alone, NotCancel]),
            (NO, None, [Alone, Alone, Joins], [Alone, Alone, NotCancel]),
            (YES, None, [Joins, Alone, Joins], [NotCancel, Alone, NotCancel]),
            (None, NO, [Alone, Alone, Joins], [Alone, Alone, NotCancel]),
            (
                None,
                YES,
                [Joins, OptsOut, Joins],
                [NotGrouped, NotGrouped, NotGrouped],
            ),
            (NO, NO, [Alone, Alone, Joins], [Alone, Alone, NotCancel]),
            (
                YES,
                YES,
                [Joins, OptsOut, Joins],
                [NotGrouped, NotGrouped, NotGrouped],
            ),
            (NO, YES, [WholeContradicts; 3], [WholeContradicts; 3]),
            (YES, NO, [WholeContradicts; 3], [WholeContradicts; 3]),
        ];
        for (transactional_cancel, grouped, with_job, without) in table {
            let whole = Whole {
                transactional_cancel,
                grouped,
            };
            for (starts_job, expected) in [(true, with_job), (false, without)] {
                for (own, expected) in [None, NO, YES].into_iter().zip(expected) {
                    // It does not matter where an action says it, nor whether it says it twice.
                    let places: &[(Option<bool>, Option<bool>)] = if starts_job {
                        &[(own, None), (None, own), (own, own)]
                    } else {
                        &[(None, own)]
                    };
                    for &(in_data, in_properties) in places {
                        let member = Member {
                            kind: "k",
                            starts_job,
                            in_data,
                            in_properties,
                        };
                        assert_eq!(outcome(whole, member), expected, "{whole:?} {member:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn an_action_must_agree_with_itself() {
        for (in_data, in_properties) in [(YES, NO), (NO, YES)] {
            for whole in [
                Whole::default(),
                Whole {
                    transactional_cancel: YES,
                    grouped: None,
                },
            ] {
                let member = Member {
                    kind: "k",
                    starts_job: true,
                    in_data,
                    in_properties,
                };
                assert_eq!(outcome(whole, member), ActionContradicts);
            }
        }
    }

    #[test]
    fn one_bad_action_fails_all_and_an_empty_list_is_fine() {
        let job = Member {
            kind: "blockdev-backup",
            starts_job: true,
            in_data: YES,
            in_properties: None,
        };
        let bitmap = Member {
            kind: "block-dirty-bitmap-add",
            starts_job: false,
            in_data: None,
            in_properties: None,
        };
        assert_eq!(
            decide(Whole::default(), &[bitmap, job, bitmap]),
            Ok(vec![false, true, false])
        );
        assert!(
            decide(
                Whole {
                    transactional_cancel: YES,
                    grouped: None
                },
                &[job, bitmap]
            )
            .is_err()
        );
        assert_eq!(
            decide(
                Whole {
                    transactional_cancel: YES,
                    grouped: YES
                },
                &[]
            ),
            Ok(vec![])
        );
    }
}
