//! Events, committed with the change that they tell of.

use std::sync::Arc;

use contracts::Event;
use ids::{EventId, Source, Timestamp};
use store::{Db, Tx};

use crate::Error;
use crate::envelope::{Envelope, Row};

/// The most bytes that an event may have. Events carry ids; a consumer asks for more.
pub const MAX_PAYLOAD: usize = 256 * 1024;

/// Rows that one transaction deletes, so that it does not hold up others.
pub(crate) const PURGE_BATCH: i64 = 1000;

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
        .await?;
        let bell = Arc::clone(tx.bell());
        tx.after_commit(move || bell.notify_one());
        Ok(id)
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

/// Marks events as published.
pub(crate) async fn mark_published(db: &Db, ids: Vec<EventId>, now: Timestamp) -> store::Result<()> {
    let mut tx = db.begin().await?;
    let update = format!("UPDATE outbox SET publish_time = $2 WHERE id IN {}", tx.dialect().id_list(1));
    store::execute!(tx, update, store::dialect::id_list(ids), now).await?;
    tx.commit().await
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

/// Deletes what was published before `before`, a part at a time; the number of rows deleted.
pub(crate) async fn purge(db: &Db, before: Timestamp) -> store::Result<u64> {
    let mut tx = db.begin().await?;
    let purged = store::execute!(
        tx,
        "DELETE FROM outbox WHERE position IN (SELECT position FROM outbox WHERE publish_time < $1 LIMIT $2)",
        before,
        PURGE_BATCH
    )
    .await?;
    tx.commit().await?;
    Ok(purged)
}
