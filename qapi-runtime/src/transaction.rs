//! Several actions as one: all of them happen, or none.
//!
//! `prepare` runs for each action in order and does everything that can fail. When all have
//! prepared, each is committed; when one fails, those before it are aborted, and its error is the
//! transaction's. Then each is cleaned up. Commit, abort and clean begin with the newest action, the way
//! a stack unwinds: an action may rely on what those before it prepared until it is done itself.
//!
//! A transaction that is dropped half-way (its client's connection is torn down with the program)
//! aborts what it has prepared. It knows nothing of what the actions do.

use crate::error::Error;
use std::fmt;
use std::pin::Pin;

/// What [`Action::prepare`] gives: a future that ends with something to commit or abort.
pub type Preparing = Pin<Box<dyn Future<Output = Result<Box<dyn Prepared>, Error>> + Send>>;

/// One step of a transaction, before anything has happened.
pub trait Action: Send {
    /// The action's name, as clients write it.
    fn name(&self) -> &str;

    /// Whether the job that this action starts can live and die with those of other actions.
    fn supports_grouped_completion(&self) -> bool {
        false
    }

    /// Does everything that can fail. An action that fails has to undo what it did itself: there is
    /// nothing to abort then.
    fn prepare(self: Box<Self>) -> Preparing;
}

/// An action that has done everything that can fail, and waits for the verdict.
///
/// Exactly one of `commit` and `abort` is called, once; neither waits nor fails.
pub trait Prepared: Send {
    /// Makes the change final.
    fn commit(&mut self);

    /// Undoes what `prepare` did.
    fn abort(&mut self);

    /// Lets go of what had to be held until every action was committed or aborted.
    fn clean(&mut self) {}
}

/// A [`Prepared`] made of two functions, for actions that need no type of their own.
pub struct Verdict<C, A> {
    functions: Option<(C, A)>,
}

impl<C: FnOnce() + Send + 'static, A: FnOnce() + Send + 'static> Verdict<C, A> {
    /// What to do on commit, and what on abort.
    pub fn boxed(commit: C, abort: A) -> Box<dyn Prepared> {
        Box::new(Verdict {
            functions: Some((commit, abort)),
        })
    }
}

impl<C: FnOnce() + Send, A: FnOnce() + Send> Prepared for Verdict<C, A> {
    fn commit(&mut self) {
        if let Some((commit, _)) = self.functions.take() {
            commit();
        }
    }

    fn abort(&mut self) {
        if let Some((_, abort)) = self.functions.take() {
            abort();
        }
    }
}

/// Actions that are to happen as one.
#[derive(Default)]
pub struct Transaction {
    actions: Vec<Box<dyn Action>>,
    /// Why the transaction cannot even begin.
    refusal: Option<Error>,
}

impl Transaction {
    /// A transaction without actions; it succeeds.
    pub fn new() -> Self {
        Transaction::default()
    }

    /// Adds an action.
    pub fn push(&mut self, action: Box<dyn Action>) {
        self.actions.push(action);
    }

    /// Adds an action whose job is to complete together with others. When it cannot, the whole
    /// transaction fails before anything happens.
    pub fn push_grouped(&mut self, action: Box<dyn Action>) {
        if !action.supports_grouped_completion() && self.refusal.is_none() {
            self.refusal = Some(Error::generic(format!(
                "Action '{}' does not support transaction property completion-mode = grouped",
                action.name()
            )));
        }
        self.actions.push(action);
    }

    /// How many actions there are.
    pub fn len(&self) -> usize {
        self.actions.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.actions.is_empty()
    }

    /// Runs the actions: all or none.
    ///
    /// # Errors
    ///
    /// The error of the first action that failed to prepare.
    pub async fn run(self) -> Result<(), Error> {
        if let Some(refusal) = self.refusal {
            return Err(refusal);
        }
        let mut prepared = Undecided {
            steps: Vec::with_capacity(self.actions.len()),
        };
        for action in self.actions {
            // On failure the drop of `prepared` aborts and cleans those before it.
            let step = action.prepare().await?;
            prepared.steps.push(step);
        }
        prepared.commit();
        Ok(())
    }
}

impl fmt::Debug for Transaction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list()
            .entries(self.actions.iter().map(|action| action.name()))
            .finish()
    }
}

/// Prepared actions, oldest first; aborted when they are dropped.
struct Undecided {
    steps: Vec<Box<dyn Prepared>>,
}

impl Undecided {
    fn commit(mut self) {
        // From here on there is no way back: the drop finds nothing to abort.
        let mut steps = std::mem::take(&mut self.steps);
        for step in steps.iter_mut().rev() {
            step.commit();
        }
        clean(steps);
    }
}

