//! From the outbox to the bus.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use ids::{EventId, Source};
use store::Db;
use tokio::task::{self, JoinError, JoinSet};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::outbox::PURGE_BATCH;
use crate::{Bus, Envelope, Error, Lease, Receipt, inbox, outbox};

/// Keys that are published at the same time.
const LANES: usize = 32;
/// Events that are read at once.
const BATCH: i64 = 256;
/// A commit wakes the relay, in whichever process; this finds what it was not told of. A bus that did not take something is asked
/// again after that time.
const POLL: Duration = Duration::from_secs(1);
/// How long another replica waits after this one was killed.
const LEASE: Duration = Duration::from_secs(10);
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
    /// When it looks at the lease and the bus again.
    tend_at: Instant,
    /// Whether the bus has what it gave receipts for, as far as is known; nothing is published before.
    resumed: bool,
    purge_at: Instant,
    /// Each lane publishes events of one key.
    lanes: JoinSet<Published>,
    busy: HashMap<task::Id, String>,
}

/// What the bus took of a lane.
type Published = Result<(Vec<EventId>, Option<Receipt>), Error>;

/// The end of a lane.
type Ended = Result<(task::Id, Published), JoinError>;

impl Relay {
    /// The relay of `service`, whose outbox is in `db`.
    pub fn new(db: Db, service: &'static str, bus: Arc<dyn Bus>, source: Source) -> Self {
        let lease = Lease::new(db.clone(), format!("relay/{service}"), LEASE, &source);
        metrics::counter!("guildhall_events_published_total", "service" => service).increment(0);
        metrics::counter!("guildhall_events_republished_total", "service" => service).increment(0);
        Self {
            db,
            service,
            bus,
            source,
            lease,
            held_until: None,
            tend_at: Instant::now(),
            resumed: false,
            purge_at: Instant::now(),
            lanes: JoinSet::new(),
            busy: HashMap::new(),
        }
    }

    /// Publishes until `stop`; what is on its way then gets a second to arrive.
    pub async fn run(mut self, stop: CancellationToken) {
        let bell = Arc::clone(self.db.bell());
        let mut rung = self.bus.bell(self.service);
        loop {
            let tended = tokio::select! {
                biased;
                () = stop.cancelled() => break,
                () = tokio::time::sleep_until(self.tend_at) => self.tend().await,
                Some(ended) = self.lanes.join_next_with_id() => self.finish(ended).await.map_err(Error::from),
                () = bell.notified() => {
                    self.ring().await;
                    Ok(())
                }
                Ok(()) = rung.changed() => Ok(()),
            };
            let outcome = match tended {
                Ok(()) => self.start_lanes().await.map_err(Error::from),
                failed => failed,
            };
            match outcome {
                Ok(()) => {}
                Err(Error::Store(error)) => {
                    tracing::warn!(service = self.service, error = %error, "The relay cannot use its database; trying again");
                    tokio::time::sleep(POLL).await;
                }
                Err(error) => self.suspend(&error),
            }
        }
        self.end().await;
    }

    /// What is due now and then: the lease, the bus, the metrics, the purge.
    async fn tend(&mut self) -> Result<(), Error> {
        let now = Instant::now();
        self.tend_at = now + POLL;
        if self.held_until.is_none_or(|until| until <= now) {
            let held = self.lease.acquire().await.inspect_err(|_| self.held_until = None)?;
            self.held_until = held.then(|| now + self.lease.duration() / 2);
            if !held {
                // Another replica has them now.
                self.resumed = false;
                self.lanes.abort_all();
                self.lanes = JoinSet::new();
                self.busy.clear();
                // Its holder may give it back before, or never be heard of again.
                self.tend_at = self.tend_at.min(Instant::now() + self.lease.left().await? + Duration::from_millis(1));
            }
        }
        if self.held_until.is_none() {
            return Ok(());
        }
        let oldest = outbox::oldest_unpublished(&self.db).await?;
        let lag = oldest.map_or(Duration::ZERO, |oldest| self.source.now().since(oldest));
        metrics::gauge!("guildhall_events_outbox_lag_seconds", "service" => self.service).set(lag.as_secs_f64());
        if self.resumed {
            self.bus.verify(self.service).await?;
        } else {
            self.resume().await?;
        }
        if self.resumed && self.purge_at <= now {
            let is_all = self.purge().await?;
            self.purge_at = if is_all { now + PURGE_INTERVAL } else { now };
        }
        Ok(())
    }

    /// Something was committed here. If another replica has the lease, that one does not know yet.
    async fn ring(&self) {
        if self.held_until.is_none()
            && let Err(error) = self.bus.ring(self.service).await
        {
            tracing::debug!(service = self.service, error = %error, "Could not tell the relay in another process of events; it polls");
        }
    }

