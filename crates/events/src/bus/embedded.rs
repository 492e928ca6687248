//! The bus inside one process: `guildhall dev` and tests. The outboxes are its log, so that it keeps nothing itself.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::join_all;
use ids::{Source, Timestamp};
use store::Db;
use tokio::sync::{OwnedMutexGuard, Semaphore, mpsc, watch};
use tokio_util::sync::CancellationToken;
use tonic::async_trait;

use crate::bus::{
    Bus, Delivery, Failure, Failures, Handler, Receipt, Recipient, Retry, Running, Subscription, attempt,
    count_from_zero, wants,
};
use crate::outbox::{self, Position};
use crate::{DeadLetters, Envelope, Error};

/// Handlers of one work subscription that run at the same time.
pub const LANES: u32 = 16;
/// Events that wait for one broadcast subscription; whoever publishes more waits.
pub const QUEUE: usize = 1024;
/// Events that are read from a log at once.
const REPLAY_BATCH: i64 = 200;
/// The pause before a dead letter, or a log, that could not be written or read is tried again.
const DATABASE_PAUSE: Duration = Duration::from_secs(1);

/// A [`Bus`] that calls its handlers itself. [`Bus::publish`] returns once every work consumer has committed its effect or a dead
/// letter, so that an event that was cut off by a crash is still unpublished in its outbox.
///
/// A work consumer is known from its first subscription on: while it is stopped, its events wait. So subscribe all consumers of a
/// process before its relays run.
#[derive(Debug)]
pub struct EmbeddedBus {
    retry: Retry,
    source: Source,
    seats: Mutex<BTreeMap<&'static str, Arc<Seat>>>,
    audience: Arc<Mutex<Vec<Listener>>>,
    logs: watch::Sender<HashMap<String, Db>>,
}

impl EmbeddedBus {
    /// A bus with the usual [`Retry`].
    pub fn new(source: Source) -> Self {
        Self::with_retry(source, Retry::default())
    }

    /// A bus that tries failed events again as `retry` says.
    pub fn with_retry(source: Source, retry: Retry) -> Self {
        Self { retry, source, seats: Mutex::default(), audience: Arc::default(), logs: watch::Sender::default() }
    }

    /// Makes the outbox of `service` known: what broadcast subscriptions missed is read from there.
    pub fn attach(&self, service: &str, db: Db) {
        self.logs.send_modify(|logs| {
            logs.insert(service.to_owned(), db);
        });
    }

    /// Hands one event to all who want it.
    async fn deliver(&self, event: &Envelope) {
        let listeners: Vec<_> = {
            let mut audience = self.audience.lock().unwrap_or_else(PoisonError::into_inner);
            audience.retain(|listener| !listener.queue.is_closed());
            audience
                .iter()
                .filter(|listener| wants(listener.topics, event))
                .map(|listener| listener.queue.clone())
                .collect()
        };
        for queue in listeners {
            // An error means that the subscription has ended.
            let _ended = queue.send(event.clone()).await;
        }
        let seats: Vec<_> = {
            let seats = self.seats.lock().unwrap_or_else(PoisonError::into_inner);
            seats.values().filter(|seat| wants(seat.topics, event)).cloned().collect()
        };
        join_all(seats.iter().map(|seat| seat.deliver(event, self.retry, &self.source))).await;
    }

    fn take_seat(
        &self,
        subscription: &Subscription,
        handler: Arc<dyn Handler>,
        dead_letters: DeadLetters,
    ) -> Result<Running, Error> {
        let consumer = subscription.consumer;
        if !dead_letters.are_kept() {
            return Err(Error::NoDeadLetters(consumer));
        }
        dead_letters.register(consumer, Arc::clone(&handler));
        let occupant = Occupant { handler, dead_letters };
        let seat = {
            let mut seats = self.seats.lock().unwrap_or_else(PoisonError::into_inner);
            match seats.get(consumer) {
                Some(seat) if seat.occupant.borrow().is_some() => return Err(Error::Taken(consumer)),
                Some(seat) if seat.topics == subscription.topics => {
                    seat.occupant.send_replace(Some(occupant));
                    Arc::clone(seat)
                }
                _ => {
                    let seat = Arc::new(Seat::new(consumer, subscription.topics, occupant));
                    seats.insert(consumer, Arc::clone(&seat));
                    seat
                }
            }
        };
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let task = tokio::spawn(async move {
            stopped.cancelled().await;
            seat.vacate().await;
        });
        Ok(Running::new(stop, task, watch::Sender::new(true).subscribe()))
    }

