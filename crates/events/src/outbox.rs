//! Events, committed with the change that they tell of.

use std::sync::Arc;

use contracts::Event;
use ids::{EventId, Source, Timestamp};
use store::{Db, Tx};
use tracing::Instrument as _;

use crate::envelope::{Envelope, Row};
use crate::{Error, Receipt};

/// The most bytes that an event may have. Events carry ids; a consumer asks for more. Queues are bounded by the number of events.
pub const MAX_PAYLOAD: usize = 16 * 1024;

/// Rows that one transaction deletes, so that it does not hold up others.
pub(crate) const PURGE_BATCH: u64 = 1000;

/// Where a service puts its events.
#[derive(Clone, Debug)]
pub struct Outbox {
    service: &'static str,
    source: Source,
}

impl Outbox {
    /// The outbox of `service`.
    pub fn new(service: &'static str, source: Source) -> Self {
        Self { service, source }
    }

    /// Appends `event` in `tx`; it is published once that has been committed. `version` is the aggregate's after the change. Write the
    /// aggregate's row before: its lock orders the events of one key.
    pub async fn append<E: Event>(&self, tx: &mut Tx, version: i64, event: &E) -> Result<EventId, Error> {
        if event.key().is_empty() {
            return Err(Error::NoKey(E::TOPIC));
        }
        let size = event.encoded_len();
        if size > MAX_PAYLOAD {
            return Err(Error::TooLarge { topic: E::TOPIC, size });
        }
        let id: EventId = self.source.id();
        self.insert(tx, id, version, event).instrument(telemetry::event::create(self.service, E::TOPIC, id)).await?;
        let bell = Arc::clone(tx.bell());
        tx.after_commit(move || bell.notify_one());
        Ok(id)
    }

    /// Writes the row. It keeps the trace in which the event is created: relay and consumers go on in it.
    async fn insert<E: Event>(&self, tx: &mut Tx, id: EventId, version: i64, event: &E) -> store::Result<u64> {
        store::execute!(
            tx,
            "INSERT INTO outbox (id, source, topic, key, version, time, traceparent, payload) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
            id,
            self.service,
            E::TOPIC,
            event.key(),
            version,
            self.source.now(),
            telemetry::traceparent(),
            event.encode_to_vec()
        )
        .await
    }

    /// How many events in `db` have not been published yet.
    pub async fn pending(db: &Db) -> Result<u64, Error> {
        let mut conn = db.read().await?;
        let pending = store::fetch_scalar!(conn, i64, "SELECT COUNT(*) FROM outbox WHERE publish_time IS NULL").await?;
        Ok(u64::try_from(pending).unwrap_or_default())
    }
}

const COLUMNS: &str = "id, source, topic, key, version, time, traceparent, payload";

/// Unpublished events in their order, but for those of the keys that are being published.
pub(crate) async fn unpublished(db: &Db, busy: Vec<String>, limit: i64) -> store::Result<Vec<Envelope>> {
    let mut conn = db.read().await?;
    let select = format!(
        "SELECT {COLUMNS} FROM outbox WHERE publish_time IS NULL AND key NOT IN {} ORDER BY position LIMIT $2",
        conn.dialect().text_list(1)
    );
    let rows = store::fetch_all!(conn, Row, select, sqlx::types::Json(busy), limit).await?;
    Ok(rows.into_iter().map(Envelope::from).collect())
}

/// Marks events as published. The receipt, if the bus gave any, is not that of an earlier event on its stream than any of these.
pub(crate) async fn mark_published(
    tx: &mut Tx,
    ids: Vec<EventId>,
    receipt: Option<Receipt>,
    now: Timestamp,
) -> store::Result<()> {
    let update = format!(
        "UPDATE outbox SET publish_time = $2, stream = $3, receipt = $4 WHERE id IN {}",
        tx.dialect().id_list(1)
    );
    let (stream, number) = (receipt.map(|receipt| receipt.stream), receipt.map(|receipt| receipt.number));
    store::execute!(tx, update, store::dialect::id_list(ids), now, stream, number).await?;
    Ok(())
}

/// The newest receipt of each stream.
pub(crate) async fn newest_receipts(db: &Db) -> store::Result<Vec<Receipt>> {
    let mut conn = db.read().await?;
    let mut newest: Vec<Receipt> = Vec::new();
    loop {
        // From stream to stream along the index, whatever the number of events in each.
        let next = store::fetch_optional!(
            conn,
            (i32, i64),
            "SELECT stream, receipt FROM outbox WHERE stream > $1 ORDER BY stream, receipt DESC LIMIT 1",
            newest.last().map_or(-1, |receipt| receipt.stream)
        );
        match next.await? {
            Some((stream, number)) => newest.push(Receipt { stream, number }),
            None => return Ok(newest),
        }
    }
}

/// Makes what was put behind `kept` unpublished again; the number of events.
pub(crate) async fn take_back(db: &Db, kept: Receipt) -> store::Result<u64> {
    let mut tx = db.begin().await?;
    let taken_back = store::execute!(
        tx,
        "UPDATE outbox SET publish_time = NULL, stream = NULL, receipt = NULL WHERE stream = $1 AND receipt > $2",
        kept.stream,
        kept.number
    )
    .await?;
    tx.commit().await?;
    Ok(taken_back)
}

/// When the event happened that has waited longest to be published.
pub(crate) async fn oldest_unpublished(db: &Db) -> store::Result<Option<Timestamp>> {
    let mut conn = db.read().await?;
    let oldest = store::fetch_optional!(
        conn,
        (Timestamp,),
        "SELECT time FROM outbox WHERE publish_time IS NULL ORDER BY position LIMIT 1"
    )
    .await?;
    Ok(oldest.map(|(time,)| time))
}

/// Where a reader of the log stands: events after it have not been read.
#[derive(Clone, Copy, Default)]
pub(crate) struct Position(i64);

#[derive(sqlx::FromRow)]
struct LogRow {
    position: i64,
    #[sqlx(flatten)]
    event: Row,
}

/// Events of `topics` since `since`, published or not, after `position`, in their order; at most `limit`.
pub(crate) async fn log(
    db: &Db,
    topics: &[&str],
    since: Timestamp,
    position: Position,
    limit: i64,
) -> store::Result<Option<(Position, Vec<Envelope>)>> {
    let mut conn = db.read().await?;
    let select = format!(
        "SELECT position, {COLUMNS} FROM outbox WHERE time >= $1 AND position > $2 AND topic IN {} ORDER BY position LIMIT $4",
        conn.dialect().text_list(3)
    );
    let rows = store::fetch_all!(conn, LogRow, select, since, position.0, sqlx::types::Json(topics), limit).await?;
    let last = rows.last().map(|row| Position(row.position));
    Ok(last.map(|last| (last, rows.into_iter().map(|row| row.event.into()).collect())))
}

/// Deletes a part of what was published before `before`: what the bus gave no receipts for or, if `done` is given, what its
/// receipt is below on that stream. The number of rows deleted.
pub(crate) async fn purge(db: &Db, before: Timestamp, done: Option<Receipt>) -> store::Result<u64> {
    let mut tx = db.begin().await?;
    let purged = store::execute!(
        tx,
        "DELETE FROM outbox WHERE position IN (SELECT position FROM outbox WHERE publish_time < $1 \
         AND (stream = $2 AND receipt < $3 OR stream IS NULL AND $2 IS NULL) LIMIT $4)",
        before,
        done.map(|done| done.stream),
        done.map(|done| done.number),
        PURGE_BATCH.cast_signed()
    )
    .await?;
    tx.commit().await?;
    Ok(purged)
}
