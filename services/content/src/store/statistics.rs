//! The tables `post_statistics` and `post_likes`.

use std::collections::BTreeMap;

use ids::{PostId, Timestamp, UserId};
use store::dialect::id_list;
use store::{Conn, Result, Tx};

/// How often a post was seen and liked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, sqlx::FromRow)]
pub struct Statistics {
    pub views: i64,
    pub likes: i64,
}

/// A post's statistics.
pub async fn find(conn: &mut Conn, post: PostId) -> Result<Option<Statistics>> {
    store::fetch_optional!(conn, Statistics, "SELECT views, likes FROM post_statistics WHERE post_id = $1", post).await
}

/// Adds views, for each post as many as are given. Posts that are gone are passed over.
pub async fn add_views(tx: &mut Tx, views: &[(PostId, i64)]) -> Result<()> {
    let (lock, ids) = (tx.dialect().for_update(), tx.dialect().id_list(1));
    // In the order of ids, so that two writers of the same posts never wait for each other in a circle.
    let rows = format!("SELECT post_id FROM post_statistics WHERE post_id IN {ids} ORDER BY post_id{lock}");
    let all = id_list(views.iter().map(|(post, _)| *post));
    store::fetch_scalar!(tx, i64, format!("SELECT COUNT(*) FROM ({rows}) locked"), all).await?;
    // Most posts have few views, so that few statements write thousands of posts.
    let mut counts: BTreeMap<i64, Vec<PostId>> = BTreeMap::new();
    for (post, count) in views {
        counts.entry(*count).or_default().push(*post);
    }
    for (count, posts) in counts {
        let update = format!("UPDATE post_statistics SET views = views + $2 WHERE post_id IN {ids}");
        store::execute!(tx, update, id_list(posts), count).await?;
    }
    Ok(())
}

/// Counts a person's like once.
pub async fn like(tx: &mut Tx, post: PostId, user: UserId, now: Timestamp) -> Result<Statistics> {
    let inserted = store::execute!(
        tx,
        "INSERT INTO post_likes (post_id, user_id, create_time) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING",
        post,
        user,
        now
    )
    .await?;
    add_likes(tx, post, inserted.cast_signed()).await
}

/// Takes a person's like back, if there is one.
pub async fn unlike(tx: &mut Tx, post: PostId, user: UserId) -> Result<Statistics> {
    let deleted = store::execute!(tx, "DELETE FROM post_likes WHERE post_id = $1 AND user_id = $2", post, user).await?;
    add_likes(tx, post, -deleted.cast_signed()).await
}

async fn add_likes(tx: &mut Tx, post: PostId, count: i64) -> Result<Statistics> {
    store::fetch_one!(
        tx,
        Statistics,
        "UPDATE post_statistics SET likes = likes + $2 WHERE post_id = $1 RETURNING views, likes",
        post,
        count
    )
    .await
}