    fn listen(
        &self,
        subscription: &Subscription,
        replay: Duration,
        handler: Arc<dyn Handler>,
        dead_letters: DeadLetters,
    ) -> Running {
        let (queue, events) = mpsc::channel(QUEUE);
        dead_letters.register(subscription.consumer, Arc::clone(&handler));
        let listener = Listener { topics: subscription.topics, queue };
        self.audience.lock().unwrap_or_else(PoisonError::into_inner).push(listener);
        let (caught_up, is_caught_up) = watch::channel(false);
        let recipient = Recipient {
            consumer: subscription.consumer,
            topics: subscription.topics,
            handler,
            dead_letters,
            retry: self.retry,
            source: self.source.clone(),
        };
        let follower = Follower { since: self.source.now() - replay, emitters: subscription.emitters(), recipient };
        let stop = CancellationToken::new();
        let (stopped, logs) = (stop.clone(), self.logs.subscribe());
        let task = tokio::spawn(async move {
            let following = follower.follow(logs, caught_up, events);
            // Broadcasts change what is in memory only: one may be cut off anywhere.
            stopped.run_until_cancelled(following).await;
        });
        Running::new(stop, task, is_caught_up)
    }
}

#[async_trait]
impl Bus for EmbeddedBus {
    async fn publish(&self, events: &[Envelope]) -> Result<Vec<Receipt>, Error> {
        let mut keys = BTreeMap::<_, Vec<_>>::new();
        for event in events {
            keys.entry((&event.source, &event.key)).or_default().push(event);
        }
        join_all(keys.into_values().map(|events| async move {
            for event in events {
                self.deliver(event).await;
            }
        }))
        .await;
        Ok(Vec::new())
    }

    /// Receipts are another bus's, from before the service came to this one: what is known only there is delivered here.
    async fn resume(&self, _service: &str, newest: &[Receipt]) -> Result<Vec<Receipt>, Error> {
        Ok(newest.iter().map(|receipt| Receipt { number: 0, ..*receipt }).collect())
    }

    async fn subscribe(
        &self,
        subscription: Subscription,
        handler: Arc<dyn Handler>,
        dead_letters: DeadLetters,
    ) -> Result<Running, Error> {
        count_from_zero(subscription.consumer);
        match subscription.delivery {
            Delivery::Work => self.take_seat(&subscription, handler, dead_letters),
            Delivery::Broadcast { replay } => Ok(self.listen(&subscription, replay, handler, dead_letters)),
        }
    }
}

/// A work consumer, which may be away for a while.
#[derive(Debug)]
struct Seat {
    consumer: &'static str,
    topics: &'static [&'static str],
    occupant: watch::Sender<Option<Occupant>>,
    lanes: Semaphore,
    turns: Turns,
}

#[derive(Clone)]
struct Occupant {
    handler: Arc<dyn Handler>,
    dead_letters: DeadLetters,
}

impl std::fmt::Debug for Occupant {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Occupant").finish_non_exhaustive()
    }
}

