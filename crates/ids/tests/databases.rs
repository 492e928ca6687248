//! Timestamps and ids as columns. Needs `GUILDHALL_TEST_POSTGRES`, the URL of a PostgreSQL server.

use ids::{PostId, Source, Timestamp};
use sqlx::{Connection as _, PgConnection, SqliteConnection};

const MOMENTS: [Timestamp; 5] = [
    Timestamp::MIN,
    Timestamp::from_micros(-1),
    Timestamp::EPOCH,
    Timestamp::from_micros(1_780_000_000_100_000),
    Timestamp::MAX,
];

#[tokio::test]
async fn sqlite_keeps_timestamps_as_integers_and_ids_as_they_are() {
    let mut connection = SqliteConnection::connect("sqlite::memory:").await.unwrap();
    for moment in MOMENTS {
        let (read, kind): (Timestamp, String) =
            sqlx::query_as("SELECT $1, typeof($1)").bind(moment).fetch_one(&mut connection).await.unwrap();
        assert_eq!((read, kind.as_str()), (moment, "integer"));
    }
    let id: PostId = Source::system().id();
    let (read,): (PostId,) = sqlx::query_as("SELECT $1").bind(id).fetch_one(&mut connection).await.unwrap();
    assert_eq!(read, id);
}

#[tokio::test]
async fn postgres_keeps_timestamps_as_timestamptz_and_ids_as_uuid() {
    let url = std::env::var("GUILDHALL_TEST_POSTGRES")
        .expect("GUILDHALL_TEST_POSTGRES must hold the URL of a PostgreSQL server; `cargo xtask test` sets it");
    let mut connection = PgConnection::connect(&url).await.unwrap();
    for moment in MOMENTS {
        let (read, kind, micros): (Timestamp, String, i64) =
            sqlx::query_as("SELECT $1, pg_typeof($1)::text, (extract(epoch FROM $1) * 1000000)::bigint")
                .bind(moment)
                .fetch_one(&mut connection)
                .await
                .unwrap();
        assert_eq!((read, kind.as_str(), micros), (moment, "timestamp with time zone", moment.micros()));
    }
    let id: PostId = Source::system().id();
    let (read, kind): (PostId, String) =
        sqlx::query_as("SELECT $1, pg_typeof($1)::text").bind(id).fetch_one(&mut connection).await.unwrap();
    assert_eq!((read, kind.as_str()), (id, "uuid"));
}
