use std::time::{Duration, Instant};

use status::{Problem, Reason};
use store::testing::{Backend, TestDb, database};
use store::{Db, Error, Settings};

use crate::post::{self, MIGRATIONS, Post};

/// Counts far enough to take minutes.
const ENDLESS: &str = "WITH RECURSIVE n (i) AS (SELECT CAST(1 AS BIGINT) UNION ALL SELECT i + 1 FROM n WHERE i < 100000000000) SELECT COUNT(*) FROM n";

#[expect(clippy::unnecessary_wraps, reason = "some calls have no deadline")]
fn soon() -> Option<Duration> {
    Some(Duration::from_millis(300))
}

/// The same database, opened with other settings.
async fn reopened(db: &TestDb, settings: impl FnOnce(Settings) -> Settings) -> Db {
    db.close().await;
    Db::open(settings(Settings::new(db.url()))).await.unwrap()
}

async fn a_statement_is_stopped_at_the_deadline(backend: Backend) {
    let db = database(backend, &[&MIGRATIONS]).await;
    let db = reopened(&db, |settings| Settings { deadline: soon, max_connections: 1, ..settings }).await;
    for _ in 0..2 {
        let start = Instant::now();
        let mut conn = db.read().await.unwrap();
        let outcome = store::fetch_scalar!(conn, i64, ENDLESS).await;
        assert!(matches!(outcome, Err(Error::Deadline)), "{outcome:?}");
        drop(conn);
        let mut tx = db.begin().await.expect("the connection is free again: the query has ended");
        post::insert(&mut tx, &Post::new("half")).await.unwrap();
        let outcome = store::fetch_scalar!(tx, i64, ENDLESS).await;
        assert!(matches!(outcome, Err(Error::Deadline)), "{outcome:?}");
        assert!(matches!(tx.commit().await, Err(Error::Aborted)));
        assert!(start.elapsed() < Duration::from_secs(10));
    }
    let mut tx = db.begin().await.unwrap();
    post::insert(&mut tx, &Post::new("whole")).await.unwrap();
    tx.commit().await.unwrap();
    let posts = post::all(&mut db.read().await.unwrap()).await;
    assert_eq!(posts.len(), 1);
    assert_eq!(posts[0].slug, "whole");
    db.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_statement_is_stopped_at_the_deadline_on_sqlite() {
    a_statement_is_stopped_at_the_deadline(Backend::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_statement_is_stopped_at_the_deadline_on_postgres() {
    a_statement_is_stopped_at_the_deadline(Backend::Postgres).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_query_whose_caller_went_away_does_not_hold_the_writer_of_sqlite() {
    let db = database(Backend::Sqlite, &[&MIGRATIONS]).await;
    let mut tx = db.begin().await.unwrap();
    post::insert(&mut tx, &Post::new("gone")).await.unwrap();
    let endless = async { store::fetch_scalar!(tx, i64, ENDLESS).await };
    assert!(tokio::time::timeout(Duration::from_millis(100), endless).await.is_err());
    drop(tx);
    let mut tx = tokio::time::timeout(Duration::from_secs(5), db.begin()).await.expect("the writer is free").unwrap();
    post::insert(&mut tx, &Post::new("next")).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(post::all(&mut db.read().await.unwrap()).await.len(), 1);
}

async fn a_full_pool_is_unavailable(backend: Backend) {
    let db = database(backend, &[&MIGRATIONS]).await;
    let acquire_timeout = Duration::from_millis(100);
    let db = reopened(&db, |settings| Settings { acquire_timeout, max_connections: 1, ..settings }).await;
    let held = db.begin().await.unwrap();
    let error = db.begin().await.unwrap_err();
    assert!(matches!(error, Error::Unavailable(_)), "{error:?}");
    let problem = Problem::from(error);
    assert_eq!(problem.reason(), Reason::Unavailable);
    drop(held);
    db.begin().await.expect("a transaction that was dropped gives its connection back");
    db.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_pool_is_unavailable_on_sqlite() {
    a_full_pool_is_unavailable(Backend::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_pool_is_unavailable_on_postgres() {
    a_full_pool_is_unavailable(Backend::Postgres).await;
}

#[tokio::test]
async fn a_deadline_that_passes_while_waiting_for_a_connection_is_a_deadline() {
    let db = database(Backend::Sqlite, &[&MIGRATIONS]).await;
    let db = reopened(&db, |settings| Settings { deadline: soon, ..settings }).await;
    let held = db.begin().await.unwrap();
    let error = db.begin().await.unwrap_err();
    assert!(matches!(error, Error::Deadline), "{error:?}");
    drop(held);
    db.close().await;
}

#[tokio::test]
async fn a_sqlite_file_has_one_user_at_a_time() {
    let db = database(Backend::Sqlite, &[]).await;
    let second = Db::open(Settings::new(db.url())).await.unwrap_err();
    assert!(matches!(second, Error::InUse { .. }), "{second:?}");
    assert!(second.to_string().contains("test.db is in use by another process"), "{second}");
    db.close().await;
    Db::open(Settings::new(db.url())).await.expect("it is free after the first user has closed it").close().await;
}

#[tokio::test]
async fn a_reader_of_sqlite_cannot_write() {
    let db = database(Backend::Sqlite, &[&MIGRATIONS]).await;
    let mut conn = db.read().await.unwrap();
    assert!(store::execute!(conn, "DELETE FROM posts").await.is_err());
}

#[tokio::test]
async fn sqlite_is_durable_and_checks_foreign_keys() {
    let db = database(Backend::Sqlite, &[]).await;
    let mut tx = db.begin().await.unwrap();
    for (pragma, expected) in [("PRAGMA synchronous", 2), ("PRAGMA foreign_keys", 1)] {
        assert_eq!(store::fetch_scalar!(tx, i64, pragma).await.unwrap(), expected, "{pragma}");
    }
    assert_eq!(store::fetch_scalar!(tx, String, "PRAGMA journal_mode").await.unwrap(), "wal");
}

#[tokio::test]
async fn a_url_that_names_no_database_is_refused_without_its_password() {
    for url in ["mysql://root:hunter2@localhost/x", "postgres://root:hunter2@[bad/x", ""] {
        let error = Db::open(Settings::new(url)).await.unwrap_err();
        assert!(matches!(error, Error::Open { .. }), "{error:?}");
        assert!(!format!("{error} {error:?}").contains("hunter2"), "{error:?}");
    }
}

#[tokio::test]
async fn a_database_that_cannot_be_reached_is_unavailable() {
    let settings =
        Settings { acquire_timeout: Duration::from_millis(500), ..Settings::new("postgres://nobody@127.0.0.1:1/none") };
    let db = Db::open(settings).await.unwrap();
    let error = db.ping().await.unwrap_err();
    assert!(matches!(error, Error::Unavailable(_)), "{error:?}");
}

/// What a handler of tonic needs: its future is `Send`.
#[tokio::test]
async fn transactions_can_be_held_in_futures_that_move_between_threads() {
    async fn handler(db: Db) -> Result<i64, Error> {
        let mut tx = db.begin().await?;
        post::insert(&mut tx, &Post::new("sent")).await?;
        let posts = store::fetch_scalar!(tx, i64, "SELECT COUNT(*) FROM posts").await?;
        tx.commit().await?;
        Ok(posts)
    }
    let db = database(Backend::Sqlite, &[&MIGRATIONS]).await;
    assert_eq!(tokio::spawn(handler(db.clone())).await.unwrap().unwrap(), 1);
}
