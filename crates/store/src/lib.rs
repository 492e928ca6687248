//! State: one query text on PostgreSQL and on SQLite.
//!
//! Everything that differs between the two databases is in this crate: the pools ([`Db`]), the transactions ([`Tx`]), the few
//! fragments of SQL that have no common spelling ([`Dialect`]), the names of constraints ([`Error::constraint`]). A service
//! writes its SQL once, beside the row it fills:
//!
//! ```no_run
//! # use ids::{PostId, Timestamp};
//! #[derive(sqlx::FromRow)]
//! struct Row {
//!     id: PostId,
//!     title: String,
//!     publish_time: Option<Timestamp>,
//! }
//!
//! async fn rename(db: &store::Db, id: PostId, title: &str) -> Result<Row, store::Error> {
//!     let mut tx = db.begin().await?;
//!     let row = store::fetch_one!(
//!         tx,
//!         Row,
//!         "UPDATE posts SET title = $2 WHERE id = $1 RETURNING id, title, publish_time",
//!         id,
//!         title
//!     )
//!     .await?;
//!     tx.commit().await?;
//!     Ok(row)
//! }
//! ```
//!
//! # To add a query
//! Write it with `$1` placeholders and run it by one of the macros: [`fetch_one!`], [`fetch_optional!`], [`fetch_all!`],
//! [`fetch_scalar!`], [`execute!`], [`insert_all!`] for many rows. An optional filter is `($2 IS NULL OR author_id = $2)` with an
//! `Option` bound to it; a list of ids is [`Dialect::id_list`]. What differs without showing in the text: cast `SUM` and `AVG`
//! (`CAST(SUM(x) AS BIGINT)`), say `NULLS LAST` where it matters, and do not go on in a transaction in which a statement failed
//! (its commit is refused): use `ON CONFLICT`.
//!
//! # To add a migration
//! Add a file of the same name to `migrations/postgres` and to `migrations/sqlite` ([`migrations!`]). Expand first, contract in a
//! later release: the previous binary has to run on the new schema.

mod constraint;
pub mod dialect;
mod error;
pub mod migrate;
pub mod page;
mod pool;
#[doc(hidden)]
pub mod query;
pub mod request;
mod span;
#[cfg(feature = "testing")]
pub mod testing;
mod tx;

pub use constraint::OnConstraint;
pub use dialect::Dialect;
pub use error::{Error, Result};
pub use migrate::Migrations;
pub use pool::{Conn, Db, Settings};
pub use tx::Tx;

#[doc(hidden)]
pub use sqlx;

/// The tables of this crate itself: those of [`request`]. They are migrated before a service's own.
pub static MIGRATIONS: Migrations = migrations!("migrations");
