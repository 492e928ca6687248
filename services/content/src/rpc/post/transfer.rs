//! Posts are imported and exported.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;

use contracts::violations;
use futures_util::stream::{Stream, try_unfold};
use ids::{PostId, Timestamp};
use status::{Problem, Reason};
use tonic::{Request, Response, Status, Streaming};

use super::super::{Content, PAGE_BUDGET, person, prepare, proto, tags};
use super::write::{self, Wish};
use crate::alias::Alias;
use crate::author::Author;
use crate::error::{Error, InField, Result};
use crate::import::Import;
use crate::language::Language;
use crate::permit::Viewer;
use crate::post::{Body, MAX_MARKDOWN, Post};
use crate::slug::Slug;
use crate::store as tables;
use crate::store::listing::Exported;

/// An import with more refusals than this ends: its answer would not fit into a message.
const MAX_REFUSALS: usize = 1_000;

/// Posts that an export reads at a time.
const EXPORT_BATCH: i64 = 50;

/// What became of one post of an import.
enum Outcome {
    Imported,
    Unchanged,
}

pub(super) async fn import(
    content: &Content,
    request: Request<Streaming<proto::ImportPostsRequest>>,
) -> Result<Response<proto::ImportPostsResponse>> {
    let viewer = person(&request)?;
    let author = content.author(viewer.id).await?;
    let mut posts = request.into_inner();
    let mut answer = proto::ImportPostsResponse::default();
    while let Some(message) = posts.message().await.map_err(|status| Problem::from(&status))? {
        let source_id = message.source_id.clone();
        let problem = match import_one(content, viewer, &author, message).await {
            Ok(Outcome::Imported) => {
                answer.imported += 1;
                continue;
            }
            Ok(Outcome::Unchanged) => {
                answer.unchanged += 1;
                continue;
            }
            Err(error) => Problem::from(error),
        };
        if matches!(
            problem.reason(),
            Reason::Internal | Reason::Unavailable | Reason::DeadlineExceeded | Reason::Cancelled
        ) {
            // Not this post's fault: what came before is written, and the whole can be tried again.
            return Err(problem.into());
        }
        if answer.refused.len() >= MAX_REFUSALS {
            return Err(Problem::new(Reason::LimitReached)
                .message(format!("More than {MAX_REFUSALS} posts were refused"))
                .into());
        }
        let source_id = source_id.chars().take(400).collect();
        answer.refused.push(proto::import_posts_response::Refused { source_id, reason: why(&problem) });
    }
    Ok(Response::new(answer))
}

/// A refusal in one line.
fn why(problem: &Problem) -> String {
    let violations: Vec<_> = problem
        .violation_list()
        .iter()
        .map(|violation| format!("{}: {}", violation.field, violation.description))
        .collect();
    let text = if violations.is_empty() { problem.text().to_owned() } else { violations.join("; ") };
    format!("{}: {text}", problem.reason().name()).chars().take(500).collect()
}

