//! The one place that knows that there are two databases.

use std::fmt;
use std::fs::{File, TryLockError};
use std::path::Path;
use std::str::FromStr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ids::Source;
use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{Connection, Pool, Postgres, SqlStr, Sqlite, SqliteConnection, Transaction};
use tokio::sync::Notify;
use tokio::time::Instant;
use tracing::Instrument;
use uuid::Uuid;

use crate::query::{Guard, Link};
use crate::tx::{self, Tx};
use crate::{Dialect, Error, Result, span};

/// No statement runs longer than this, unless the call that it belongs to has a later deadline. A connection to PostgreSQL is
/// opened with it, so that a call with the usual deadline costs no `SET`.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(15);
/// SQLite asks whether to go on each time it has run so many instructions of its virtual machine (some tens of microseconds).
const INSTRUCTIONS_PER_CHECK: i32 = 1000;
/// A connection to PostgreSQL that was idle for longer is tried before it is used.
const TRUSTED_IDLE: Duration = Duration::from_secs(5);

/// Where the database is and how it is used.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `postgres://user:password@host/name?sslmode=verify-full`, or `sqlite:<path>`. A file is made if there is none; its directory is
    /// not.
    pub url: String,
    /// Connections to PostgreSQL, or connections that read from SQLite (one more writes).
    pub max_connections: u32,
    /// How long to wait for one of them; then the call is answered UNAVAILABLE.
    pub acquire_timeout: Duration,
    /// What is left of the time of the call that is being served, if it has a limit.
    pub deadline: fn() -> Option<Duration>,
}

impl Settings {
    /// Ten connections, five seconds of waiting, no deadlines.
    pub fn new(url: impl Into<String>) -> Self {
        Self { url: url.into(), max_connections: 10, acquire_timeout: Duration::from_secs(5), deadline: || None }
    }
}

/// The database of one service. Clones share its connections.
#[derive(Clone)]
pub struct Db {
    pools: Pools,
    settings: Arc<Settings>,
    /// The database's name in metrics and traces.
    name: Arc<str>,
    bell: Arc<Notify>,
    opening: Uuid,
}

#[derive(Clone)]
enum Pools {
    Postgres(PgPool),
    Sqlite { read: SqlitePool, write: SqlitePool, lock: Arc<Mutex<Option<File>>> },
}

impl Db {
    /// Opens the database that `settings` name. It is not migrated yet: [`Db::migrate`].
    pub async fn open(settings: Settings) -> Result<Self> {
        let (name, pools) = if settings.url.starts_with("sqlite:") {
            open_sqlite(&settings).await?
        } else if settings.url.starts_with("postgres:") || settings.url.starts_with("postgresql:") {
            open_postgres(&settings)?
        } else {
            return Err(Error::Open { reason: "its URL starts with neither \"postgres:\" nor \"sqlite:\"".into() });
        };
        Ok(Self {
            pools,
            settings: Arc::new(settings),
            name: name.into(),
            bell: Arc::default(),
            opening: Uuid::from_bytes(Source::system().bytes()),
        })
    }

    /// A connection to read from. On SQLite it cannot write, and each statement sees one state of the database.
    pub async fn read(&self) -> Result<Conn> {
        // Boxed, as `begin` is: the futures of the driver have kilobytes, and a handler holds several.
        Box::pin(self.start_reading()).await
    }

    async fn start_reading(&self) -> Result<Conn> {
        let limit = self.limit();
        let deadline = limit.deadline;
        let inner = match &self.pools {
            Pools::Postgres(pool) => match limit.statement_timeout() {
                Some(timeout) => {
                    let begin = format!("BEGIN READ ONLY; SET LOCAL statement_timeout = {}", timeout.as_millis());
                    Inner::PostgresUntil(self.acquired(limit, pool.begin_with(sqlx::AssertSqlSafe(begin))).await?)
                }
                None => Inner::Postgres(self.acquired(limit, pool.acquire()).await?),
            },
            Pools::Sqlite { read, .. } => {
                let mut connection = self.acquired(limit, read.acquire()).await?;
                let interrupt = Interrupt::install(&mut connection, deadline).await?;
                Inner::Sqlite { _interrupt: interrupt, connection }
            }
        };
        Ok(Conn { inner, deadline, database: Arc::clone(&self.name) })
    }

