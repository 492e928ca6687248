use futures_util::future::try_join_all;
use store::testing::{Backend, database};
use store::{Db, Error, MIGRATIONS, Migrations, Settings};

use crate::post::{self, Post};

static NEWER: Migrations =
    store::migrations!("posts", postgres = "tests/newer/postgres", sqlite = "tests/newer/sqlite");
/// Its second migration fails in the middle.
static BROKEN: Migrations =
    store::migrations!("broken", postgres = "tests/broken/postgres", sqlite = "tests/broken/sqlite");

store::on_both! {
    migrations: &[];

    async fn sets_do_not_clash_and_run_once(db: Db) {
        for _ in 0..2 {
            db.migrate(&[&MIGRATIONS, &post::MIGRATIONS]).await.unwrap();
        }
        let mut tx = db.begin().await.unwrap();
        post::insert(&mut tx, &Post::new("a")).await.unwrap();
        tx.commit().await.unwrap();
        let mut conn = db.read().await.unwrap();
        assert_eq!(store::fetch_scalar!(conn, i64, "SELECT COUNT(*) FROM request").await.unwrap(), 0);
    }

    async fn an_old_binary_runs_on_a_newer_schema(db: Db) {
        db.migrate(&[&NEWER]).await.unwrap();
        db.migrate(&[&post::MIGRATIONS]).await.unwrap();
        let mut tx = db.begin().await.unwrap();
        post::insert(&mut tx, &Post::new("a")).await.unwrap();
        tx.commit().await.unwrap();
        let mut conn = db.read().await.unwrap();
        let with_language = store::fetch_scalar!(conn, i64, "SELECT COUNT(*) FROM posts WHERE language IS NULL");
        assert_eq!(with_language.await.unwrap(), 1);
    }

    async fn a_migration_that_fails_leaves_nothing_half_done_and_no_lock(db: Db) {
        for _ in 0..2 {
            let error = db.migrate(&[&BROKEN]).await.unwrap_err();
            assert!(matches!(error, Error::Migration { set: "broken", .. }), "{error:?}");
        }
        let mut conn = db.read().await.unwrap();
        store::fetch_scalar!(conn, i64, "SELECT COUNT(*) FROM whole").await.expect("the first migration is there");
        store::fetch_scalar!(conn, i64, "SELECT COUNT(*) FROM half").await.expect_err("nothing of the second is");
        drop(conn);
        db.migrate(&[&post::MIGRATIONS]).await.expect("other sets still run");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_that_start_together_migrate_once() {
    let first = database(Backend::Postgres, &[]).await;
    let replicas = try_join_all((0..4).map(|_| Db::open(Settings::new(first.url())))).await.unwrap();
    try_join_all(replicas.iter().map(async |db| db.migrate(&[&MIGRATIONS, &NEWER]).await)).await.unwrap();
    assert!(post::all(&mut first.read().await.unwrap()).await.is_empty());
    for db in replicas {
        db.close().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_is_killed_while_it_migrates_holds_up_nobody() {
    let db = database(Backend::Postgres, &[]).await;
    let replica = Db::open(Settings::new(db.url())).await.unwrap();
    let killed = tokio::spawn(async move { replica.migrate(&[&NEWER]).await });
    tokio::task::yield_now().await;
    killed.abort();
    let _killed = killed.await;
    db.migrate(&[&NEWER]).await.unwrap();
    assert!(post::all(&mut db.read().await.unwrap()).await.is_empty());
}