impl Seat {
    fn new(consumer: &'static str, topics: &'static [&'static str], occupant: Occupant) -> Self {
        let lanes = Semaphore::new(LANES as usize);
        Self { consumer, topics, occupant: watch::Sender::new(Some(occupant)), lanes, turns: Turns::default() }
    }

    /// Returns once the event's effect, or its dead letter, has been committed. Meanwhile no other event of its key is handled here.
    async fn deliver(&self, event: &Envelope, retry: Retry, source: &Source) {
        let _turn = self.turns.take(&event.key).await;
        let mut failures = Failures::after(0);
        while let Err(failure) = self.attempt(event).await {
            let Some(pause) = failures.add(&failure, retry, source) else {
                return self.give_up(event, &failure.to_string(), failures.attempts).await;
            };
            tokio::time::sleep(pause).await;
        }
    }

    async fn attempt(&self, event: &Envelope) -> Result<(), Failure> {
        loop {
            let lane = self.lanes.acquire().await.expect("the lanes are never closed");
            let occupant = self.occupant.borrow().clone();
            if let Some(Occupant { handler, .. }) = occupant {
                return attempt(self.consumer, handler.as_ref(), event).await;
            }
            drop(lane);
            self.occupied().await;
        }
    }

    async fn give_up(&self, event: &Envelope, reason: &str, attempts: u32) {
        loop {
            let Occupant { dead_letters, .. } = self.occupied().await;
            match dead_letters.keep(self.consumer, event, reason, attempts).await {
                Ok(()) => return,
                Err(error) => {
                    tracing::error!(consumer = self.consumer, event.id = %event.id, error = %error, "Could not keep a dead letter; trying again");
                    tokio::time::sleep(DATABASE_PAUSE).await;
                }
            }
        }
    }

    /// Who sits here, once somebody does.
    async fn occupied(&self) -> Occupant {
        let mut occupant = self.occupant.subscribe();
        let occupied = occupant.wait_for(Option::is_some).await.expect("the sender lives as long as the seat");
        occupied.clone().expect("this was waited for")
    }

    /// Leaves, after the handlers that run now.
    async fn vacate(&self) {
        self.occupant.send_replace(None);
        let _all = self.lanes.acquire_many(LANES).await.expect("the lanes are never closed");
    }
}

/// Lets one event of a key through at a time, in the order in which they came.
#[derive(Debug, Default)]
struct Turns(Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>);

struct Turn<'a> {
    turns: &'a Turns,
    key: &'a str,
    held: Option<OwnedMutexGuard<()>>,
}

impl Turns {
    async fn take<'a>(&'a self, key: &'a str) -> Turn<'a> {
        let mut turn = Turn { turns: self, key, held: None };
        let queue =
            Arc::clone(self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(key.to_owned()).or_default());
        turn.held = Some(queue.lock_owned().await);
        turn
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.held = None;
        let mut queues = self.turns.0.lock().unwrap_or_else(PoisonError::into_inner);
        if queues.get(self.key).is_some_and(|queue| Arc::strong_count(queue) == 1) {
            queues.remove(self.key);
        }
    }
}

/// Where the events of one broadcast subscription go.
#[derive(Debug)]
struct Listener {
    topics: &'static [&'static str],
    queue: mpsc::Sender<Envelope>,
}

/// A broadcast subscription.
struct Follower {
    since: Timestamp,
    emitters: Vec<&'static str>,
    recipient: Recipient,
}

impl Follower {
    /// First what the logs hold, then what comes. The queue was there before the logs are read: an event is in the one or the other.
    async fn follow(
        self,
        logs: watch::Receiver<HashMap<String, Db>>,
        caught_up: watch::Sender<bool>,
        mut events: mpsc::Receiver<Envelope>,
    ) {
        for emitter in &self.emitters {
            let mut logs = logs.clone();
            let Ok(db) = logs.wait_for(|logs| logs.contains_key(*emitter)).await.map(|logs| logs[*emitter].clone())
            else {
                return;
            };
            self.catch_up(&db).await;
        }
        caught_up.send_replace(true);
        while let Some(event) = events.recv().await {
            self.recipient.handle(&event).await;
        }
    }

    async fn catch_up(&self, db: &Db) {
        let mut position = Position::default();
        loop {
            match outbox::log(db, self.recipient.topics, self.since, position, REPLAY_BATCH).await {
                Ok(Some((last, events))) => {
                    for event in &events {
                        self.recipient.handle(event).await;
                    }
                    position = last;
                }
                Ok(None) => return,
                Err(error) => {
                    tracing::warn!(consumer = self.recipient.consumer, error = %error, "Could not read an outbox for a replay; trying again");
                    tokio::time::sleep(DATABASE_PAUSE).await;
                }
            }
        }
    }
}