    /// Starts a write transaction. Its span, `BEGIN`, has the wait for a connection in it.
    pub async fn begin(&self) -> Result<Tx> {
        let span = span::statement(self.dialect(), &self.name, "BEGIN");
        let started = Box::pin(self.start_writing().instrument(span.clone())).await;
        span::end(&span, &started);
        started
    }

    async fn start_writing(&self) -> Result<Tx> {
        let limit = self.limit();
        let deadline = limit.deadline;
        let inner = match &self.pools {
            Pools::Postgres(pool) => {
                let begin = match limit.statement_timeout() {
                    Some(timeout) => format!("BEGIN; SET LOCAL statement_timeout = {}", timeout.as_millis()),
                    None => "BEGIN".to_owned(),
                };
                tx::Inner::Postgres(self.acquired(limit, pool.begin_with(sqlx::AssertSqlSafe(begin))).await?)
            }
            Pools::Sqlite { write, .. } => {
                let mut connection = self.acquired(limit, write.acquire()).await?;
                let interrupt = Interrupt::install(&mut connection, deadline).await?;
                let transaction =
                    Transaction::begin(connection, Some(sqlx::SqlSafeStr::into_sql_str("BEGIN IMMEDIATE")));
                tx::Inner::Sqlite { _interrupt: interrupt, transaction: transaction.await? }
            }
        };
        Ok(Tx {
            inner,
            deadline,
            failed: false,
            after_commit: Vec::new(),
            bell: Arc::clone(&self.bell),
            database: Arc::clone(&self.name),
        })
    }

    /// Closes every connection, once those in use have come back, and lets go of the SQLite file.
    pub async fn close(&self) {
        match &self.pools {
            Pools::Postgres(pool) => pool.close().await,
            Pools::Sqlite { read, write, lock } => {
                read.close().await;
                write.close().await;
                lock.lock().unwrap_or_else(PoisonError::into_inner).take();
            }
        }
    }

    /// Which database this is.
    pub fn dialect(&self) -> Dialect {
        match self.pools {
            Pools::Postgres(_) => Dialect::Postgres,
            Pools::Sqlite { .. } => Dialect::Sqlite,
        }
    }

    /// A bell that transactions of this process ring after they have committed something that a task of this process waits for
    /// (the relay of events). Whoever waits also looks by itself now and then: another process does not ring it.
    pub fn bell(&self) -> &Arc<Notify> {
        &self.bell
    }

    /// What tells this opening of the database from others, in this process or elsewhere.
    pub fn opening(&self) -> Uuid {
        self.opening
    }

    /// Whether the database answers.
    pub async fn ping(&self) -> Result<()> {
        let mut conn = self.read().await?;
        crate::fetch_scalar!(conn, i64, "SELECT CAST(1 AS BIGINT)").await?;
        Ok(())
    }

    /// A connection to PostgreSQL for migrations alone, without the limit on statements.
    pub(crate) async fn lone_postgres(&self) -> Result<Option<sqlx::PgConnection>> {
        match &self.pools {
            Pools::Postgres(_) => {
                let options = PgConnectOptions::from_str(&self.settings.url).map_err(|error| unreadable(&error))?;
                Ok(Some(sqlx::PgConnection::connect_with(&options).await?))
            }
            Pools::Sqlite { .. } => Ok(None),
        }
    }

    /// The connection that writes to SQLite.
    pub(crate) async fn lone_sqlite(&self) -> Result<Option<PoolConnection<Sqlite>>> {
        match &self.pools {
            Pools::Postgres(_) => Ok(None),
            Pools::Sqlite { write, .. } => Ok(Some(write.acquire().await?)),
        }
    }

