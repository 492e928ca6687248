//! The events that a consumer has taken.

use ids::{Source, Timestamp};
use store::{Db, Tx};

use crate::outbox::PURGE_BATCH;
use crate::{Envelope, Error};

/// Makes the effect of an event happen once, however often the event arrives.
#[derive(Clone, Debug)]
pub struct Inbox {
    db: Db,
    consumer: &'static str,
    source: Source,
}

impl Inbox {
    /// The inbox of `consumer`, in the database of its effects.
    pub fn new(db: Db, consumer: &'static str, source: Source) -> Self {
        Self { db, consumer, source }
    }

    /// The transaction in which the event's effect is to happen, with the event marked as taken; none if it was taken before. If the
    /// same event is being handled elsewhere, this waits for the outcome.
    pub async fn begin(&self, event: &Envelope) -> Result<Option<Tx>, Error> {
        let mut tx = self.db.begin().await?;
        let taken = store::execute!(
            tx,
            "INSERT INTO inbox (consumer, event_id, time) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING",
            self.consumer,
            event.id,
            self.source.now()
        )
        .await?;
        Ok((taken == 1).then_some(tx))
    }
}

/// Forgets a part of what was taken before `before`; the number of rows deleted.
pub(crate) async fn purge(db: &Db, before: Timestamp) -> store::Result<u64> {
    let mut tx = db.begin().await?;
    let purged = store::execute!(
        tx,
        "DELETE FROM inbox WHERE (consumer, event_id) IN (SELECT consumer, event_id FROM inbox WHERE time < $1 LIMIT $2)",
        before,
        PURGE_BATCH.cast_signed()
    )
    .await?;
    tx.commit().await?;
    Ok(purged)
}
