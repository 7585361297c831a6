//! Following one job from before it is started to its end.

use super::{Client, ClientError, ClientEvent, Incoming, Subscription, member};
use crate::document::{Cursor, Token};
use std::sync::Arc;
use std::time::Duration;

/// How often a job is asked how far it is.
const PROGRESS_PERIOD: Duration = Duration::from_millis(200);

/// How far a job is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    /// `running`, `paused`, `ready` and so on.
    pub status: String,
    /// Work done so far.
    pub offset: i64,
    /// Work in all; it may grow.
    pub len: i64,
}

/// How a job ended.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum JobEnd {
    /// It did what it was to do.
    Completed,
    /// It failed, and why.
    Failed(String),
    /// Somebody cancelled it, or its group failed.
    Cancelled,
}

/// A job that is watched.
#[derive(Debug)]
pub struct Job {
    client: Client,
    id: String,
    events: Subscription,
    end: Option<JobEnd>,
    /// The job is over: nothing more is to be said of it.
    over: bool,
    /// What the events left open.
    question: Option<Question>,
    lost: Option<Arc<str>>,
}

/// What only `query-jobs` can tell.
#[derive(Debug, Clone, Copy)]
enum Question {
    /// The job has concluded: how?
    WhatOutcome,
    /// Events are missing: is it still there?
    WhatHappened,
}

impl Job {
    pub(super) fn new(client: Client, id: &str) -> Self {
        let wanted = id.to_owned();
        let events = client.subscribe_if(move |event: &ClientEvent| {
            event.text("id").or_else(|| event.text("device")) == Some(wanted.as_str())
        });
        Job {
            client,
            id: id.to_owned(),
            events,
            end: None,
            over: false,
            question: None,
            lost: None,
        }
    }

    /// Waits until the job is over: it has concluded, or is gone.
    ///
    /// # Errors
    ///
    /// When the connection is lost, or was lost and the outcome cannot be told any more.
    pub async fn wait(&mut self) -> Result<JobEnd, ClientError> {
        while !self.over {
            self.step().await?;
        }
        match &self.end {
            Some(end) => Ok(end.clone()),
            None => Err(ClientError::Protocol(format!(
                "the outcome of job '{}' is not known",
                self.id
            ))),
        }
    }

    /// Waits for a job to end well.
    ///
    /// # Errors
    ///
    /// When it did not, or the connection is lost.
    pub async fn completed(&mut self) -> Result<(), ClientError> {
        let failure = match self.wait().await? {
            JobEnd::Completed => return Ok(()),
            JobEnd::Failed(text) => text,
            JobEnd::Cancelled => "the job was cancelled".into(),
        };
        Err(ClientError::Qmp(crate::error::Error::generic(failure)))
    }

    /// How far the job is, every now and then; `None` when it is over or the connection is lost.
    pub async fn progress(&mut self) -> Option<Progress> {
        let pause = tokio::time::sleep(PROGRESS_PERIOD);
        tokio::pin!(pause);
        loop {
            if self.over || self.lost.is_some() {
                return None;
            }
            tokio::select! {
                stepped = self.step() => if stepped.is_err() { return None },
                () = &mut pause => break,
            }
        }
        self.query().await.ok().flatten().map(|(progress, _)| progress)
    }

    /// Takes one event of the job, or asks what the last one left open. Dropping the future loses nothing.
    async fn step(&mut self) -> Result<(), ClientError> {
        if let Some(reason) = &self.lost {
            return Err(ClientError::Disconnected {
                may_have_run: true,
                reason: Arc::clone(reason),
            });
        }
        if let Some(question) = self.question {
            let answer = self.query().await?;
            self.question = None;
            self.settle(question, answer);
            return Ok(());
        }
        match self.events.next().await {
            Ok(Incoming::Event(event)) => self.note(&event),
            Ok(Incoming::Gap) => self.question = Some(Question::WhatHappened),
            Err(reason) => self.lost = Some(reason),
        }
        Ok(())
    }

    fn note(&mut self, event: &ClientEvent) {
        match &*event.name {
            "BLOCK_JOB_COMPLETED" => {
                self.end = Some(match event.text("error") {
                    Some(error) => JobEnd::Failed(error.to_owned()),
                    None => JobEnd::Completed,
                });
            }
            "BLOCK_JOB_CANCELLED" => self.end = Some(JobEnd::Cancelled),
            "JOB_STATUS_CHANGE" => match event.text("status") {
                Some("aborting") if self.end.is_none() => self.end = Some(JobEnd::Cancelled),
                // Only block jobs tell their outcome in an event of their own.
                Some("concluded") if matches!(self.end, None | Some(JobEnd::Cancelled)) => {
                    self.question = Some(Question::WhatOutcome);
                }
                Some("concluded") => self.over = true,
                Some("null") => {
                    self.end.get_or_insert(JobEnd::Completed);
                    self.over = true;
                }
                _ => {}
            },
            _ => {}
        }
    }

    fn settle(&mut self, question: Question, answer: Option<(Progress, Option<String>)>) {
        match (question, answer) {
            // A gap, and the job goes on.
            (Question::WhatHappened, Some((progress, _))) if progress.status != "concluded" => {}
            // It is gone already: what the events said stands.
            (_, None) => self.over = true,
            (_, Some((_, error))) => {
                let cancelled = self.end.take();
                self.end = Some(match (error, cancelled) {
                    (Some(error), None) => JobEnd::Failed(error),
                    (Some(error), Some(_)) if !error.contains("cancel") => JobEnd::Failed(error),
                    (_, Some(cancelled)) => cancelled,
                    (None, None) => JobEnd::Completed,
                });
                self.over = true;
            }
        }
    }

    /// What `query-jobs` says of the job: how far it is, and what went wrong.
    async fn query(&self) -> Result<Option<(Progress, Option<String>)>, ClientError> {
        let jobs = self.client.execute("query-jobs", None).await?;
        let Some(root) = jobs.root() else { return Ok(None) };
        let ours = |job: &Cursor<'_>| member(*job, "id").and_then(Cursor::as_str) == Some(self.id.as_str());
        let Some(job) = root.elements().find(ours) else {
            return Ok(None);
        };
        let number = |name| match member(job, name).map(Cursor::token) {
            Some(Token::Int(value)) => value,
            _ => 0,
        };
        let text = |name| member(job, name).and_then(Cursor::as_str).map(str::to_owned);
        let progress = Progress {
            status: text("status").unwrap_or_default(),
            offset: number("current-progress"),
            len: number("total-progress"),
        };
        Ok(Some((progress, text("error"))))
    }
}
