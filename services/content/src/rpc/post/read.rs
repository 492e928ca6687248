//! Posts are read, looked up and listed.

use ids::PostId;
use mesh::Caller;
use proto::look_up_post_request::By;
use store::page;
use tonic::metadata::MetadataValue;
use tonic::{Request, Response};

use super::super::{Content, PAGE_BUDGET, id, optional_id, proto, viewer};
use super::permitted;
use crate::alias::Alias;
use crate::error::{Error, InField, Result};
use crate::permit::{PostRule, Viewer};
use crate::post::State;
use crate::slug::Slug;
use crate::store as tables;
use crate::store::listing::{Cursor, Filter, Order, Time};
use crate::tag;
use contracts::Role;

pub(super) async fn get(content: &Content, request: Request<proto::GetPostRequest>) -> Result<Response<proto::Post>> {
    let viewer = viewer(&request)?;
    let id: PostId = id(&request.get_ref().post_id, "postId")?;
    let post = tables::post::find(&mut content.db.read().await?, id).await?;
    Ok(Response::new(permitted(post, PostRule::Visible, viewer)?.into()))
}

pub(super) async fn look_up(
    content: &Content,
    request: Request<proto::LookUpPostRequest>,
) -> Result<Response<proto::Post>> {
    let viewer = viewer(&request)?;
    let mut conn = content.db.read().await?;
    let (id, slug) = match request.into_inner().by {
        Some(By::Slug(slug)) => match Slug::parse(&slug) {
            Ok(slug) => (tables::slug::find(&mut conn, &slug).await?, Some(slug)),
            Err(_) => (None, None),
        },
        Some(By::Path(path)) => match Alias::parse(&path) {
            Ok(alias) => (tables::alias::find(&mut conn, &alias).await?, None),
            Err(_) => (None, None),
        },
        None => return Err(Error::field("slug", "either a slug or a path is needed")),
    };
    let post = match id {
        Some(id) => tables::post::find(&mut conn, id).await?,
        None => None,
    };
    let post = permitted(post, PostRule::Visible, viewer)?;
    let current = slug.is_some_and(|slug| slug == post.slug);
    let location = MetadataValue::try_from(format!("/api/v1/posts/{}", post.id));
    let mut response = Response::new(proto::Post::from(post));
    if !current {
        let location = location.map_err(|error| Error::Defect("an id does not fit into a header", error.into()))?;
        response.metadata_mut().insert("x-http-code", MetadataValue::from_static("301"));
        response.metadata_mut().insert("x-http-location", location);
    }
    Ok(response)
}

pub(super) async fn list(
    content: &Content,
    request: Request<proto::ListPostsRequest>,
) -> Result<Response<proto::ListPostsResponse>> {
    let viewer = viewer(&request)?;
    let caller = Caller::of(&request)?;
    let message = request.into_inner();
    let mut filter = filter(&message, viewer)?;
    if !filter.state.is_published() && viewer.is_none_or(|viewer| viewer.role < Role::Moderator) {
        // Drafts and scheduled posts: one's own.
        let own = caller.user()?.id;
        if filter.author.is_some_and(|author| author != own) {
            return Ok(Response::new(proto::ListPostsResponse::default()));
        }
        filter.author = Some(own);
    }
    // Whoever changes the question, or asks as another, starts anew.
    let scope = format!("ListPosts {filter:?}");
    let after: Option<Cursor> = content.tokens.read(&scope, &message.page_token)?;
    let size = i64::try_from(page::size(message.page_size)).unwrap_or(i64::MAX);
    let page = tables::listing::page(&mut content.db.read().await?, &filter, after, size, PAGE_BUDGET).await?;
    let next = page
        .posts
        .last()
        .filter(|_| page.more)
        .map(|last| content.tokens.issue(&scope, &Cursor::behind(last, filter.order)));
    Ok(Response::new(proto::ListPostsResponse {
        posts: page.posts.into_iter().map(Into::into).collect(),
        next_page_token: next.unwrap_or_default(),
    }))
}

fn filter(message: &proto::ListPostsRequest, viewer: Option<Viewer>) -> Result<Filter> {
    let epoch = ids::Timestamp::EPOCH;
    let state = match message.state() {
        proto::post::State::Draft => State::Draft,
        proto::post::State::Scheduled => State::Scheduled(epoch),
        proto::post::State::Published | proto::post::State::Unspecified => State::Published(epoch),
    };
    let tag = Some(&message.tag).filter(|tag| !tag.is_empty());
    Ok(Filter {
        state,
        suspended: viewer.is_some_and(|viewer| viewer.role >= Role::Moderator),
        category: Some(message.category.clone()).filter(|category| !category.is_empty()),
        tag: tag.map(|tag| tag::Name::parse(tag).in_field("tag")).transpose()?.map(|tag| tag.key()),
        author: optional_id(&message.author, "author")?,
        order: order(&message.order_by, state)?,
    })
}

fn order(order_by: &str, state: State) -> Result<Order> {
    let mut words = order_by.split_whitespace();
    let by = match words.next() {
        None if state.is_published() => return Ok(Order { by: Time::Publish, descending: true }),
        None => return Ok(Order { by: Time::Create, descending: true }),
        Some(name) => [Time::Publish, Time::Create, Time::Update]
            .into_iter()
            .find(|by| [by.name(), by.json_name()].contains(&name)),
    };
    if (by, state) == (Some(Time::Publish), State::Draft) {
        return Err(Error::field("orderBy", "drafts have no publish_time"));
    }
    let descending = match words.next() {
        None | Some("asc") => false,
        Some("desc") => true,
        Some(other) => return Err(Error::field("orderBy", format!("`{other}` is neither asc nor desc"))),
    };
    match (by, words.next()) {
        (Some(by), None) => Ok(Order { by, descending }),
        _ => Err(Error::field(
            "orderBy",
            "is not one of publish_time, create_time, update_time, each with asc or desc behind it",
        )),
    }
}
