//! Posts are written, published and deleted.

use std::collections::BTreeSet;

use ids::{CategoryId, PostId, Timestamp};
use store::Tx;
use tonic::{Request, Response};

use super::super::{Content, Once, Prepared, id, optional_id, person, prepare, proto, tags};
use super::permitted;
use crate::error::{Error, InField, Result};
use crate::etag;
use crate::events::emit;
use crate::language::Language;
use crate::permit::{PostRule, Viewer};
use crate::post::{Body, Change, Post};
use crate::slug::Slug;
use crate::store as tables;
use crate::tag::Name;
use crate::version::Version;

const CREATE: &str = "/guildhall.content.v1.PostService/CreatePost";

/// The fields that UpdatePost can change.
const MUTABLE: [&str; 7] = ["title", "markdown", "slug", "byline", "category_id", "tags", "language"];

/// What slug a post is to have.
pub(super) enum Wish {
    /// This one and no other.
    Exactly(Slug),
    /// This one, with a number if it is taken.
    Like(Slug),
}

impl Wish {
    /// As it was given, or made from the title.
    fn parse(given: &str, title: &str, field: &str) -> Result<Self> {
        if given.is_empty() {
            return Ok(Self::Like(Slug::of_title(title, "post")));
        }
        Slug::parse(given).map(Self::Exactly).in_field(field)
    }

    pub(super) async fn claim(self, tx: &mut Tx, post: PostId) -> Result<Slug> {
        match self {
            Self::Exactly(slug) => tables::slug::claim(tx, post, slug).await,
            Self::Like(slug) => tables::slug::claim_numbered(tx, post, slug).await,
        }
    }
}

pub(super) async fn create(
    content: &Content,
    request: Request<proto::CreatePostRequest>,
) -> Result<Response<proto::Post>> {
    let viewer = person(&request)?;
    let message = request.into_inner();
    let once = Once::new(viewer, CREATE, &message.request_id, &message);
    let wish = Wish::parse(&message.slug, &message.title, "slug")?;
    let body = Body {
        tags: tags(&message.tags, "tags")?,
        category: optional_id(&message.category_id, "categoryId")?,
        language: Language::parse(&message.language),
        title: message.title,
        markdown: message.markdown,
        byline: String::new(),
    };
    let prepared = prepare(&body.markdown, "markdown").await?;
    let author = content.author(viewer.id).await?;

    let mut tx = content.db.begin().await?;
    if let Some(answer) = once.replay(&mut tx, &content.source).await? {
        return Ok(Response::new(answer));
    }
    check_category(&mut tx, body.category, "categoryId").await?;
    let slug = Slug::of_title(&body.title, "post");
    let mut post = Post::draft(content.source.id(), author, body, &prepared.rendered, slug, content.source.now());
    insert(content, &mut tx, &mut post, viewer, &prepared, wish).await?;
    let answer = proto::Post::from(post);
    once.remember(&mut tx, &content.source, &answer).await?;
    tx.commit().await?;
    Ok(Response::new(answer))
}

/// Writes a new post with all that belongs to it, and tells of it.
pub(super) async fn insert(
    content: &Content,
    tx: &mut Tx,
    post: &mut Post,
    editor: Viewer,
    prepared: &Prepared,
    wish: Wish,
) -> Result<()> {
    tables::post::insert(tx, post, &prepared.rendered).await?;
    post.rename(wish.claim(tx, post.id).await?);
    tables::post::update(tx, post, None).await?;
    post.body.tags = tables::tag::set(tx, post.id, &post.body.tags, &content.source).await?;
    tables::search::index_title(tx, post.id, &post.body.title).await?;
    tables::search::index_body(tx, post.id, &prepared.tokens).await?;
    tables::version::insert(tx, &version(post, editor)).await?;
    emit(&content.outbox, tx, post, Change::Created).await?;
    Ok(())
}

