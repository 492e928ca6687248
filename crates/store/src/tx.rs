//! Write transactions.

use std::fmt;
use std::sync::Arc;

use sqlx::{Postgres, SqlStr, Sqlite, Transaction};
use tokio::sync::Notify;
use tokio::time::Instant;
use tracing::Instrument;

use crate::pool::Interrupt;
use crate::query::{Guard, Link};
use crate::{Dialect, Error, Result, span};

/// A write transaction. Dropped without [`Tx::commit`], it is rolled back. Make no network call while one is open: on SQLite it is
/// the only one.
pub struct Tx {
    pub(crate) inner: Inner,
    pub(crate) deadline: Option<Instant>,
    pub(crate) failed: bool,
    pub(crate) after_commit: Vec<Box<dyn FnOnce() + Send>>,
    pub(crate) bell: Arc<Notify>,
    pub(crate) database: Arc<str>,
}

pub(crate) enum Inner {
    Postgres(Transaction<'static, Postgres>),
    // The interrupt comes first: a statement that still runs is stopped before the transaction is rolled back.
    Sqlite { _interrupt: Interrupt, transaction: Transaction<'static, Sqlite> },
}

impl Tx {
    /// Makes the changes durable, then runs what [`Tx::after_commit`] was given. [`Error::Aborted`] if a statement had failed.
    pub async fn commit(self) -> Result<()> {
        if self.failed {
            return Err(Error::Aborted);
        }
        let span = span::statement(self.dialect(), &self.database, "COMMIT");
        let committing = async {
            match self.inner {
                Inner::Postgres(transaction) => transaction.commit().await,
                Inner::Sqlite { transaction, _interrupt } => transaction.commit().await,
            }
        };
        let committed = committing.instrument(span.clone()).await.map_err(Error::from);
        span::end(&span, &committed);
        committed?;
        self.after_commit.into_iter().for_each(|hook| hook());
        Ok(())
    }

    /// Runs `hook` once the transaction has been committed; never, if it is rolled back. A process that dies between the two does
    /// not run it, so it may only hasten what happens anyway.
    pub fn after_commit(&mut self, hook: impl FnOnce() + Send + 'static) {
        self.after_commit.push(Box::new(hook));
    }

    /// The bell of the database ([`Db::bell`](crate::Db::bell)), to be rung after the commit.
    pub fn bell(&self) -> &Arc<Notify> {
        &self.bell
    }

    /// Which database this is.
    pub fn dialect(&self) -> Dialect {
        match self.inner {
            Inner::Postgres(_) => Dialect::Postgres,
            Inner::Sqlite { .. } => Dialect::Sqlite,
        }
    }

    #[doc(hidden)]
    pub fn link(&mut self, text: SqlStr) -> Link<'_> {
        let span = span::statement(self.dialect(), &self.database, text.as_str());
        let guard = Guard { span, deadline: self.deadline, failed: Some(&mut self.failed) };
        match &mut self.inner {
            Inner::Postgres(transaction) => Link::Postgres(&mut *transaction, guard, text),
            Inner::Sqlite { transaction, .. } => Link::Sqlite(&mut *transaction, guard, text),
        }
    }
}

impl fmt::Debug for Tx {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tx").field("dialect", &self.dialect()).field("failed", &self.failed).finish_non_exhaustive()
    }
}
