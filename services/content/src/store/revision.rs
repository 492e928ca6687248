//! The columns `revision`, `create_time` and `update_time`, which several tables have.

use ids::Timestamp;

use crate::revision::Revision;

#[derive(sqlx::FromRow)]
pub(super) struct Row {
    revision: i64,
    create_time: Timestamp,
    update_time: Timestamp,
}

impl From<Row> for Revision {
    fn from(row: Row) -> Self {
        Self { number: row.revision, create_time: row.create_time, update_time: row.update_time }
    }
}