impl Drop for Undecided {
    fn drop(&mut self) {
        let mut steps = std::mem::take(&mut self.steps);
        for step in steps.iter_mut().rev() {
            step.abort();
        }
        clean(steps);
    }
}

fn clean(mut steps: Vec<Box<dyn Prepared>>) {
    while let Some(mut step) = steps.pop() {
        step.clean();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};

    type Log = Arc<Mutex<Vec<String>>>;

    struct Step {
        name: &'static str,
        log: Log,
        fails: bool,
        groups: bool,
        waits: bool,
    }

    struct Ready {
        name: &'static str,
        log: Log,
    }

    impl Ready {
        fn note(&self, what: &str) {
            self.log.lock().unwrap().push(format!("{what} {}", self.name));
        }
    }

    impl Prepared for Ready {
        fn commit(&mut self) {
            self.note("commit");
        }

        fn abort(&mut self) {
            self.note("abort");
        }

        fn clean(&mut self) {
            self.note("clean");
        }
    }

    impl Action for Step {
        fn name(&self) -> &str {
            self.name
        }

        fn supports_grouped_completion(&self) -> bool {
            self.groups
        }

        fn prepare(self: Box<Self>) -> Preparing {
            Box::pin(async move {
                self.log.lock().unwrap().push(format!("prepare {}", self.name));
                if self.waits {
                    std::future::pending::<()>().await;
                }
                if self.fails {
                    return Err(Error::generic(format!("{} failed", self.name)));
                }
                Ok(Box::new(Ready {
                    name: self.name,
                    log: self.log,
                }) as Box<dyn Prepared>)
            })
        }
    }

    fn step(log: &Log, name: &'static str) -> Step {
        Step {
            name,
            log: Arc::clone(log),
            fails: false,
            groups: false,
            waits: false,
        }
    }

    fn said(log: &Log) -> String {
        log.lock().unwrap().join(", ")
    }

    #[tokio::test]
    async fn all_commit_newest_first() {
        let log = Log::default();
        let mut transaction = Transaction::new();
        for name in ["a", "b"] {
            transaction.push(Box::new(step(&log, name)));
        }
        assert_eq!(transaction.run().await, Ok(()));
        assert_eq!(
            said(&log),
            "prepare a, prepare b, commit b, commit a, clean b, clean a"
        );
    }

    #[tokio::test]
    async fn a_failure_aborts_those_before_it_and_tries_no_other() {
        let log = Log::default();
        let mut transaction = Transaction::new();
        transaction.push(Box::new(step(&log, "a")));
        transaction.push(Box::new(step(&log, "b")));
        transaction.push(Box::new(Step {
            fails: true,
            ..step(&log, "c")
        }));
        transaction.push(Box::new(step(&log, "d")));
        assert_eq!(transaction.run().await, Err(Error::generic("c failed")));
        assert_eq!(
            said(&log),
            "prepare a, prepare b, prepare c, abort b, abort a, clean b, clean a"
        );
    }

    #[tokio::test]
    async fn what_cannot_be_grouped_fails_before_anything_happens() {
        let log = Log::default();
        let mut transaction = Transaction::new();
        transaction.push(Box::new(step(&log, "a")));
        transaction.push_grouped(Box::new(Step {
            groups: true,
            ..step(&log, "b")
        }));
        transaction.push_grouped(Box::new(step(&log, "c")));
        let error = transaction.run().await.unwrap_err();
        assert_eq!(
            error.desc,
            "Action 'c' does not support transaction property completion-mode = grouped"
        );
        assert_eq!(said(&log), "");
    }

    #[tokio::test]
    async fn a_dropped_transaction_aborts() {
        let log = Log::default();
        let mut transaction = Transaction::new();
        transaction.push(Box::new(step(&log, "a")));
        transaction.push(Box::new(Step {
            waits: true,
            ..step(&log, "b")
        }));
        let run = tokio::time::timeout(std::time::Duration::from_millis(10), transaction.run());
        assert!(run.await.is_err());
        assert_eq!(said(&log), "prepare a, prepare b, abort a, clean a");
    }

    #[test]
    fn a_verdict_runs_one_of_its_functions() {
        let log = Log::default();
        let note = |what: &'static str| {
            let log = Arc::clone(&log);
            move || log.lock().unwrap().push(what.to_owned())
        };
        let mut verdict = Verdict::boxed(note("commit"), note("abort"));
        verdict.abort();
        verdict.abort();
        assert_eq!(said(&log), "abort");
    }
}
