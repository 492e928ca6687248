//! The table `post_sources`.

use ids::PostId;
use store::{Conn, Result, Tx};

use crate::import::Hash;

/// The hash of what came last under this id.
pub async fn find(conn: &mut Conn, source_id: &str) -> Result<Option<Vec<u8>>> {
    let row = store::fetch_optional!(conn, (Vec<u8>,), "SELECT hash FROM post_sources WHERE source_id = $1", source_id)
        .await?;
    Ok(row.map(|(hash,)| hash))
}

/// The post that was imported under this id, and the hash of what came last; held until the end of the transaction.
pub async fn lock(tx: &mut Tx, source_id: &str) -> Result<Option<(PostId, Vec<u8>)>> {
    let select = format!("SELECT post_id, hash FROM post_sources WHERE source_id = $1{}", tx.dialect().for_update());
    store::fetch_optional!(tx, (PostId, Vec<u8>), select, source_id).await
}

/// Remembers what came under this id. False: another import of the same id was faster.
pub async fn insert(tx: &mut Tx, source_id: &str, post: PostId, hash: &Hash) -> Result<bool> {
    let inserted = store::execute!(
        tx,
        "INSERT INTO post_sources (source_id, post_id, hash) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING",
        source_id,
        post,
        hash.0.as_slice()
    )
    .await?;
    Ok(inserted == 1)
}

/// Remembers what came last.
pub async fn update(tx: &mut Tx, source_id: &str, hash: &Hash) -> Result<()> {
    store::execute!(tx, "UPDATE post_sources SET hash = $2 WHERE source_id = $1", source_id, hash.0.as_slice()).await?;
    Ok(())
}
