use std::collections::HashMap;
use std::future::Future;
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::task::{Id, JoinError, JoinSet};
use tokio_util::sync::CancellationToken;

/// Background work that has yet to start.
pub(crate) struct Task {
    name: &'static str,
    run: Box<dyn FnOnce(CancellationToken) -> BoxFuture<'static, ()> + Send>,
}

impl Task {
    pub(crate) fn new<F>(name: &'static str, run: impl FnOnce(CancellationToken) -> F + Send + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        Self { name, run: Box::new(|stop| Box::pin(run(stop))) }
    }
}

/// Background work that runs until it is told to stop. One that ends before that is a failure: a dead relay must not go
/// unnoticed.
pub(crate) struct Tasks {
    running: JoinSet<()>,
    names: HashMap<Id, &'static str>,
    stop: CancellationToken,
}

/// How a task failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It returned although nobody had told it to.
    #[error("the background task `{0}` ended by itself")]
    Ended(&'static str),
    /// It panicked.
    #[error("the background task `{name}` panicked")]
    Panicked { name: &'static str, source: JoinError },
}

impl Tasks {
    pub(crate) fn start(tasks: Vec<Task>) -> Self {
        let mut all = Self { running: JoinSet::new(), names: HashMap::new(), stop: CancellationToken::new() };
        for task in tasks {
            let id = all.running.spawn((task.run)(all.stop.clone())).id();
            all.names.insert(id, task.name);
        }
        all
    }

    /// Resolves when one of them fails; while none does, never.
    pub(crate) async fn failure(&mut self) -> Error {
        match self.running.join_next_with_id().await {
            None => std::future::pending().await,
            Some(Ok((id, ()))) => Error::Ended(self.names[&id]),
            Some(Err(source)) => Error::Panicked { name: self.names[&source.id()], source },
        }
    }

    /// Tells all to stop, and ends after `grace` those that have not.
    pub(crate) async fn stop(mut self, grace: Duration) {
        self.stop.cancel();
        let all = async { while self.running.join_next().await.is_some() {} };
        if tokio::time::timeout(grace, all).await.is_err() {
            tracing::warn!(tasks = self.running.len(), "Background tasks that did not stop in time are ended");
        }
    }
}
