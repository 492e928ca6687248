//! The table `post_slugs`.

use ids::PostId;
use store::{Conn, Tx};

use crate::error::{Error, Result};
use crate::slug::Slug;

/// Takes this very slug for a post. One that the post had before is taken again.
pub async fn claim(tx: &mut Tx, post: PostId, slug: Slug) -> Result<Slug> {
    if take(tx, post, &slug).await? { Ok(slug) } else { Err(Error::SlugTaken) }
}

/// Takes the slug for a post, or the first that is found free of `slug-2`, `slug-3` and so on: all of them up to -10, then by halving,
/// so that the thousandth post of one title costs no thousand tries.
pub async fn claim_numbered(tx: &mut Tx, post: PostId, slug: Slug) -> Result<Slug> {
    if take(tx, post, &slug).await? {
        return Ok(slug);
    }
    let mut taken = 1;
    let mut free = 2;
    while !is_free(tx, post, &slug.numbered(free)).await? {
        taken = free;
        free = if free < 10 { free + 1 } else { free.saturating_mul(2) };
    }
    while free - taken > 1 {
        let middle = taken + (free - taken) / 2;
        if is_free(tx, post, &slug.numbered(middle)).await? {
            free = middle;
        } else {
            taken = middle;
        }
    }
    // Another transaction may have been faster: then the next one.
    loop {
        let numbered = slug.numbered(free);
        if take(tx, post, &numbered).await? {
            return Ok(numbered);
        }
        free += 1;
    }
}

async fn take(tx: &mut Tx, post: PostId, slug: &Slug) -> Result<bool> {
    let inserted = store::execute!(
        tx,
        "INSERT INTO post_slugs (slug, post_id) VALUES ($1, $2) ON CONFLICT DO NOTHING",
        slug.as_str(),
        post
    )
    .await?;
    Ok(inserted == 1 || is_free(tx, post, slug).await?)
}

/// Whether nobody has the slug, or the post itself.
async fn is_free(tx: &mut Tx, post: PostId, slug: &Slug) -> Result<bool> {
    let holder =
        store::fetch_optional!(tx, (PostId,), "SELECT post_id FROM post_slugs WHERE slug = $1", slug.as_str()).await?;
    Ok(holder.is_none_or(|(holder,)| holder == post))
}

/// The post that has or had the slug.
pub async fn find(conn: &mut Conn, slug: &Slug) -> Result<Option<PostId>> {
    let row = store::fetch_optional!(conn, (PostId,), "SELECT post_id FROM post_slugs WHERE slug = $1", slug.as_str())
        .await?;
    Ok(row.map(|(post,)| post))
}
