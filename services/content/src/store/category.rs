//! The tables `categories` and `category_tree`.

use ids::{CategoryId, Source};
use store::dialect::id_list;
use store::{Conn, Tx};

use super::revision;
use crate::category::{Category, Tree};
use crate::error::{Error, InField, Result};
use crate::name::Name;
use crate::revision::Revision;
use crate::slug::Slug;

const SELECT: &str =
    "SELECT id, parent_id, name, slug, description, revision, create_time, update_time FROM categories";

#[derive(sqlx::FromRow)]
struct Row {
    id: CategoryId,
    parent_id: Option<CategoryId>,
    name: String,
    slug: String,
    description: String,
    #[sqlx(flatten)]
    revision: revision::Row,
}

impl From<Row> for Category {
    fn from(row: Row) -> Self {
        Self {
            id: row.id,
            parent: row.parent_id,
            name: row.name.into(),
            slug: row.slug.into(),
            description: row.description,
            revision: row.revision.into(),
        }
    }
}

/// All categories.
pub async fn tree(conn: &mut Conn) -> Result<Tree> {
    let rows = store::fetch_all!(conn, Row, SELECT).await?;
    Ok(rows.into_iter().map(Category::from).collect())
}

/// All categories, of which nobody else changes any until the end of the transaction. To be called before posts are locked.
pub async fn lock_tree(tx: &mut Tx) -> Result<Tree> {
    store::execute!(tx, "UPDATE category_tree SET revision = revision + 1").await?;
    let rows = store::fetch_all!(tx, Row, SELECT).await?;
    Ok(rows.into_iter().map(Category::from).collect())
}

/// Writes a category, new or changed, whose tree is locked.
pub async fn save(tx: &mut Tx, category: &Category) -> Result<()> {
    store::execute!(
        tx,
        "INSERT INTO categories (id, parent_id, name, slug, description, revision, create_time, update_time)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
         ON CONFLICT (id) DO UPDATE SET parent_id = excluded.parent_id, name = excluded.name, slug = excluded.slug,
             description = excluded.description, revision = excluded.revision, update_time = excluded.update_time",
        category.id,
        category.parent,
        category.name.as_str(),
        category.slug.as_str(),
        &category.description,
        category.revision.number,
        category.revision.create_time,
        category.revision.update_time
    )
    .await?;
    Ok(())
}

/// Counts a change of each of these categories: something below them has changed, and they are shown with it.
pub async fn advance(tx: &mut Tx, ids: impl IntoIterator<Item = CategoryId>) -> Result<()> {
    let update = format!("UPDATE categories SET revision = revision + 1 WHERE id IN {}", tx.dialect().id_list(1));
    store::execute!(tx, update, id_list(ids)).await?;
    Ok(())
}

/// Removes a category that contains no others. Its posts stay, without one, and each counts a change.
pub async fn delete(tx: &mut Tx, id: CategoryId) -> Result<()> {
    // Posts first and in the order of ids, as their editors lock them, then the category, so that no further post takes it.
    let lock = tx.dialect().for_update();
    let posts = format!("SELECT COUNT(*) FROM (SELECT id FROM posts WHERE category_id = $1 ORDER BY id{lock}) locked");
    store::fetch_scalar!(tx, i64, posts, id).await?;
    store::fetch_optional!(tx, (CategoryId,), format!("SELECT id FROM categories WHERE id = $1{lock}"), id).await?;
    store::execute!(tx, "UPDATE posts SET category_id = NULL, revision = revision + 1 WHERE category_id = $1", id)
        .await?;
    store::execute!(tx, "DELETE FROM categories WHERE id = $1", id).await?;
    Ok(())
}

/// Whether there is such a category; it stays until the end of the transaction.
pub async fn exists(tx: &mut Tx, id: CategoryId) -> Result<bool> {
    let select = format!("SELECT id FROM categories WHERE id = $1{}", tx.dialect().for_key_share());
    Ok(store::fetch_optional!(tx, (CategoryId,), select, id).await?.is_some())
}

/// The category of this name, or of the name's slug, which stays until the end of the transaction; it is made, as a root, where
/// there is none. To be called before posts are locked.
pub async fn named(tx: &mut Tx, name: &str, source: &Source) -> Result<CategoryId> {
    let name = Name::parse(name).in_field("category")?;
    let slug = Slug::of_title(name.as_str(), "category");
    if let Some(id) = find_named(tx, &name, &slug).await? {
        return Ok(id);
    }
    let mut tree = lock_tree(tx).await?;
    // Another transaction may have made it in the meantime.
    if let Some(id) = find_named(tx, &name, &slug).await? {
        return Ok(id);
    }
    let id = source.id();
    let revision = Revision::first(source.now());
    let category =
        Category { id, parent: None, name, slug: tree.free_slug(&slug, id), description: String::new(), revision };
    tree.put(category.clone()).map_err(Error::from)?;
    save(tx, &category).await?;
    Ok(id)
}

async fn find_named(tx: &mut Tx, name: &Name, slug: &Slug) -> Result<Option<CategoryId>> {
    let select = format!(
        "SELECT id FROM categories WHERE name = $1 OR slug = $2 ORDER BY CASE WHEN name = $1 THEN 0 ELSE 1 END, id LIMIT 1{}",
        tx.dialect().for_key_share()
    );
    let row = store::fetch_optional!(tx, (CategoryId,), select, name.as_str(), slug.as_str()).await?;
    Ok(row.map(|(id,)| id))
}
