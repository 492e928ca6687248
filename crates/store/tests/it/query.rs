use ids::{PostId, Source, Timestamp, UserId};
use sqlx::types::Json;
use store::{Error, OnConstraint as _, dialect};

use crate::post::{self, MIGRATIONS, Post, insert};

#[derive(Debug, PartialEq)]
enum Refused {
    SlugTaken,
    Other(String),
}

impl From<Error> for Refused {
    fn from(error: Error) -> Self {
        Self::Other(error.constraint().unwrap_or("no constraint").to_owned())
    }
}

store::on_both! {
    migrations: &[&MIGRATIONS];

    async fn every_type_comes_back_as_it_was_stored(db: Db) {
        let author: UserId = Source::system().id();
        let full = Post {
            author_id: Some(author),
            views: i64::MAX,
            pinned: true,
            labels: Json(vec!["한국어".into(), "\"quoted\"".into()]),
            publish_time: Some(Timestamp::from_micros(1_600_000_000_000_001)),
            ..Post::new("full")
        };
        let empty = Post { publish_time: Some(Timestamp::from_micros(-1)), ..Post::new("empty") };
        let mut tx = db.begin().await.unwrap();
        post::insert_author(&mut tx, author).await;
        assert_eq!(insert(&mut tx, &full).await.unwrap(), 1);
        assert_eq!(insert(&mut tx, &empty).await.unwrap(), 1);
        tx.commit().await.unwrap();

        let mut conn = db.read().await.unwrap();
        assert_eq!(post::all(&mut conn).await, [empty.clone(), full.clone()]);
        let found = store::fetch_one!(conn, Post, "SELECT * FROM posts WHERE id = $1", full.id).await.unwrap();
        assert_eq!(found, full);
        let by_time = store::fetch_scalar!(conn, String, "SELECT slug FROM posts WHERE publish_time > $1", Timestamp::from_micros(0));
        assert_eq!(by_time.await.unwrap(), "full");
    }

    async fn what_is_not_there_is_none_or_not_found(db: Db) {
        let mut conn = db.read().await.unwrap();
        let id: PostId = Source::system().id();
        assert_eq!(store::fetch_optional!(conn, Post, "SELECT * FROM posts WHERE id = $1", id).await.unwrap(), None);
        let one = store::fetch_one!(conn, Post, "SELECT * FROM posts WHERE id = $1", id).await;
        assert!(matches!(one, Err(Error::NotFound)), "{one:?}");
        let mut tx = db.begin().await.unwrap();
        let one = store::fetch_one!(tx, Post, "SELECT * FROM posts WHERE id = $1", id).await;
        assert!(matches!(one, Err(Error::NotFound)), "{one:?}");
        tx.commit().await.expect("a row that is not there does not spoil the transaction");
    }

    async fn binds_are_evaluated_once(db: Db) {
        let mut evaluated = 0;
        let mut next = || {
            evaluated += 1;
            i64::from(evaluated)
        };
        let mut conn = db.read().await.unwrap();
        assert_eq!(store::fetch_scalar!(conn, i64, "SELECT CAST($1 AS BIGINT)", next()).await.unwrap(), 1);
        assert_eq!(evaluated, 1);
    }

    async fn constraints_have_one_name_on_both_databases(db: Db) {
        let author: UserId = Source::system().id();
        let first = Post { author_id: Some(author), ..Post::new("first") };
        let mut tx = db.begin().await.unwrap();
        post::insert_author(&mut tx, author).await;
        insert(&mut tx, &first).await.unwrap();
        tx.commit().await.unwrap();
        let foreign = if db.dialect() == store::Dialect::Postgres { "posts_author_id_fkey" } else { "" };
        let refused = [
            (Post { slug: "first".into(), ..Post::new("second") }, "posts_slug_key"),
            (Post { id: first.id, ..Post::new("second") }, "posts_pkey"),
            (Post { author_id: Some(author), title: "FIRST".into(), ..Post::new("second") }, "posts_author_id_title_key"),
            (Post { views: -1, ..Post::new("second") }, "posts_views_check"),
            (Post { author_id: Some(Source::system().id()), ..Post::new("second") }, foreign),
        ];
        for (post, name) in refused {
            let mut tx = db.begin().await.unwrap();
            let error = insert(&mut tx, &post).await.unwrap_err();
            assert_eq!(error.constraint(), Some(name), "{error:?}");
        }
        let mut tx = db.begin().await.unwrap();
        let null = store::execute!(tx, "UPDATE posts SET title = $1", Option::<String>::None).await.unwrap_err();
        assert_eq!(null.constraint(), Some("posts_title_not_null"));
    }

    async fn a_constraint_becomes_the_error_of_its_caller(db: Db) {
        let mut tx = db.begin().await.unwrap();
        insert(&mut tx, &Post::new("taken")).await.unwrap();
        let taken = insert(&mut tx, &Post::new("taken")).await.on_constraint("posts_slug_key", |_| Refused::SlugTaken);
        assert_eq!(taken, Err(Refused::SlugTaken));
        drop(tx);
        let mut tx = db.begin().await.unwrap();
        let other = insert(&mut tx, &Post { views: -1, ..Post::new("other") }).await.on_constraint("posts_slug_key", |_| Refused::SlugTaken);
        assert_eq!(other, Err(Refused::Other("posts_views_check".into())));
    }

    async fn a_transaction_in_which_a_statement_failed_is_not_committed(db: Db) {
        let mut tx = db.begin().await.unwrap();
        insert(&mut tx, &Post::new("a")).await.unwrap();
        insert(&mut tx, &Post::new("a")).await.unwrap_err();
        assert!(matches!(tx.commit().await, Err(Error::Aborted)));
        assert_eq!(post::all(&mut db.read().await.unwrap()).await, []);
    }

    async fn a_dropped_transaction_leaves_nothing_and_runs_no_hook(db: Db) {
        let (hook, mut ran) = tokio::sync::mpsc::unbounded_channel();
        let mut tx = db.begin().await.unwrap();
        insert(&mut tx, &Post::new("dropped")).await.unwrap();
        let dropped = hook.clone();
        tx.after_commit(move || dropped.send("dropped").unwrap());
        drop(tx);
        let mut tx = db.begin().await.unwrap();
        insert(&mut tx, &Post::new("kept")).await.unwrap();
        tx.after_commit(move || hook.send("kept").unwrap());
        tx.commit().await.unwrap();
        assert_eq!(ran.recv().await, Some("kept"));
        assert_eq!(ran.recv().await, None);
        assert_eq!(post::all(&mut db.read().await.unwrap()).await.len(), 1);
    }

    async fn many_rows_are_inserted_at_once(db: Db) {
        let posts: Vec<_> = (0..1234).map(|number| Post::new(&format!("post-{number:04}"))).collect();
        let mut tx = db.begin().await.unwrap();
        for expected in [1234, 0] {
            let inserted = store::insert_all!(
                tx,
                "INSERT INTO posts (id, slug, title, views, pinned, labels)",
                &posts,
                |post| (post.id, &post.slug, &post.title, post.views, post.pinned, &post.labels),
                "ON CONFLICT (slug) DO NOTHING"
            );
            assert_eq!(inserted.await.unwrap(), expected);
        }
        let none = store::insert_all!(tx, "INSERT INTO posts (id, slug)", Vec::<Post>::new(), |post| (post.id, post.slug), "");
        assert_eq!(none.await.unwrap(), 0);
        tx.commit().await.unwrap();
        assert_eq!(post::all(&mut db.read().await.unwrap()).await, posts);
    }

    async fn rows_are_found_by_a_list_of_ids_or_texts_and_by_optional_filters(db: Db) {
        let posts = ["a", "b", "c"].map(Post::new);
        let mut tx = db.begin().await.unwrap();
        for post in &posts {
            insert(&mut tx, post).await.unwrap();
        }
        tx.commit().await.unwrap();
        let mut conn = db.read().await.unwrap();
        let by_id = format!("SELECT * FROM posts WHERE id IN {} ORDER BY slug", conn.dialect().id_list(1));
        let ids = dialect::id_list([posts[0].id, posts[2].id, Source::system().id()]);
        assert_eq!(store::fetch_all!(conn, Post, by_id, ids).await.unwrap(), [posts[0].clone(), posts[2].clone()]);
        let by_slug = format!("SELECT * FROM posts WHERE slug NOT IN {} ORDER BY slug", conn.dialect().text_list(1));
        assert_eq!(store::fetch_all!(conn, Post, by_slug, Json(["a", "x"])).await.unwrap(), posts[1..]);
        let filter = "SELECT COUNT(*) FROM posts WHERE ($1 IS NULL OR id = $1) AND ($2 IS NULL OR pinned = $2)";
        for (id, pinned, expected) in [(None, None, 3), (Some(posts[1].id), None, 1), (None, Some(true), 0), (Some(posts[1].id), Some(false), 1)] {
            assert_eq!(store::fetch_scalar!(conn, i64, filter, id, pinned).await.unwrap(), expected);
        }
    }

    async fn a_search_finds_phrases_and_prefixes_ranks_titles_higher_and_takes_words_literally(db: Db) {
        let dialect = db.dialect();
        let documents: [(i64, &[&str], &[&str]); 3] = [
            (1, &["한국", "국어"], &["rust", "and", "more"]),
            (2, &["rust"], &["it's", "a\\b", "quo\"ted", "한국"]),
            (3, &["국어"], &["한국", "&", "|", "!"]),
        ];
        let mut tx = db.begin().await.unwrap();
        for (rowid, title, body) in documents {
            let (title, body) = (dialect.search_text(title.iter().copied()), dialect.search_text(body.iter().copied()));
            store::execute!(tx, dialect.search_insert("posts_search"), rowid, title, body).await.unwrap();
        }
        tx.commit().await.unwrap();
        let phrase = |words: &[&str]| dialect.search_phrase(words.iter().copied(), false);
        let either = [phrase(&["more"]), phrase(&["it's"])];
        let cases: [(String, &[i64]); 9] = [
            (phrase(&["rust"]), &[2, 1]),
            (phrase(&["한국", "국어"]), &[1]),
            (phrase(&["국어", "한국"]), &[]),
            (phrase(&["it's"]), &[2]),
            (phrase(&["quo\"ted"]), &[2]),
            (phrase(&["a\\b"]), &[2]),
            (phrase(&["rust OR more"]), &[]),
            (dialect.search_phrase(["and", "mo"], true), &[1]),
            (dialect.search_any(either.iter().map(String::as_str)), &[1, 2]),
        ];
        let (matches, rank) = (dialect.search_matches("posts_search", "$1"), dialect.search_rank("posts_search", "$1"));
        let select = format!("SELECT rowid, {rank} AS rank FROM posts_search WHERE {matches} ORDER BY rank DESC, rowid");
        let mut conn = db.read().await.unwrap();
        for (query, expected) in cases {
            let found = store::fetch_all!(conn, (i64, f64), select.clone(), query.as_str()).await.unwrap();
            let mut found: Vec<_> = found.into_iter().map(|(rowid, _)| rowid).collect();
            if query == dialect.search_any(either.iter().map(String::as_str)) {
                found.sort_unstable();
            }
            assert_eq!(found, expected, "{query}");
        }
    }
}
