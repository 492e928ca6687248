//! The interface between services that emit events and services that consume them.

pub mod embedded;

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use ids::Source;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::async_trait;
use tracing::Instrument as _;

use crate::{DeadLetters, Envelope, Error};

/// A handler that takes longer has failed: a key may not wait for ever.
const HANDLER_TIMEOUT: Duration = Duration::from_secs(30);

/// What carries events from relays to handlers.
#[async_trait]
pub trait Bus: Send + Sync {
    /// Hands on events, in order per key. It returns once they are safe with the bus: whoever gets `Ok` may forget them. Called with the
    /// same events again, it may deliver them again.
    async fn publish(&self, events: &[Envelope]) -> Result<(), Error>;

    /// Hands the events of some topics to `handler`, until the subscription is stopped.
    async fn subscribe(
        &self,
        subscription: Subscription,
        handler: Arc<dyn Handler>,
        dead_letters: DeadLetters,
    ) -> Result<Running, Error>;
}

/// Who wants which events, and how.
#[derive(Clone, Debug)]
pub struct Subscription {
    /// The consumer's name, which stays: `<service>.<what it keeps>`.
    pub consumer: &'static str,
    /// The topics that it wants.
    pub topics: &'static [&'static str],
    /// Who gets an event.
    pub delivery: Delivery,
}

/// Who gets an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// One process of the service. The consumer has an [`Inbox`](crate::Inbox); what it cannot handle becomes a dead letter.
    Work,
    /// Every process, in order. At the start it gets the events of the last `replay` first; some may come twice.
    Broadcast {
        /// How far back to begin; at most the 24 hours that an outbox keeps.
        replay: Duration,
    },
}

/// Handles events. Its transaction is that of [`Inbox::begin`](crate::Inbox::begin); calls to other services come before it.
#[async_trait]
pub trait Handler: Send + Sync {
    /// Handles one event; it is tried again after [`Failure::Retry`].
    async fn handle(&self, event: &Envelope) -> Result<(), Failure>;
}

/// Why an event was not handled. The text is kept with the dead letter: no personal data.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// It may work later.
    #[error("{0}")]
    Retry(String),
    /// It will never work: the event becomes a dead letter at once.
    #[error("{0}")]
    Reject(String),
}

impl From<store::Error> for Failure {
    fn from(error: store::Error) -> Self {
        Self::Retry(error.to_string())
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Retry(error.to_string())
    }
}

/// How often and after which pauses a failed event is tried again.
#[derive(Clone, Copy, Debug)]
pub struct Retry {
    /// The first attempt counts.
    pub attempts: u32,
    /// The pause after the first failure; it doubles with each further one, and a random half of it is left out.
    pub pause: Duration,
    /// The longest pause.
    pub longest: Duration,
}

impl Default for Retry {
    /// Eight attempts within about half a minute.
    fn default() -> Self {
        Self { attempts: 8, pause: Duration::from_millis(250), longest: Duration::from_secs(30) }
    }
}

impl Retry {
    /// The pause after failure number `failures`, which counts from one.
    fn pause_after(self, failures: u32, source: &Source) -> Duration {
        let full = self.pause.saturating_mul(1 << failures.saturating_sub(1).min(20)).min(self.longest);
        let random = u32::from_le_bytes(source.bytes());
        full.mul_f64(0.5 + 0.5 * f64::from(random) / f64::from(u32::MAX))
    }
}

/// A subscription at work. Dropped, it ends.
#[derive(Debug)]
pub struct Running {
    stop: CancellationToken,
    task: Option<JoinHandle<()>>,
    caught_up: watch::Receiver<bool>,
}

impl Running {
    /// A subscription that is served by `task` until `stop`.
    pub(crate) fn new(stop: CancellationToken, task: JoinHandle<()>, caught_up: watch::Receiver<bool>) -> Self {
        Self { stop, task: Some(task), caught_up }
    }

    /// Ends the subscription, after the handlers that run now. What was not handled waits for the consumer's next subscription.
    pub async fn stop(mut self) {
        self.stop.cancel();
        if let Some(task) = self.task.take()
            && let Err(error) = task.await
        {
            tracing::error!(error = %error, "A subscription ended with a panic");
        }
    }

    /// Waits until a broadcast subscription has handled the events of its replay; at once for a work subscription.
    pub async fn caught_up(&self) {
        // An error means that the subscription has ended: there is nothing left to wait for.
        let mut caught_up = self.caught_up.clone();
        let _ended = caught_up.wait_for(|caught_up| *caught_up).await;
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// Runs a handler once, within the trace of the event, bounded in time and with its panics as failures.
pub(crate) async fn attempt(consumer: &str, handler: &dyn Handler, event: &Envelope) -> Result<(), Failure> {
    let span = tracing::info_span!("event", messaging.operation = "process", messaging.destination = %event.topic, consumer, event.id = %event.id);
    if let Some(traceparent) = &event.traceparent {
        telemetry::adopt(&span, traceparent);
    }
    let attempt = AssertUnwindSafe(handler.handle(event)).catch_unwind().instrument(span);
    let outcome = match tokio::time::timeout(HANDLER_TIMEOUT, attempt).await {
        Ok(Ok(outcome)) => outcome,
        Ok(Err(_panic)) => Err(Failure::Retry("the handler panicked".into())),
        Err(_elapsed) => Err(Failure::Retry("the handler took too long".into())),
    };
    match &outcome {
        Ok(()) => metrics::counter!("guildhall_events_handled_total", "consumer" => consumer.to_owned()).increment(1),
        Err(failure) => {
            metrics::counter!("guildhall_events_failures_total", "consumer" => consumer.to_owned()).increment(1);
            tracing::warn!(consumer, event.id = %event.id, event.topic = %event.topic, error = %failure, "A consumer did not handle an event");
        }
    }
    outcome
}