/// Writes an edit of a post that is locked, as a new version, and tells of it.
pub(super) async fn edit(
    content: &Content,
    tx: &mut Tx,
    post: &mut Post,
    editor: Viewer,
    body: Body,
    prepared: Option<&Prepared>,
) -> Result<()> {
    let title = post.body.title != body.title;
    let change = post.edit(body, prepared.map(|prepared| &prepared.rendered), content.source.now());
    tables::post::update(tx, post, prepared.map(|prepared| &prepared.rendered)).await?;
    post.body.tags = tables::tag::set(tx, post.id, &post.body.tags, &content.source).await?;
    if title {
        tables::search::index_title(tx, post.id, &post.body.title).await?;
    }
    if let Some(prepared) = prepared {
        tables::search::index_body(tx, post.id, &prepared.tokens).await?;
    }
    tables::version::insert(tx, &version(post, editor)).await?;
    emit(&content.outbox, tx, post, change).await?;
    Ok(())
}

fn version(post: &Post, editor: Viewer) -> Version {
    Version {
        post: post.id,
        number: post.version,
        editor: editor.id,
        body: post.body.clone(),
        create_time: post.update_time,
    }
}

async fn check_category(tx: &mut Tx, category: Option<CategoryId>, field: &str) -> Result<()> {
    match category {
        Some(category) if !tables::category::exists(tx, category).await? => {
            Err(Error::field(field, "there is no such category"))
        }
        _ => Ok(()),
    }
}

/// The post, locked, if the viewer may change it and has seen its present state.
pub(super) async fn lock(tx: &mut Tx, id: PostId, rule: PostRule, viewer: Viewer, etag: &str) -> Result<Post> {
    let post = permitted(tables::post::lock(tx, id).await?, rule, Some(viewer))?;
    etag::check(etag, post.revision)?;
    Ok(post)
}

pub(super) async fn update(
    content: &Content,
    request: Request<proto::UpdatePostRequest>,
) -> Result<Response<proto::Post>> {
    let viewer = person(&request)?;
    let message = request.into_inner();
    let id: PostId = id(&message.post_id, "postId")?;
    let given = message.post.unwrap_or_default();
    let fields = crate::mask::fields(message.update_mask, &MUTABLE, |field| is_populated(&given, field))?;
    if fields.contains("title") && given.title.is_empty() {
        return Err(Error::field("post.title", "a post needs a title"));
    }
    // Rendered before the transaction, which holds up others, but not for those who may not write anyway.
    let seen = tables::post::find(&mut content.db.read().await?, id).await?;
    etag::check(&given.etag, permitted(seen, PostRule::AuthorOrModerator, Some(viewer))?.revision)?;
    let prepared =
        if fields.contains("markdown") { Some(prepare(&given.markdown, "post.markdown").await?) } else { None };

    let mut tx = content.db.begin().await?;
    let mut post = lock(&mut tx, id, PostRule::AuthorOrModerator, viewer, &given.etag).await?;
    let body = merge(&post.body, &given, &fields)?;
    if fields.contains("category_id") {
        check_category(&mut tx, body.category, "post.categoryId").await?;
    }
    let mut changes = body != post.body;
    if fields.contains("slug") {
        let slug = Wish::parse(&given.slug, &body.title, "post.slug")?.claim(&mut tx, id).await?;
        changes |= slug != post.slug;
        post.rename(slug);
    }
    if changes {
        edit(content, &mut tx, &mut post, viewer, body, prepared.as_ref()).await?;
        tx.commit().await?;
    }
    Ok(Response::new(post.into()))
}

fn is_populated(post: &proto::Post, field: &str) -> bool {
    match field {
        "title" => !post.title.is_empty(),
        "markdown" => !post.markdown.is_empty(),
        "slug" => !post.slug.is_empty(),
        "byline" => !post.byline.is_empty(),
        "category_id" => !post.category_id.is_empty(),
        "tags" => !post.tags.is_empty(),
        "language" => !post.language.is_empty(),
        _ => false,
    }
}