async fn import_one(
    content: &Content,
    viewer: Viewer,
    author: &Author,
    message: proto::ImportPostsRequest,
) -> Result<Outcome> {
    let violations = violations(&message);
    if !violations.is_empty() {
        return Err(Problem::new(Reason::InvalidFields).violations(violations).into());
    }
    let import = parse(message)?;
    let hash = import.hash();
    let known = tables::source::find(&mut content.db.read().await?, &import.source_id).await?;
    if known.is_some_and(|before| before == hash.0) {
        return Ok(Outcome::Unchanged);
    }
    let wish = Some(&import.slug).filter(|slug| !slug.is_empty());
    let wish = wish.map(|slug| Slug::parse(slug).in_field("slug")).transpose()?;
    let prepared = prepare(&import.markdown, "markdown").await?;

    let mut tx = content.db.begin().await?;
    let category = match &import.category {
        Some(name) => Some(tables::category::named(&mut tx, name, &content.source).await?),
        None => None,
    };
    let body = Body {
        title: import.title,
        markdown: import.markdown,
        byline: import.byline,
        category,
        tags: import.tags,
        language: import.language,
    };
    let now = content.source.now();
    let mut post = match tables::source::lock(&mut tx, &import.source_id).await? {
        None => {
            let wish = wish.unwrap_or_else(|| Slug::of_title(&body.title, "post"));
            let mut post =
                Post::draft(content.source.id(), author.clone(), body, &prepared.rendered, wish.clone(), now);
            write::insert(content, &mut tx, &mut post, viewer, &prepared, Wish::Like(wish)).await?;
            if !tables::source::insert(&mut tx, &import.source_id, post.id, &hash).await? {
                return Err(Problem::new(Reason::Unavailable)
                    .message("The same post is being imported by another call")
                    .into());
            }
            post
        }
        Some((_, before)) if before == hash.0 => return Ok(Outcome::Unchanged),
        Some((id, _)) => {
            let post = tables::post::lock(&mut tx, id).await?.filter(|post| post.delete_time.is_none());
            let mut post =
                post.ok_or_else(|| Problem::new(Reason::StateConflict).message("The post was deleted here"))?;
            if let Some(wish) = wish {
                post.rename(Wish::Like(wish).claim(&mut tx, id).await?);
            }
            write::edit(content, &mut tx, &mut post, viewer, body, Some(&prepared)).await?;
            tables::source::update(&mut tx, &import.source_id, &hash).await?;
            post
        }
    };
    tables::alias::add(&mut tx, post.id, &import.aliases).await?;
    let change = post.publish_as_of(import.publish_time, now);
    write::finish(content, tx, &post, change).await?;
    Ok(Outcome::Imported)
}

fn parse(message: proto::ImportPostsRequest) -> Result<Import> {
    if message.markdown.len() > MAX_MARKDOWN {
        return Err(Error::field("markdown", format!("has more than {MAX_MARKDOWN} bytes")));
    }
    let publish_time = message.publish_time.ok_or_else(|| Error::field("publishTime", "is required"))?;
    let aliases =
        message.aliases.iter().enumerate().map(|(at, path)| Alias::parse(path).in_field(format!("aliases[{at}]")));
    Ok(Import {
        aliases: aliases.collect::<Result<_>>()?,
        publish_time: Timestamp::try_from(publish_time).in_field("publishTime")?,
        tags: tags(&message.tags, "tags")?,
        category: Some(message.category.trim().to_owned()).filter(|name| !name.is_empty()),
        language: Language::parse(&message.language),
        source_id: message.source_id,
        title: message.title,
        markdown: message.markdown,
        byline: message.byline,
        slug: message.slug,
    })
}

/// Posts on their way out. Nothing is read before it is asked for, and nothing more when the client has left.
pub(super) type Export = Pin<Box<dyn Stream<Item = Result<proto::ExportPostsResponse, Status>> + Send>>;

pub(super) fn export(content: Arc<Content>) -> Export {
    let start = (VecDeque::new(), None::<PostId>);
    Box::pin(try_unfold(start, move |(mut waiting, mut last)| {
        let content = Arc::clone(&content);
        async move {
            if waiting.is_empty() {
                waiting = next(&content, last).await?;
            }
            let Some(Exported { post, category, source_id }) = waiting.pop_front() else { return Ok(None) };
            last = Some(post.id);
            let source_id = source_id.unwrap_or_else(|| post.id.to_string());
            Ok(Some((proto::ExportPostsResponse { post: Some(post.into()), category, source_id }, (waiting, last))))
        }
    }))
}

async fn next(content: &Content, last: Option<PostId>) -> Result<VecDeque<Exported>> {
    Ok(tables::listing::export(&mut content.db.read().await?, last, EXPORT_BATCH, PAGE_BUDGET).await?.into())
}
