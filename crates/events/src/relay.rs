//! From the outbox to the bus.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use ids::{EventId, Source};
use store::Db;
use tokio::task::{self, JoinError, JoinSet};
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use crate::{Bus, Envelope, Lease, inbox, outbox};

/// Keys that are published at the same time.
const LANES: usize = 32;
/// Events that are read at once.
const BATCH: i64 = 256;
/// A commit wakes the relay; this finds what another process committed, or a wake-up that was lost.
const POLL: Duration = Duration::from_secs(1);
/// How long another replica waits after this one was killed.
const LEASE: Duration = Duration::from_secs(10);
/// The pause before a key is tried again that the bus did not take.
const BUS_PAUSE: Duration = Duration::from_secs(1);
/// How long events that are on their way are waited for at the end.
const GRACE: Duration = Duration::from_secs(1);
const PURGE_INTERVAL: Duration = Duration::from_mins(5);
/// How long a published event is kept, for the replays of broadcasts.
const KEEP_PUBLISHED: Duration = Duration::from_hours(24);
/// How long a consumer remembers an event. It has to outlast the longest redelivery, as when another consumer's database is away.
const KEEP_TAKEN: Duration = Duration::from_hours(30 * 24);

/// Publishes the events of one service's outbox. Of several replicas one does so at a time.
pub struct Relay {
    db: Db,
    service: &'static str,
    bus: Arc<dyn Bus>,
    source: Source,
    lease: Lease,
    /// Until when the lease need not be renewed; none while another replica has it.
    held_until: Option<Instant>,
    purge_at: Instant,
    /// Each lane publishes events of one key, and ends with those that were published.
    lanes: JoinSet<Vec<EventId>>,
    busy: HashMap<task::Id, String>,
}

/// The end of a lane.
type Ended = Result<(task::Id, Vec<EventId>), JoinError>;

impl Relay {
    /// The relay of `service`, whose outbox is in `db`.
    pub fn new(db: Db, service: &'static str, bus: Arc<dyn Bus>, source: Source) -> Self {
        let lease = Lease::new(db.clone(), format!("relay/{service}"), LEASE, &source);
        Self {
            db,
            service,
            bus,
            source,
            lease,
            held_until: None,
            purge_at: Instant::now(),
            lanes: JoinSet::new(),
            busy: HashMap::new(),
        }
    }

    /// Publishes until `stop`; what is on its way then gets a second to arrive.
    pub async fn run(mut self, stop: CancellationToken) {
        let bell = Arc::clone(self.db.bell());
        let mut poll = tokio::time::interval(POLL);
        poll.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let tended = tokio::select! {
                biased;
                () = stop.cancelled() => break,
                _ = poll.tick() => self.tend().await,
                Some(ended) = self.lanes.join_next_with_id() => self.finish(ended).await,
                () = bell.notified() => Ok(()),
            };
            let outcome = match tended {
                Ok(()) => self.start_lanes().await,
                failed => failed,
            };
            if let Err(error) = outcome {
                tracing::warn!(service = self.service, error = %error, "The relay cannot use its database; trying again");
                tokio::time::sleep(POLL).await;
            }
        }
        self.end().await;
    }

    /// What is due now and then: the lease, the metrics, the purge.
    async fn tend(&mut self) -> store::Result<()> {
        let now = Instant::now();
        if self.held_until.is_none_or(|until| until <= now) {
            let held = self.lease.acquire().await.inspect_err(|_| self.held_until = None)?;
            self.held_until = held.then(|| now + self.lease.duration() / 2);
            if !held {
                // Another replica has them now.
                self.lanes.abort_all();
                self.lanes = JoinSet::new();
                self.busy.clear();
            }
        }
        if self.held_until.is_none() {
            return Ok(());
        }
        let oldest = outbox::oldest_unpublished(&self.db).await?;
        let lag = oldest.map_or(Duration::ZERO, |oldest| self.source.now().since(oldest));
        metrics::gauge!("guildhall_events_outbox_lag_seconds", "service" => self.service).set(lag.as_secs_f64());
        if self.purge_at <= now {
            self.purge_at = now + PURGE_INTERVAL;
            while outbox::purge(&self.db, self.source.now() - KEEP_PUBLISHED).await? > 0 {}
            inbox::purge(&self.db, self.source.now() - KEEP_TAKEN).await?;
        }
        Ok(())
    }

    /// Gives free lanes to keys that have unpublished events and no lane.
    async fn start_lanes(&mut self) -> store::Result<()> {
        if self.held_until.is_none() || self.lanes.len() >= LANES {
            return Ok(());
        }
        let events = outbox::unpublished(&self.db, self.busy.values().cloned().collect(), BATCH).await?;
        for events in by_key(events).into_iter().take(LANES - self.lanes.len()) {
            let key = events[0].key.clone();
            let lane = self.lanes.spawn(publish(Arc::clone(&self.bus), events));
            self.busy.insert(lane.id(), key);
        }
        Ok(())
    }

    /// Marks what a lane has published, together with what other lanes have meanwhile, and frees the lanes.
    async fn finish(&mut self, first: Ended) -> store::Result<()> {
        let mut published = Vec::new();
        let mut lanes = Vec::new();
        for ended in std::iter::once(first).chain(std::iter::from_fn(|| self.lanes.try_join_next_with_id())) {
            match ended {
                Ok((lane, events)) => {
                    lanes.push(lane);
                    published.extend(events);
                }
                Err(error) => {
                    lanes.push(error.id());
                    tracing::error!(service = self.service, error = %error, "A lane of the relay ended with a panic; its events are published again");
                }
            }
        }
        let count = published.len() as u64;
        let marked = if published.is_empty() {
            Ok(())
        } else {
            outbox::mark_published(&self.db, published, self.source.now()).await
        };
        for lane in lanes {
            self.busy.remove(&lane);
        }
        metrics::counter!("guildhall_events_published_total", "service" => self.service).increment(count);
        marked
    }

    async fn end(mut self) {
        let arriving = async {
            while let Some(ended) = self.lanes.join_next_with_id().await {
                if let Err(error) = self.finish(ended).await {
                    tracing::warn!(service = self.service, error = %error, "Could not mark events as published; they are delivered again");
                }
            }
        };
        // What does not arrive in time is still unpublished, and is delivered again at the next start.
        let _late = tokio::time::timeout(GRACE, arriving).await;
        self.lanes.shutdown().await;
        if self.held_until.is_some()
            && let Err(error) = self.lease.release().await
        {
            tracing::warn!(service = self.service, error = %error, "Could not give back the relay's lease; it ends by itself");
        }
    }
}

/// The events of one key, and those of them that the bus took.
async fn publish(bus: Arc<dyn Bus>, events: Vec<Envelope>) -> Vec<EventId> {
    match bus.publish(&events).await {
        Ok(()) => events.iter().map(|event| event.id).collect(),
        Err(error) => {
            tracing::warn!(event.key = %events[0].key, error = %error, "The bus did not take events; trying again");
            tokio::time::sleep(BUS_PAUSE).await;
            Vec::new()
        }
    }
}

/// The events of each key in their order, the keys in the order of their first events.
fn by_key(events: Vec<Envelope>) -> Vec<Vec<Envelope>> {
    let mut keys: Vec<Vec<Envelope>> = Vec::new();
    let mut index = HashMap::new();
    for event in events {
        let place = *index.entry(event.key.clone()).or_insert_with(|| {
            keys.push(Vec::new());
            keys.len() - 1
        });
        keys[place].push(event);
    }
    keys
}
