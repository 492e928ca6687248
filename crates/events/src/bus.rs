//! The interface between services that emit events and services that consume them.

pub mod embedded;
pub mod redis;

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use ids::{Source, Timestamp};
use status::{Problem, Reason};
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
    /// Hands on events, in order per key. It returns once the bus has them, with a receipt of each stream that they went to: that of the
    /// last of them. There is none if the bus keeps nothing, because the events have had their effects by then. Called with the same
    /// events again, it may deliver them again.
    async fn publish(&self, events: &[Envelope]) -> Result<Vec<Receipt>, Error>;

    /// The relay of `service` begins to publish, or goes on after an error. `newest` is the newest receipt that it has of each stream.
    /// Tells of each stream that has lost what it once gave a receipt for, with the newest receipt of those that it still has (or the
    /// number 0): the relay publishes again what came after. None of its events are being published meanwhile.
    async fn resume(&self, _service: &str, _newest: &[Receipt]) -> Result<Vec<Receipt>, Error> {
        Ok(Vec::new())
    }

    /// [`Error::Lost`] if events of `service` are gone that there are receipts for.
    async fn verify(&self, _service: &str) -> Result<(), Error> {
        Ok(())
    }

    /// Lets go of the events of `service` that were published before `before` and that every work consumer is done with. Tells of each
    /// stream the receipt below which consumers are done with everything.
    async fn trim(&self, _service: &str, _before: Timestamp) -> Result<Vec<Receipt>, Error> {
        Ok(Vec::new())
    }

    /// Tells the relay of `service`, which is in another process, that there is something to publish. It may get lost.
    async fn ring(&self, _service: &str) -> Result<(), Error> {
        Ok(())
    }

    /// Changes when somebody has rung for the relay of `service`, and now and then without.
    fn bell(&self, _service: &str) -> watch::Receiver<()> {
        watch::Sender::default().subscribe()
    }

    /// Hands the events of some topics to `handler`, until the subscription is stopped.
    async fn subscribe(
        &self,
        subscription: Subscription,
        handler: Arc<dyn Handler>,
        dead_letters: DeadLetters,
    ) -> Result<Running, Error>;
}

/// Where a bus that keeps events itself has put one. Later ones of a stream have higher numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Receipt {
    /// One of the streams of the service that emitted the event.
    pub stream: i32,
    /// Above 0.
    pub number: i64,
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

impl Subscription {
    /// The services that emit its topics.
    fn emitters(&self) -> Vec<&'static str> {
        let mut emitters: Vec<_> = self.topics.iter().filter_map(|topic| topic.split('.').next()).collect();
        emitters.sort_unstable();
        emitters.dedup();
        emitters
    }
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
    /// Handles one event; it is tried again after [`Failure::Later`] and [`Failure::Retry`].
    async fn handle(&self, event: &Envelope) -> Result<(), Failure>;
}

/// Why an event was not handled. The text is kept with the dead letter: no personal data.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// Something that it needs is away, which says nothing about the event: it is tried again until that is back, and counts as
    /// no attempt. Meanwhile later events of its key wait.
    #[error("{0}")]
    Later(String),
    /// It may work the next time.
    #[error("{0}")]
    Retry(String),
    /// It will never work: the event becomes a dead letter at once.
    #[error("{0}")]
    Reject(String),
}

impl From<store::Error> for Failure {
    fn from(error: store::Error) -> Self {
        Problem::from(error).into()
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Problem::from(error).into()
    }
}

impl From<Problem> for Failure {
    fn from(problem: Problem) -> Self {
        let text = problem.cause().map_or_else(|| problem.to_string(), ToString::to_string);
        match problem.reason() {
            Reason::Unavailable | Reason::DeadlineExceeded => Self::Later(text),
            _ => Self::Retry(text),
        }
    }
}

/// How often and after which pauses a failed event is tried again.
#[derive(Clone, Copy, Debug)]
pub struct Retry {
    /// The first attempt counts; those that end with [`Failure::Later`] do not.
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

/// The failures of one event so far.
struct Failures {
    /// Those that count as attempts.
    attempts: u32,
    all: u32,
}

impl Failures {
    /// Those of an event after so many attempts.
    fn after(attempts: u32) -> Self {
        Self { attempts, all: attempts }
    }

    /// One more. The pause before the next attempt; `None` where there is to be none.
    fn add(&mut self, failure: &Failure, retry: Retry, source: &Source) -> Option<Duration> {
        self.all = self.all.saturating_add(1);
        self.attempts += u32::from(!matches!(failure, Failure::Later(_)));
        let goes_on = match failure {
            Failure::Later(_) => true,
            Failure::Retry(_) => self.attempts < retry.attempts,
            Failure::Reject(_) => false,
        };
        goes_on.then(|| retry.pause_after(self.all, source))
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

fn wants(topics: &[&str], event: &Envelope) -> bool {
    topics.contains(&event.topic.as_str())
}

/// The counters of a consumer, from its start on: what is born with its first failure is missed by whoever watches its rate.
fn count_from_zero(consumer: &'static str) {
    metrics::counter!("guildhall_events_handled_total", "consumer" => consumer).increment(0);
    metrics::counter!("guildhall_events_failures_total", "consumer" => consumer).increment(0);
    metrics::counter!("guildhall_events_dead_letters_total", "consumer" => consumer).increment(0);
}

/// Runs a handler once, within the trace of the event, bounded in time and with its panics as failures.
pub(crate) async fn attempt(consumer: &str, handler: &dyn Handler, event: &Envelope) -> Result<(), Failure> {
    let span = telemetry::event::process(consumer, &event.topic, event.id, event.traceparent.as_deref());
    let attempt = AssertUnwindSafe(handler.handle(event)).catch_unwind().instrument(span.clone());
    let outcome = match tokio::time::timeout(HANDLER_TIMEOUT, attempt).await {
        Ok(Ok(outcome)) => outcome,
        Ok(Err(_panic)) => Err(Failure::Retry("the handler panicked".into())),
        Err(_elapsed) => Err(Failure::Retry("the handler took too long".into())),
    };
    match &outcome {
        Ok(()) => metrics::counter!("guildhall_events_handled_total", "consumer" => consumer.to_owned()).increment(1),
        Err(failure) => {
            metrics::counter!("guildhall_events_failures_total", "consumer" => consumer.to_owned()).increment(1);
            span.record("otel.status_code", "ERROR");
            span.in_scope(|| tracing::warn!(consumer, event.id = %event.id, event.topic = %event.topic, error = %failure, "A consumer did not handle an event"));
        }
    }
    outcome
}

/// Handles the events of a broadcast one after the other.
struct Recipient {
    consumer: &'static str,
    topics: &'static [&'static str],
    handler: Arc<dyn Handler>,
    dead_letters: DeadLetters,
    retry: Retry,
    source: Source,
}

impl Recipient {
    /// Returns when the event was handled, or given up on.
    async fn handle(&self, event: &Envelope) {
        let mut failures = Failures::after(0);
        while let Err(failure) = attempt(self.consumer, self.handler.as_ref(), event).await {
            let Some(pause) = failures.add(&failure, self.retry, &self.source) else {
                return self.give_up(event, &failure.to_string(), failures.attempts).await;
            };
            tokio::time::sleep(pause).await;
        }
    }

    async fn give_up(&self, event: &Envelope, reason: &str, attempts: u32) {
        if let Err(error) = self.dead_letters.keep(self.consumer, event, reason, attempts).await {
            tracing::error!(consumer = self.consumer, event.id = %event.id, error = %error, "Could not keep a dead letter");
        }
    }
}