    fn limit(&self) -> Limit {
        let now = Instant::now();
        let remaining = (self.settings.deadline)();
        Limit { remaining, deadline: remaining.map(|remaining| now + remaining) }
    }

    /// Waits for a connection, but not beyond the call's deadline, and measures the wait.
    async fn acquired<T>(&self, limit: Limit, connection: impl Future<Output = sqlx::Result<T>>) -> Result<T> {
        let start = Instant::now();
        let outcome = match limit.deadline {
            Some(deadline) => {
                tokio::time::timeout_at(deadline, connection).await.unwrap_or(Err(sqlx::Error::PoolTimedOut))
            }
            None => connection.await,
        };
        metrics::histogram!("guildhall_db_pool_wait_seconds", "database" => self.name.to_string())
            .record(start.elapsed().as_secs_f64());
        self.count();
        match outcome {
            Err(sqlx::Error::PoolTimedOut) if limit.deadline.is_some_and(|deadline| deadline <= Instant::now()) => {
                Err(Error::Deadline)
            }
            outcome => Ok(outcome?),
        }
    }

    fn count(&self) {
        match &self.pools {
            Pools::Postgres(pool) => gauge(&self.name, "all", pool),
            Pools::Sqlite { read, write, .. } => {
                gauge(&self.name, "read", read);
                gauge(&self.name, "write", write);
            }
        }
    }
}

fn gauge<D: sqlx::Database>(database: &Arc<str>, pool: &'static str, connections: &Pool<D>) {
    let labels = [("database", database.to_string()), ("pool", pool.to_owned())];
    metrics::gauge!("guildhall_db_pool_connections", &labels).set(f64::from(connections.size()));
    #[expect(clippy::cast_precision_loss, reason = "a pool has fewer than 2^52 connections")]
    metrics::gauge!("guildhall_db_pool_idle_connections", &labels).set(connections.num_idle() as f64);
}

impl fmt::Debug for Db {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Db").field("name", &self.name).field("dialect", &self.dialect()).finish_non_exhaustive()
    }
}

#[derive(Clone, Copy)]
struct Limit {
    remaining: Option<Duration>,
    deadline: Option<Instant>,
}

impl Limit {
    /// The time for one statement, where it is not the usual one. It is rounded up to a whole second above one, so that the usual
    /// deadline, a little of which has passed already, needs no `SET`; the caller itself waits until the exact moment.
    fn statement_timeout(self) -> Option<Duration> {
        let remaining = self.remaining?;
        let rounded = if remaining < Duration::from_secs(1) {
            remaining.max(Duration::from_millis(1))
        } else {
            Duration::from_secs(remaining.as_secs() + u64::from(remaining.subsec_nanos() > 0))
        };
        (rounded != STATEMENT_TIMEOUT).then_some(rounded)
    }
}

/// A connection to read from, given back when dropped.
pub struct Conn {
    inner: Inner,
    deadline: Option<Instant>,
    database: Arc<str>,
}

enum Inner {
    Postgres(PoolConnection<Postgres>),
    PostgresUntil(Transaction<'static, Postgres>),
    // The interrupt comes first: a statement that still runs is stopped before the connection is given back.
    Sqlite { _interrupt: Interrupt, connection: PoolConnection<Sqlite> },
}

impl Conn {
    /// Which database this is.
    pub fn dialect(&self) -> Dialect {
        match self.inner {
            Inner::Postgres(_) | Inner::PostgresUntil(_) => Dialect::Postgres,
            Inner::Sqlite { .. } => Dialect::Sqlite,
        }
    }

    #[doc(hidden)]
    pub fn link(&mut self, text: SqlStr) -> Link<'_> {
        let span = span::statement(self.dialect(), &self.database, text.as_str());
        let guard = Guard { span, deadline: self.deadline, failed: None };
        match &mut self.inner {
            Inner::Postgres(connection) => Link::Postgres(&mut *connection, guard, text),
            Inner::PostgresUntil(transaction) => Link::Postgres(&mut *transaction, guard, text),
            Inner::Sqlite { connection, .. } => Link::Sqlite(&mut *connection, guard, text),
        }
    }
}

