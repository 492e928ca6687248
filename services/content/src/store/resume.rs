//! The table `resume_entries`.

use ids::{ResumeEntryId, UserId};
use serde::{Deserialize, Serialize};
use store::{Conn, Error, Result, Tx};

use super::revision;
use crate::resume::{Entry, Kind, Month, Period};

/// What a [`Row`] is filled from, where `e` is `resume_entries`.
const COLUMNS: &str =
    "e.id, e.user_id, e.kind, e.title, e.organisation, e.start_month, e.end_month, e.markdown, e.html, e.revision,
    e.create_time, e.update_time";

#[derive(sqlx::FromRow)]
struct Row {
    id: ResumeEntryId,
    user_id: UserId,
    kind: i16,
    title: String,
    organisation: String,
    start_month: String,
    end_month: String,
    markdown: String,
    html: String,
    #[sqlx(flatten)]
    revision: revision::Row,
}

impl TryFrom<Row> for Entry {
    type Error = Error;

    fn try_from(row: Row) -> Result<Self> {
        let month = |text: &str| Month::parse(text).map_err(Error::corrupt);
        let end = Some(&row.end_month).filter(|text| !text.is_empty()).map(|text| month(text)).transpose()?;
        Ok(Self {
            id: row.id,
            owner: row.user_id,
            kind: kind(row.kind)?,
            title: row.title,
            organisation: row.organisation,
            period: Period::new(month(&row.start_month)?, end).map_err(Error::corrupt)?,
            markdown: row.markdown,
            html: row.html,
            revision: row.revision.into(),
        })
    }
}

fn kind(code: i16) -> Result<Kind> {
    match code {
        1 => Ok(Kind::Work),
        2 => Ok(Kind::Education),
        3 => Ok(Kind::Project),
        4 => Ok(Kind::Award),
        _ => Err(Error::corrupt(format!("a resume's entry is of the kind {code}"))),
    }
}

/// How the table writes a kind.
fn code(kind: Kind) -> i16 {
    match kind {
        Kind::Work => 1,
        Kind::Education => 2,
        Kind::Project => 3,
        Kind::Award => 4,
    }
}

/// Where a page ended.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Cursor {
    start_month: String,
    id: ResumeEntryId,
}

impl Cursor {
    /// The cursor behind this entry.
    pub fn behind(entry: &Entry) -> Self {
        Self { start_month: entry.period.start().to_string(), id: entry.id }
    }
}

/// Entries behind `after` of a person who is not shut out, the newest start first, at most `limit`.
pub async fn list(conn: &mut Conn, owner: UserId, after: Option<&Cursor>, limit: i64) -> Result<Vec<Entry>> {
    let select = format!(
        "SELECT {COLUMNS} FROM resume_entries e JOIN authors a ON a.user_id = e.user_id AND NOT a.suspended
         WHERE e.user_id = $1 AND ($2 IS NULL OR (e.start_month, e.id) < ($2, $3))
         ORDER BY e.start_month DESC, e.id DESC LIMIT $4"
    );
    let (start_month, id) = (after.map(|after| after.start_month.as_str()), after.map(|after| after.id));
    let rows = store::fetch_all!(conn, Row, select, owner, start_month, id, limit).await?;
    rows.into_iter().map(Entry::try_from).collect()
}

/// How many entries a person has.
pub async fn count(tx: &mut Tx, owner: UserId) -> Result<i64> {
    store::fetch_scalar!(tx, i64, "SELECT COUNT(*) FROM resume_entries WHERE user_id = $1", owner).await
}

/// The entry of that id, if it is in the resume of this person.
pub async fn find(tx: &mut Tx, owner: UserId, id: ResumeEntryId) -> Result<Option<Entry>> {
    let select = format!("SELECT {COLUMNS} FROM resume_entries e WHERE e.id = $1 AND e.user_id = $2");
    store::fetch_optional!(tx, Row, select, id, owner).await?.map(Entry::try_from).transpose()
}

/// Writes an entry, new or changed, whose owner is locked.
pub async fn save(tx: &mut Tx, entry: &Entry) -> Result<()> {
    store::execute!(
        tx,
        "INSERT INTO resume_entries (id, user_id, kind, title, organisation, start_month, end_month, markdown, html, revision,
                                     create_time, update_time)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)
         ON CONFLICT (id) DO UPDATE SET kind = excluded.kind, title = excluded.title, organisation = excluded.organisation,
             start_month = excluded.start_month, end_month = excluded.end_month, markdown = excluded.markdown, html = excluded.html,
             revision = excluded.revision, update_time = excluded.update_time",
        entry.id,
        entry.owner,
        code(entry.kind),
        &entry.title,
        &entry.organisation,
        entry.period.start().as_str(),
        entry.period.end().map_or("", Month::as_str),
        &entry.markdown,
        &entry.html,
        entry.revision.number,
        entry.revision.create_time,
        entry.revision.update_time
    )
    .await?;
    Ok(())
}

/// Removes an entry.
pub async fn delete(tx: &mut Tx, id: ResumeEntryId) -> Result<()> {
    store::execute!(tx, "DELETE FROM resume_entries WHERE id = $1", id).await?;
    Ok(())
}
