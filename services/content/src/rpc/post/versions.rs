//! The versions of posts are listed, compared and restored.

use ids::PostId;
use serde::{Deserialize, Serialize};
use status::{Problem, Reason};
use store::page;
use tonic::{Request, Response};

use super::super::{Content, PAGE_BUDGET, blocking, id, person, prepare, proto};
use super::{permitted, write};
use crate::diff::{Change, Hunk, TooLong, compare};
use crate::error::{Error, Result};
use crate::language::Language;
use crate::permit::{PostRule, Viewer};
use crate::store as tables;
use crate::version::Version;

/// Where a page ended: the last version on it.
#[derive(Serialize, Deserialize)]
struct Cursor {
    before: i32,
}

pub(super) async fn list(
    content: &Content,
    request: Request<proto::ListPostVersionsRequest>,
) -> Result<Response<proto::ListPostVersionsResponse>> {
    let viewer = person(&request)?;
    let message = request.into_inner();
    let post = readable(content, &message.post_id, viewer).await?;
    let scope = format!("ListPostVersions {post}");
    let before = content.tokens.read(&scope, &message.page_token)?.map_or(i32::MAX, |cursor: Cursor| cursor.before);
    let size = i64::try_from(page::size(message.page_size)).unwrap_or(i64::MAX);
    let versions = tables::version::list(&mut content.db.read().await?, post, before, size, PAGE_BUDGET).await?;
    // Versions are numbered without gaps, down to 1.
    let next = versions
        .last()
        .filter(|last| last.number > 1)
        .map(|last| content.tokens.issue(&scope, &Cursor { before: last.number }));
    Ok(Response::new(proto::ListPostVersionsResponse {
        versions: versions.into_iter().map(Into::into).collect(),
        next_page_token: next.unwrap_or_default(),
    }))
}

pub(super) async fn get(
    content: &Content,
    request: Request<proto::GetPostVersionRequest>,
) -> Result<Response<proto::PostVersion>> {
    let viewer = person(&request)?;
    let message = request.into_inner();
    let post = readable(content, &message.post_id, viewer).await?;
    Ok(Response::new(version(content, post, message.version).await?.into()))
}

pub(super) async fn diff(
    content: &Content,
    request: Request<proto::DiffPostVersionsRequest>,
) -> Result<Response<proto::DiffPostVersionsResponse>> {
    let viewer = person(&request)?;
    let message = request.into_inner();
    let post = readable(content, &message.post_id, viewer).await?;
    let base = version(content, post, message.base_version).await?;
    let target = version(content, post, message.target_version).await?;
    let name = |version: &Version| format!("version {}", version.number);
    let diff = blocking(move || compare(&base.text(), &target.text(), &name(&base), &name(&target))).await?;
    let diff = diff
        .map_err(|TooLong| Problem::new(Reason::LimitReached).message("The versions differ in too much to be shown"))?;
    Ok(Response::new(proto::DiffPostVersionsResponse {
        unified: diff.unified,
        hunks: diff.hunks.into_iter().map(Into::into).collect(),
    }))
}

pub(super) async fn restore(
    content: &Content,
    request: Request<proto::RestorePostVersionRequest>,
) -> Result<Response<proto::Post>> {
    let viewer = person(&request)?;
    let message = request.into_inner();
    let id = readable(content, &message.post_id, viewer).await?;
    let mut body = version(content, id, message.version).await?.body;
    let prepared = prepare(&body.markdown, "version").await?;
    let mut tx = content.db.begin().await?;
    let mut post = write::lock(&mut tx, id, PostRule::AuthorOrModerator, viewer, &message.etag).await?;
    if let Some(category) = body.category
        && !tables::category::exists(&mut tx, category).await?
    {
        // It is gone since, and its posts were left without one.
        body.category = None;
    }
    if body != post.body {
        write::edit(content, &mut tx, &mut post, viewer, body, Some(&prepared)).await?;
        tx.commit().await?;
    }
    Ok(Response::new(post.into()))
}

/// The post whose versions the viewer may see.
async fn readable(content: &Content, post_id: &str, viewer: Viewer) -> Result<PostId> {
    let id: PostId = id(post_id, "postId")?;
    let post = tables::post::find(&mut content.db.read().await?, id).await?;
    Ok(permitted(post, PostRule::AuthorOrModerator, Some(viewer))?.id)
}

async fn version(content: &Content, post: PostId, number: i32) -> Result<Version> {
    tables::version::find(&mut content.db.read().await?, post, number).await?.ok_or(Error::Missing("version"))
}

impl From<Version> for proto::PostVersion {
    fn from(version: Version) -> Self {
        Self {
            post_id: version.post.to_string(),
            version: version.number,
            create_time: Some(version.create_time.into()),
            editor_id: version.editor.to_string(),
            title: version.body.title,
            markdown: version.body.markdown,
            tags: version.body.tags.iter().map(ToString::to_string).collect(),
            category_id: version.body.category.map(|id| id.to_string()).unwrap_or_default(),
            byline: version.body.byline,
            language: version.body.language.as_ref().map_or("", Language::as_str).to_owned(),
        }
    }
}

impl From<Hunk> for proto::diff_post_versions_response::Hunk {
    fn from(hunk: Hunk) -> Self {
        use proto::diff_post_versions_response::{Line, line};
        let lines = hunk.lines.into_iter().map(|(change, text)| {
            let change = match change {
                Change::Kept => line::Change::Kept,
                Change::Removed => line::Change::Removed,
                Change::Added => line::Change::Added,
            };
            Line { change: change.into(), text }
        });
        Self {
            lines: lines.collect(),
            base_start: count(hunk.base.0),
            base_lines: count(hunk.base.1),
            target_start: count(hunk.target.0),
            target_lines: count(hunk.target.1),
        }
    }
}

fn count(lines: usize) -> i32 {
    i32::try_from(lines).unwrap_or(i32::MAX)
}