fn merge(body: &Body, given: &proto::Post, fields: &BTreeSet<&str>) -> Result<Body> {
    let mut body = body.clone();
    for field in fields {
        match *field {
            "title" => body.title.clone_from(&given.title),
            "markdown" => body.markdown.clone_from(&given.markdown),
            "byline" => body.byline.clone_from(&given.byline),
            "category_id" => body.category = optional_id(&given.category_id, "post.categoryId")?,
            "tags" => {
                let given = tags(&given.tags, "post.tags")?;
                // A tag is shown as it was first written, however it was written here.
                if given.iter().map(Name::key).ne(body.tags.iter().map(Name::key)) {
                    body.tags = given;
                }
            }
            "language" => body.language = Language::parse(&given.language),
            _ => {}
        }
    }
    Ok(body)
}

pub(super) async fn delete(content: &Content, request: Request<proto::DeletePostRequest>) -> Result<Response<()>> {
    let viewer = person(&request)?;
    let message = request.into_inner();
    let mut tx = content.db.begin().await?;
    let mut post = lock_deleted(&mut tx, &message.post_id, viewer).await?;
    if post.delete_time.is_none() {
        etag::check(&message.etag, post.revision)?;
    }
    let change = post.delete(content.source.now());
    finish(content, tx, &post, change).await?;
    Ok(Response::new(()))
}

pub(super) async fn undelete(
    content: &Content,
    request: Request<proto::UndeletePostRequest>,
) -> Result<Response<proto::Post>> {
    let viewer = person(&request)?;
    let mut tx = content.db.begin().await?;
    let mut post = lock_deleted(&mut tx, &request.get_ref().post_id, viewer).await?;
    let change = post.undelete(content.source.now());
    finish(content, tx, &post, change).await?;
    Ok(Response::new(post.into()))
}

/// The post, locked, deleted or not: its author and moderators may delete it twice, and bring it back.
async fn lock_deleted(tx: &mut Tx, post_id: &str, viewer: Viewer) -> Result<Post> {
    let post = tables::post::lock(tx, id(post_id, "postId")?).await?.ok_or(Error::Missing("post"))?;
    let mut guarded = post.guarded();
    // A deleted post is seen by nobody else, whatever state it had.
    guarded.published &= post.delete_time.is_none();
    PostRule::AuthorOrModerator.check(Some(viewer), guarded).map_err(|refusal| Error::refusal(refusal, "post"))?;
    Ok(post)
}

pub(super) async fn publish(
    content: &Content,
    request: Request<proto::PublishPostRequest>,
) -> Result<Response<proto::Post>> {
    let viewer = person(&request)?;
    let message = request.into_inner();
    let at = message.publish_at.map(Timestamp::try_from).transpose().in_field("publishAt")?;
    let mut tx = content.db.begin().await?;
    let mut post = lock(&mut tx, id(&message.post_id, "postId")?, PostRule::Author, viewer, &message.etag).await?;
    let change = post.publish(at, content.source.now())?;
    finish(content, tx, &post, change).await?;
    Ok(Response::new(post.into()))
}

pub(super) async fn unpublish(
    content: &Content,
    request: Request<proto::UnpublishPostRequest>,
) -> Result<Response<proto::Post>> {
    let viewer = person(&request)?;
    let message = request.into_inner();
    let mut tx = content.db.begin().await?;
    let mut post = lock(&mut tx, id(&message.post_id, "postId")?, PostRule::Author, viewer, &message.etag).await?;
    let change = post.unpublish(content.source.now());
    finish(content, tx, &post, change).await?;
    Ok(Response::new(post.into()))
}

/// Writes a change of state, and tells of it if there is something to tell.
pub(super) async fn finish(content: &Content, mut tx: Tx, post: &Post, change: Option<Change>) -> Result<()> {
    tables::post::update(&mut tx, post, None).await?;
    if let Some(change) = change {
        emit(&content.outbox, &mut tx, post, change).await?;
    }
    Ok(tx.commit().await?)
}
