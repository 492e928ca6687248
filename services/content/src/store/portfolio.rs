//! The table `portfolios`.

use ids::UserId;
use sqlx::types::Json;
use store::{Conn, Tx};

use super::{author, revision};
use crate::error::{Error, Result};
use crate::portfolio::{Link, Portfolio};

const SELECT: &str =
    "SELECT p.user_id, p.headline, p.markdown, p.html, p.links, p.revision, p.create_time, p.update_time
    FROM portfolios p JOIN authors a ON a.user_id = p.user_id AND NOT a.suspended WHERE p.user_id = $1";

#[derive(sqlx::FromRow)]
struct Row {
    user_id: UserId,
    headline: String,
    markdown: String,
    html: String,
    links: Json<Vec<Link>>,
    #[sqlx(flatten)]
    revision: revision::Row,
}

impl From<Row> for Portfolio {
    fn from(row: Row) -> Self {
        Self {
            owner: row.user_id,
            headline: row.headline,
            markdown: row.markdown,
            html: row.html,
            links: row.links.0,
            revision: row.revision.into(),
        }
    }
}

/// The portfolio of a person who wrote one and is not shut out.
pub async fn find(conn: &mut Conn, owner: UserId) -> Result<Option<Portfolio>> {
    Ok(store::fetch_optional!(conn, Row, SELECT, owner).await?.map(Portfolio::from))
}

/// Holds all that belongs to the portfolio of a person, whether they have written any of it or not, until the end of the
/// transaction. Refuses people who are shut out.
pub async fn lock_owner(tx: &mut Tx, owner: UserId) -> Result<()> {
    author::add(tx, owner).await?;
    let lock = format!("SELECT suspended FROM authors WHERE user_id = $1{}", tx.dialect().for_update());
    if store::fetch_scalar!(tx, bool, lock, owner).await? { Err(Error::Missing("portfolio")) } else { Ok(()) }
}

/// The portfolio of this person, if they have written one; held until the end of the transaction.
pub async fn lock(tx: &mut Tx, owner: UserId) -> Result<Option<Portfolio>> {
    lock_owner(tx, owner).await?;
    Ok(store::fetch_optional!(tx, Row, SELECT, owner).await?.map(Portfolio::from))
}

/// Writes a portfolio, new or changed, that is locked.
pub async fn save(tx: &mut Tx, portfolio: &Portfolio) -> Result<()> {
    store::execute!(
        tx,
        "INSERT INTO portfolios (user_id, headline, markdown, html, links, revision, create_time, update_time)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
         ON CONFLICT (user_id) DO UPDATE SET headline = excluded.headline, markdown = excluded.markdown, html = excluded.html,
             links = excluded.links, revision = excluded.revision, update_time = excluded.update_time",
        portfolio.owner,
        &portfolio.headline,
        &portfolio.markdown,
        &portfolio.html,
        Json(&portfolio.links),
        portfolio.revision.number,
        portfolio.revision.create_time,
        portfolio.revision.update_time
    )
    .await?;
    Ok(())
}
