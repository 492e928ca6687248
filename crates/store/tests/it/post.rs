//! The table that the other tests use.

use ids::{PostId, Timestamp, UserId};
use sqlx::types::Json;
use store::{Conn, Error, Migrations, Tx};

pub static MIGRATIONS: Migrations =
    store::migrations!("posts", postgres = "tests/migrations/postgres", sqlite = "tests/migrations/sqlite");

#[derive(Clone, Debug, PartialEq, sqlx::FromRow)]
pub struct Post {
    pub id: PostId,
    pub author_id: Option<UserId>,
    pub slug: String,
    pub title: String,
    pub views: i64,
    pub pinned: bool,
    pub labels: Json<Vec<String>>,
    pub publish_time: Option<Timestamp>,
}

impl Post {
    pub fn new(slug: &str) -> Self {
        Self {
            id: ids::Source::system().id(),
            author_id: None,
            slug: slug.into(),
            title: slug.to_uppercase(),
            views: 0,
            pinned: false,
            labels: Json(Vec::new()),
            publish_time: None,
        }
    }
}

pub async fn insert(tx: &mut Tx, post: &Post) -> Result<u64, Error> {
    store::execute!(
        tx,
        "INSERT INTO posts (id, author_id, slug, title, views, pinned, labels, publish_time) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
        post.id,
        post.author_id,
        post.slug.as_str(),
        &post.title,
        post.views,
        post.pinned,
        &post.labels,
        post.publish_time,
    )
    .await
}

pub async fn all(conn: &mut Conn) -> Vec<Post> {
    store::fetch_all!(conn, Post, "SELECT * FROM posts ORDER BY slug").await.expect("posts")
}

pub async fn insert_author(tx: &mut Tx, id: UserId) {
    store::execute!(tx, "INSERT INTO authors (id, name) VALUES ($1, $2)", id, "A").await.expect("an author");
}
