//! Entries of resumes are listed, written and deleted.

use ids::{ResumeEntryId, UserId};
use status::{Problem, Reason};
use store::{Tx, page};
use tonic::{Request, Response};

use super::super::{Content, Once, PAGE_BUDGET, id, person, prepare, proto};
use super::owned;
use crate::error::{Error, InField, Result};
use crate::resume::{Entry, Kind, MAX_ENTRIES, Month, Period};
use crate::revision::Revision;
use crate::store::resume::Cursor;
use crate::{mask, store as tables};

const CREATE: &str = "/guildhall.content.v1.PortfolioService/CreateResumeEntry";

/// The fields that UpdateResumeEntry can change.
const MUTABLE: [&str; 6] = ["kind", "title", "organisation", "start_month", "end_month", "markdown"];

pub(super) async fn list(
    content: &Content,
    message: &proto::ListResumeEntriesRequest,
) -> Result<Response<proto::ListResumeEntriesResponse>> {
    let owner: UserId = id(&message.user_id, "userId")?;
    let scope = format!("ListResumeEntries {owner}");
    let after: Option<Cursor> = content.tokens.read(&scope, &message.page_token)?;
    let size = page::size(message.page_size);
    let limit = i64::try_from(size + 1).unwrap_or(i64::MAX);
    let mut entries = tables::resume::list(&mut content.db.read().await?, owner, after.as_ref(), limit).await?;
    let fitting = size.min(fitting(&entries));
    let more = entries.len() > fitting;
    entries.truncate(fitting);
    let next = entries.last().filter(|_| more).map(|last| content.tokens.issue(&scope, &Cursor::behind(last)));
    Ok(Response::new(proto::ListResumeEntriesResponse {
        entries: entries.into_iter().map(Into::into).collect(),
        next_page_token: next.unwrap_or_default(),
    }))
}

/// How many of the entries fit on a page: at least one.
fn fitting(entries: &[Entry]) -> usize {
    let before = entries.iter().scan(0, |bytes, entry| {
        let before = *bytes;
        *bytes += entry.markdown.len() + entry.html.len();
        Some(i64::try_from(before).unwrap_or(i64::MAX))
    });
    before.take_while(|before| *before < PAGE_BUDGET).count()
}

pub(super) async fn create(
    content: &Content,
    request: Request<proto::CreateResumeEntryRequest>,
) -> Result<Response<proto::ResumeEntry>> {
    let viewer = person(&request)?;
    let message = request.into_inner();
    let owner = owned(&message.user_id, viewer)?;
    let once = Once::new(viewer, CREATE, &message.request_id, &message);
    let kind = kind(message.kind(), "kind")?;
    let start = Month::parse(&message.start_month).in_field("startMonth")?;
    let period = Period::new(start, end(&message.end_month, "endMonth")?).in_field("endMonth")?;
    let prepared = prepare(&message.markdown, "markdown").await?;

    let mut tx = content.db.begin().await?;
    if let Some(answer) = once.replay(&mut tx, &content.source).await? {
        return Ok(Response::new(answer));
    }
    tables::portfolio::lock_owner(&mut tx, owner).await?;
    if tables::resume::count(&mut tx, owner).await? >= MAX_ENTRIES {
        return Err(Problem::new(Reason::LimitReached)
            .message(format!("A resume can have {MAX_ENTRIES} entries"))
            .into());
    }
    let entry = Entry {
        id: content.source.id(),
        owner,
        kind,
        title: message.title,
        organisation: message.organisation,
        period,
        markdown: message.markdown,
        html: prepared.rendered.html,
        revision: Revision::first(content.source.now()),
    };
    tables::resume::save(&mut tx, &entry).await?;
    let answer = proto::ResumeEntry::from(entry);
    once.remember(&mut tx, &content.source, &answer).await?;
    tx.commit().await?;
    Ok(Response::new(answer))
}

