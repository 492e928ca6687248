//! The macros that run one query text on either database, and what they expand to.

use std::future::Future;

use futures_util::future::BoxFuture;
use sqlx::{PgConnection, SqlStr, SqliteConnection};
use tokio::time::Instant;
use tracing::{Instrument, Span};

use crate::{Error, Result, span};

/// A connection for one statement, and its text.
pub enum Link<'c> {
    /// To PostgreSQL.
    Postgres(&'c mut PgConnection, Guard<'c>, SqlStr),
    /// To SQLite.
    Sqlite(&'c mut SqliteConnection, Guard<'c>, SqlStr),
}

/// What holds for one statement: its span, until when it may run, and the mark of its transaction.
pub struct Guard<'c> {
    pub(crate) span: Span,
    pub(crate) deadline: Option<Instant>,
    pub(crate) failed: Option<&'c mut bool>,
}

impl<'c> Guard<'c> {
    /// Runs the statement. A transaction whose statement fails, or is given up in the middle, cannot be committed: PostgreSQL
    /// would roll it back and say nothing, SQLite would commit the rest.
    ///
    /// The future is boxed: those of the driver have kilobytes, and a handler holds several.
    pub fn run<T: Send + 'c>(
        self,
        statement: impl Future<Output = sqlx::Result<T>> + Send + 'c,
    ) -> BoxFuture<'c, Result<T>> {
        let Self { span, deadline, failed } = self;
        let entered = span.clone();
        let running = async move {
            let mut unmarked = false;
            let failed = failed.unwrap_or(&mut unmarked);
            let before = std::mem::replace(failed, true);
            let outcome = match deadline {
                Some(deadline) => tokio::time::timeout_at(deadline, statement).await.map_err(|_| Error::Deadline),
                None => Ok(statement.await),
            };
            if matches!(outcome, Ok(Ok(_) | Err(sqlx::Error::RowNotFound))) {
                *failed = before;
            }
            let outcome = outcome.and_then(|outcome| outcome.map_err(Error::from));
            span::end(&span, &outcome);
            outcome
        };
        Box::pin(running.instrument(entered))
    }
}

/// Text of SQL: a literal, or a `String` put together from literals. Never put a value into it: bind it.
pub trait Text {
    /// The text, as the driver takes it.
    fn text(self) -> sqlx::SqlStr;
}

impl Text for &'static str {
    fn text(self) -> sqlx::SqlStr {
        sqlx::SqlSafeStr::into_sql_str(self)
    }
}

impl Text for String {
    fn text(self) -> sqlx::SqlStr {
        sqlx::SqlSafeStr::into_sql_str(sqlx::AssertSqlSafe(self))
    }
}

/// Expands a statement for both databases. The binds stand in two arms of one `match`: they are evaluated once.
#[doc(hidden)]
#[macro_export]
macro_rules! statement {
    ($conn:expr, $start:ident::<$($row:ty)?>, $run:ident, $sql:expr $(, $bind:expr)*) => {
        match $conn.link($crate::query::Text::text($sql)) {
            $crate::query::Link::Postgres(connection, guard, text) => guard.run(
                $crate::sqlx::$start::<$crate::sqlx::Postgres, $($row)?>(text)
                    $(.bind($bind))*
                    .$run(connection),
            ),
            $crate::query::Link::Sqlite(connection, guard, text) => guard.run(
                $crate::sqlx::$start::<$crate::sqlx::Sqlite, $($row)?>(text)
                    $(.bind($bind))*
                    .$run(connection),
            ),
        }
    };
}

/// `fetch_one!(conn, Row, "SELECT …", binds…).await? -> Row`: the first row, or [`Error::NotFound`](crate::Error::NotFound).
#[macro_export]
macro_rules! fetch_one {
    ($conn:expr, $row:ty, $sql:expr $(, $bind:expr)* $(,)?) => {
        $crate::statement!($conn, query_as::<$row>, fetch_one, $sql $(, $bind)*)
    };
}

/// `fetch_optional!(conn, Row, "SELECT …", binds…).await? -> Option<Row>`: the first row, if there is one.
#[macro_export]
macro_rules! fetch_optional {
    ($conn:expr, $row:ty, $sql:expr $(, $bind:expr)* $(,)?) => {
        $crate::statement!($conn, query_as::<$row>, fetch_optional, $sql $(, $bind)*)
    };
}

