//! Leases: one of several replicas does what only one may do.

use std::time::Duration;

use ids::Source;
use store::Db;
use uuid::Uuid;

/// A right that one holder has at a time, for a limited time by the database's own clock. Whoever holds it renews it well before it
/// ends. On SQLite, what a process left behind that was killed is free at once. A holder that was halted and goes on too late may
/// overlap with the next for a moment: what is done under a lease has to bear that.
#[derive(Clone, Debug)]
pub struct Lease {
    db: Db,
    name: String,
    holder: Uuid,
    duration: Duration,
}

impl Lease {
    /// The lease `name`, for a holder that no other has the name of.
    pub fn new(db: Db, name: impl Into<String>, duration: Duration, source: &Source) -> Self {
        Self { db, name: name.into(), holder: Uuid::from_bytes(source.bytes()), duration }
    }

    /// Takes or renews the lease; whether this holder has it now, for the whole duration.
    pub async fn acquire(&self) -> store::Result<bool> {
        let mut tx = self.db.begin().await?;
        let now = tx.dialect().now_micros();
        let left_behind = if tx.dialect().has_one_process() { "OR lease.opening <> excluded.opening" } else { "" };
        let upsert = format!(
            "INSERT INTO lease (name, holder, expires, opening) VALUES ($1, $2, {now} + $3, $4) \
             ON CONFLICT (name) DO UPDATE SET holder = excluded.holder, expires = excluded.expires, opening = excluded.opening \
             WHERE lease.holder = excluded.holder OR lease.expires < {now} {left_behind}"
        );
        let micros = i64::try_from(self.duration.as_micros()).unwrap_or(i64::MAX / 2);
        let taken = store::execute!(tx, upsert, self.name.as_str(), self.holder, micros, self.db.opening());
        let taken = taken.await? == 1;
        tx.commit().await?;
        Ok(taken)
    }

    /// For how long it is held still, by whomever, unless that one renews it or gives it back.
    pub async fn left(&self) -> store::Result<Duration> {
        let mut conn = self.db.read().await?;
        let select = format!("SELECT expires - {} FROM lease WHERE name = $1", conn.dialect().now_micros());
        let left = store::fetch_optional!(conn, (i64,), select, self.name.as_str()).await?;
        Ok(left.map_or(Duration::ZERO, |(micros,)| Duration::from_micros(u64::try_from(micros).unwrap_or_default())))
    }

    /// Gives the lease back, so that the next holder need not wait for its end.
    pub async fn release(&self) -> store::Result<()> {
        let mut tx = self.db.begin().await?;
        store::execute!(tx, "DELETE FROM lease WHERE name = $1 AND holder = $2", self.name.as_str(), self.holder)
            .await?;
        tx.commit().await
    }

    /// How long it is held without being renewed.
    pub fn duration(&self) -> Duration {
        self.duration
    }
}