impl fmt::Debug for Conn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Conn").field("dialect", &self.dialect()).finish_non_exhaustive()
    }
}

/// Stops the statement that runs on a SQLite connection at its deadline, or when its caller has gone away.
pub(crate) struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    async fn install(connection: &mut SqliteConnection, deadline: Option<Instant>) -> Result<Self> {
        let gone = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&gone);
        connection.lock_handle().await?.set_progress_handler(INSTRUCTIONS_PER_CHECK, move || {
            !seen.load(Ordering::Relaxed) && deadline.is_none_or(|deadline| Instant::now() < deadline)
        });
        Ok(Self(gone))
    }
}

impl Drop for Interrupt {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn open_postgres(settings: &Settings) -> Result<(String, Pools)> {
    let mut options = PgConnectOptions::from_str(&settings.url).map_err(|error| unreadable(&error))?.options([
        ("statement_timeout", format!("{}ms", STATEMENT_TIMEOUT.as_millis())),
        ("idle_in_transaction_session_timeout", "60s".to_owned()),
    ]);
    if options.get_application_name().is_none() {
        options = options.application_name("guildhall");
    }
    let name = options.get_database().unwrap_or("postgres").to_owned();
    let pool = PgPoolOptions::new()
        .max_connections(settings.max_connections)
        .acquire_timeout(settings.acquire_timeout)
        .test_before_acquire(false)
        .before_acquire(|connection, meta| {
            Box::pin(async move {
                if meta.idle_for > TRUSTED_IDLE {
                    connection.ping().await?;
                }
                Ok(true)
            })
        })
        .connect_lazy_with(options);
    Ok((name, Pools::Postgres(pool)))
}

async fn open_sqlite(settings: &Settings) -> Result<(String, Pools)> {
    let options = SqliteConnectOptions::from_str(&settings.url)
        .map_err(|error| unreadable(&error))?
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .foreign_keys(true)
        .busy_timeout(settings.acquire_timeout)
        .thread_name(|number| format!("sqlite-{number}"));
    let path = options.get_filename().to_owned();
    let lock = lock(&path)?;
    let write = SqlitePoolOptions::new()
        .min_connections(1)
        .max_connections(1)
        .idle_timeout(None)
        .max_lifetime(None)
        .acquire_timeout(settings.acquire_timeout)
        .test_before_acquire(false)
        // A statement that was stopped has rolled its transaction back already, which the driver does not notice.
        .before_acquire(|connection, _| Box::pin(async move { Ok(!connection.is_in_transaction()) }))
        .connect_with(options.clone())
        .await?;
    let read = SqlitePoolOptions::new()
        .max_connections(settings.max_connections)
        .idle_timeout(None)
        .max_lifetime(None)
        .acquire_timeout(settings.acquire_timeout)
        .test_before_acquire(false)
        .connect_lazy_with(options.pragma("query_only", "ON"));
    let name = path.file_stem().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    Ok((name, Pools::Sqlite { read, write, lock: Arc::new(Mutex::new(Some(lock))) }))
}

/// Takes the lock beside the database's file; the system gives it back when the process ends, however it ends.
fn lock(database: &Path) -> Result<File> {
    let path = database.display().to_string();
    let file = File::create(format!("{path}.lock"))
        .map_err(|error| Error::Open { reason: format!("its lock file {path}.lock cannot be made: {error}") })?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(Error::InUse { path }),
        Err(TryLockError::Error(error)) => {
            Err(Error::Open { reason: format!("{path}.lock cannot be locked: {error}") })
        }
    }
}

fn unreadable(error: &sqlx::Error) -> Error {
    Error::Open { reason: format!("its URL cannot be read: {error}") }
}