    /// Compares what was published with what the bus has. What it has lost is unpublished again, once all that is on its way is marked:
    /// a mark that came later would hide a loss.
    async fn resume(&mut self) -> Result<(), Error> {
        if !self.lanes.is_empty() {
            return Ok(());
        }
        let newest = outbox::newest_receipts(&self.db).await?;
        for kept in self.bus.resume(self.service, &newest).await? {
            let count = outbox::take_back(&self.db, kept).await?;
            metrics::counter!("guildhall_events_republished_total", "service" => self.service).increment(count);
            tracing::error!(
                service = self.service,
                stream = kept.stream,
                count,
                "The bus has lost events that it had acknowledged; they are published again"
            );
        }
        self.resumed = true;
        Ok(())
    }

    /// What a bus keeps itself stays in the outbox until its consumers are done with it: the bus may lose it until then. Deletes a part;
    /// whether that was all. Events do not wait until the leavings of a long time are gone.
    async fn purge(&self) -> Result<bool, Error> {
        let before = self.source.now() - KEEP_PUBLISHED;
        let done = self.bus.trim(self.service, before).await?;
        let mut is_all = inbox::purge(&self.db, self.source.now() - KEEP_TAKEN).await? < PURGE_BATCH;
        for done in std::iter::once(None).chain(done.into_iter().map(Some)) {
            is_all &= outbox::purge(&self.db, before, done).await? < PURGE_BATCH;
        }
        Ok(is_all)
    }

    /// Publishes nothing more until the bus has been asked what it has: at the next poll, which is the pause before it is tried again.
    fn suspend(&mut self, error: &Error) {
        if std::mem::take(&mut self.resumed) {
            tracing::warn!(service = self.service, error = %error, "The bus does not take events; trying again");
        }
    }

    /// Gives free lanes to keys that have unpublished events and no lane.
    async fn start_lanes(&mut self) -> store::Result<()> {
        if self.held_until.is_none() || !self.resumed || self.lanes.len() >= LANES {
            return Ok(());
        }
        let events = outbox::unpublished(&self.db, self.busy.values().cloned().collect(), BATCH).await?;
        for events in by_key(events).into_iter().take(LANES - self.lanes.len()) {
            let key = events[0].key.clone();
            let lane = self.lanes.spawn(publish(Arc::clone(&self.bus), self.service, events));
            self.busy.insert(lane.id(), key);
        }
        Ok(())
    }

    /// Marks what a lane has published, together with what other lanes have meanwhile, and frees the lanes.
    async fn finish(&mut self, first: Ended) -> store::Result<()> {
        let mut published = BTreeMap::<_, (Vec<_>, Option<Receipt>)>::new();
        let mut lanes = Vec::new();
        let mut count = 0;
        let mut next = Some(first);
        while let Some(ended) = next {
            match ended {
                Ok((lane, Ok((ids, receipt)))) => {
                    lanes.push(lane);
                    count += ids.len() as u64;
                    // One statement for all that went to a stream: the last of their receipts is good for each of them.
                    let (marked, last) = published.entry(receipt.map(|receipt| receipt.stream)).or_default();
                    marked.extend(ids);
                    *last = receipt.into_iter().chain(*last).max_by_key(|receipt| receipt.number);
                }
                Ok((lane, Err(error))) => {
                    lanes.push(lane);
                    self.suspend(&error);
                }
                Err(error) => {
                    lanes.push(error.id());
                    tracing::error!(service = self.service, error = %error, "A lane of the relay ended with a panic; its events are published again");
                }
            }
            next = self.lanes.try_join_next_with_id();
        }
        let marked = self.mark(published).await;
        for lane in lanes {
            self.busy.remove(&lane);
        }
        metrics::counter!("guildhall_events_published_total", "service" => self.service).increment(count);
        marked
    }

    async fn mark(&self, published: BTreeMap<Option<i32>, (Vec<EventId>, Option<Receipt>)>) -> store::Result<()> {
        if published.is_empty() {
            return Ok(());
        }
        let now = self.source.now();
        let mut tx = self.db.begin().await?;
        for (ids, receipt) in published.into_values() {
            outbox::mark_published(&mut tx, ids, receipt, now).await?;
        }
        tx.commit().await
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

/// Hands the events of one key to the bus.
async fn publish(bus: Arc<dyn Bus>, service: &'static str, events: Vec<Envelope>) -> Published {
    let spans: Vec<_> = events
        .iter()
        .map(|event| telemetry::event::send(service, &event.topic, event.id, event.traceparent.as_deref()))
        .collect();
    let receipts = bus.publish(&events).await;
    // They end here.
    drop(spans);
    // Events of one key have gone to one stream.
    Ok((events.iter().map(|event| event.id).collect(), receipts?.last().copied()))
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