/// `fetch_all!(conn, Row, "SELECT … LIMIT …", binds…).await? -> Vec<Row>`. Limit it: all of it is held in memory.
#[macro_export]
macro_rules! fetch_all {
    ($conn:expr, $row:ty, $sql:expr $(, $bind:expr)* $(,)?) => {
        $crate::statement!($conn, query_as::<$row>, fetch_all, $sql $(, $bind)*)
    };
}

/// `fetch_scalar!(conn, i64, "SELECT COUNT(*) …", binds…).await? -> i64`: the first column of the first row, or
/// [`Error::NotFound`](crate::Error::NotFound).
#[macro_export]
macro_rules! fetch_scalar {
    ($conn:expr, $value:ty, $sql:expr $(, $bind:expr)* $(,)?) => {
        $crate::statement!($conn, query_scalar::<$value>, fetch_one, $sql $(, $bind)*)
    };
}

/// `execute!(conn, "UPDATE …", binds…).await? -> u64`: the number of rows that it touched.
#[macro_export]
macro_rules! execute {
    ($conn:expr, $sql:expr $(, $bind:expr)* $(,)?) => {
        match $conn.link($crate::query::Text::text($sql)) {
            $crate::query::Link::Postgres(connection, guard, text) => guard.run(
                $crate::query::postgres_rows(
                    $crate::sqlx::query::<$crate::sqlx::Postgres>(text)
                        $(.bind($bind))*
                        .execute(connection),
                ),
            ),
            $crate::query::Link::Sqlite(connection, guard, text) => guard.run(
                $crate::query::sqlite_rows(
                    $crate::sqlx::query::<$crate::sqlx::Sqlite>(text)
                        $(.bind($bind))*
                        .execute(connection),
                ),
            ),
        }
    };
}

/// `insert_all!(conn, "INSERT INTO t (a, b)", rows, |row| (row.a, row.b), "ON CONFLICT DO NOTHING").await? -> u64`: inserts many
/// rows in as few statements as the databases allow; none for no rows.
#[macro_export]
macro_rules! insert_all {
    ($conn:expr, $insert:expr, $rows:expr, |$row:pat_param| ($($bind:expr),+ $(,)?), $suffix:expr $(,)?) => {
        async {
            let mut touched = 0_u64;
            let mut rows = $rows.into_iter().peekable();
            while rows.peek().is_some() {
                let batch = rows.by_ref().take($crate::query::BATCH);
                // The span has the statement without its rows.
                touched += match $conn.link($crate::query::Text::text($insert)) {
                    $crate::query::Link::Postgres(connection, guard, _) => {
                        let mut statement = $crate::sqlx::QueryBuilder::<$crate::sqlx::Postgres>::new(concat!($insert, " "));
                        statement.push_values(batch, |mut values, $row| {
                            $(values.push_bind($bind);)+
                        });
                        statement.push(concat!(" ", $suffix));
                        guard.run($crate::query::postgres_rows(statement.build().execute(connection))).await?
                    }
                    $crate::query::Link::Sqlite(connection, guard, _) => {
                        let mut statement = $crate::sqlx::QueryBuilder::<$crate::sqlx::Sqlite>::new(concat!($insert, " "));
                        statement.push_values(batch, |mut values, $row| {
                            $(values.push_bind($bind);)+
                        });
                        statement.push(concat!(" ", $suffix));
                        guard.run($crate::query::sqlite_rows(statement.build().execute(connection))).await?
                    }
                };
            }
            $crate::Result::<u64, $crate::Error>::Ok(touched)
        }
    };
}

/// Rows in one statement of [`insert_all!`]: SQLite takes 32,766 values in one, so up to 65 columns fit.
pub const BATCH: usize = 500;

/// How many rows a statement touched on PostgreSQL.
pub async fn postgres_rows(
    done: impl Future<Output = sqlx::Result<sqlx::postgres::PgQueryResult>>,
) -> sqlx::Result<u64> {
    Ok(done.await?.rows_affected())
}

/// How many rows a statement touched on SQLite.
pub async fn sqlite_rows(
    done: impl Future<Output = sqlx::Result<sqlx::sqlite::SqliteQueryResult>>,
) -> sqlx::Result<u64> {
    Ok(done.await?.rows_affected())
}
