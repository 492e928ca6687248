//! The table `post_aliases`.

use ids::PostId;
use store::{Conn, Tx};

use crate::alias::Alias;
use crate::error::{Error, Result};

/// Lets the aliases lead to the post, beside those that do already.
pub async fn add(tx: &mut Tx, post: PostId, aliases: &[Alias]) -> Result<()> {
    for alias in aliases {
        store::execute!(
            tx,
            "INSERT INTO post_aliases (path, post_id) VALUES ($1, $2) ON CONFLICT DO NOTHING",
            alias.as_str(),
            post
        )
        .await?;
        let holder =
            store::fetch_one!(tx, (PostId,), "SELECT post_id FROM post_aliases WHERE path = $1", alias.as_str())
                .await?;
        if holder.0 != post {
            return Err(Error::AliasTaken);
        }
    }
    Ok(())
}

/// The post that the alias leads to.
pub async fn find(conn: &mut Conn, alias: &Alias) -> Result<Option<PostId>> {
    let row =
        store::fetch_optional!(conn, (PostId,), "SELECT post_id FROM post_aliases WHERE path = $1", alias.as_str())
            .await?;
    Ok(row.map(|(post,)| post))
}