pub(super) async fn update(
    content: &Content,
    request: Request<proto::UpdateResumeEntryRequest>,
) -> Result<Response<proto::ResumeEntry>> {
    let viewer = person(&request)?;
    let message = request.into_inner();
    let owner = owned(&message.user_id, viewer)?;
    let given = message.entry.unwrap_or_default();
    let fields = mask::fields(message.update_mask, &MUTABLE, |field| is_populated(&given, field))?;
    if fields.contains("title") && given.title.is_empty() {
        return Err(Error::field("entry.title", "an entry needs a title"));
    }
    let prepared =
        if fields.contains("markdown") { Some(prepare(&given.markdown, "entry.markdown").await?) } else { None };

    let mut tx = content.db.begin().await?;
    let before = lock(&mut tx, owner, &message.entry_id, &given.etag).await?;
    let mut entry = before.clone();
    if fields.contains("kind") {
        entry.kind = kind(given.kind(), "entry.kind")?;
    }
    if fields.contains("start_month") || fields.contains("end_month") {
        entry.period = period(&entry.period, &given, |field| fields.contains(field))?;
    }
    if fields.contains("title") {
        entry.title = given.title;
    }
    if fields.contains("organisation") {
        entry.organisation = given.organisation;
    }
    if let Some(prepared) = prepared {
        entry.markdown = given.markdown;
        entry.html = prepared.rendered.html;
    }
    if entry != before {
        entry.revision.advance(content.source.now());
        tables::resume::save(&mut tx, &entry).await?;
        tx.commit().await?;
    }
    Ok(Response::new(entry.into()))
}

fn is_populated(entry: &proto::ResumeEntry, field: &str) -> bool {
    match field {
        "kind" => entry.kind() != proto::resume_entry::Kind::Unspecified,
        "title" => !entry.title.is_empty(),
        "organisation" => !entry.organisation.is_empty(),
        "start_month" => !entry.start_month.is_empty(),
        "end_month" => !entry.end_month.is_empty(),
        _ => !entry.markdown.is_empty(),
    }
}

pub(super) async fn delete(
    content: &Content,
    request: Request<proto::DeleteResumeEntryRequest>,
) -> Result<Response<()>> {
    let viewer = person(&request)?;
    let message = request.into_inner();
    let owner = owned(&message.user_id, viewer)?;
    let mut tx = content.db.begin().await?;
    let entry = lock(&mut tx, owner, &message.entry_id, &message.etag).await?;
    tables::resume::delete(&mut tx, entry.id).await?;
    tx.commit().await?;
    Ok(Response::new(()))
}

/// The entry, locked with all of its owner's, if the caller has seen its present state.
async fn lock(tx: &mut Tx, owner: UserId, entry_id: &str, etag: &str) -> Result<Entry> {
    let id: ResumeEntryId = id(entry_id, "entryId")?;
    tables::portfolio::lock_owner(tx, owner).await?;
    let entry = tables::resume::find(tx, owner, id).await?.ok_or(Error::Missing("entry"))?;
    entry.revision.check(etag)?;
    Ok(entry)
}

fn kind(kind: proto::resume_entry::Kind, field: &str) -> Result<Kind> {
    match kind {
        proto::resume_entry::Kind::Unspecified => Err(Error::field(field, "is required")),
        proto::resume_entry::Kind::Work => Ok(Kind::Work),
        proto::resume_entry::Kind::Education => Ok(Kind::Education),
        proto::resume_entry::Kind::Project => Ok(Kind::Project),
        proto::resume_entry::Kind::Award => Ok(Kind::Award),
    }
}

/// The end of a period, which is empty while it goes on.
fn end(text: &str, field: &str) -> Result<Option<Month>> {
    if text.is_empty() { Ok(None) } else { Month::parse(text).map(Some).in_field(field) }
}

/// The period with what was given of it. An end that comes to lie before the start is said of the field that was changed.
fn period(before: &Period, given: &proto::ResumeEntry, changes: impl Fn(&str) -> bool) -> Result<Period> {
    let start = if changes("start_month") {
        Month::parse(&given.start_month).in_field("entry.startMonth")?
    } else {
        before.start().clone()
    };
    if !changes("end_month") {
        let end = before.end().cloned();
        return Period::new(start, end).map_err(|_| Error::field("entry.startMonth", "is behind the end"));
    }
    Period::new(start, end(&given.end_month, "entry.endMonth")?).in_field("entry.endMonth")
}

impl From<Entry> for proto::ResumeEntry {
    fn from(entry: Entry) -> Self {
        Self {
            id: entry.id.to_string(),
            create_time: Some(entry.revision.create_time.into()),
            update_time: Some(entry.revision.update_time.into()),
            etag: entry.revision.etag(),
            kind: proto::resume_entry::Kind::from(entry.kind).into(),
            title: entry.title,
            organisation: entry.organisation,
            start_month: entry.period.start().to_string(),
            end_month: entry.period.end().map(ToString::to_string).unwrap_or_default(),
            markdown: entry.markdown,
            html: entry.html,
        }
    }
}

impl From<Kind> for proto::resume_entry::Kind {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Work => Self::Work,
            Kind::Education => Self::Education,
            Kind::Project => Self::Project,
            Kind::Award => Self::Award,
        }
    }
}
