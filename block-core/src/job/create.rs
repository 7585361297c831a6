//! The job that makes an image: any future, as a job with one step.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};

use super::manager::{JobContext, JobDriver};
use crate::driver::IoFuture;
use crate::error::Result;
use crate::sync::lock;

type Work = Pin<Box<dyn Future<Output = Result<()>> + Send>>;

pub(super) struct CreateJob {
    work: Mutex<Option<Work>>,
}

impl CreateJob {
    pub(super) fn new(work: Work) -> Arc<Self> {
        Arc::new(Self {
            work: Mutex::new(Some(work)),
        })
    }
}

impl JobDriver for CreateJob {
    fn run<'a>(&'a self, context: &'a JobContext) -> IoFuture<'a> {
        Box::pin(async move {
            context.progress().set_remaining(1);
            let work = lock(&self.work).take();
            let result = match work {
                Some(work) => work.await,
                None => Ok(()),
            };
            // Done is done, also when it failed.
            context.progress().advance(1);
            result
        })
    }

    fn commit(&self) {}

    fn abort(&self) {}

    fn clean(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(async {})
    }
}
