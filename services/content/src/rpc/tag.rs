//! `guildhall.content.v1.TagService`.

use std::sync::Arc;

use contracts::content::v1::{TagMerged, TagRenamed};
use ids::TagId;
use proto::tag_service_server::TagService;
use store::page;
use tonic::{Request, Response, Status};

use super::{Content, id, proto};
use crate::error::{Error, InField, Result};
use crate::store::tag::Cursor;
use crate::tag::{Name, Tag};
use crate::{mask, store as tables};

/// Serves tags.
pub struct Tags(pub Arc<Content>);

#[tonic::async_trait]
impl TagService for Tags {
    async fn list_tags(
        &self,
        request: Request<proto::ListTagsRequest>,
    ) -> Result<Response<proto::ListTagsResponse>, Status> {
        Ok(list(&self.0, &request.into_inner()).await?)
    }

    async fn rename_tag(&self, request: Request<proto::RenameTagRequest>) -> Result<Response<proto::Tag>, Status> {
        Ok(rename(&self.0, request.into_inner()).await?)
    }

    async fn merge_tags(&self, request: Request<proto::MergeTagsRequest>) -> Result<Response<proto::Tag>, Status> {
        Ok(merge(&self.0, &request.into_inner()).await?)
    }
}

async fn list(content: &Content, message: &proto::ListTagsRequest) -> Result<Response<proto::ListTagsResponse>> {
    const SCOPE: &str = "ListTags";
    let after: Option<Cursor> = content.tokens.read(SCOPE, &message.page_token)?;
    let size = page::size(message.page_size);
    let limit = i64::try_from(size + 1).unwrap_or(i64::MAX);
    let mut tags = tables::tag::list(&mut content.db.read().await?, after.as_ref(), limit).await?;
    let more = tags.len() > size;
    tags.truncate(size);
    let next = tags.last().filter(|_| more).map(|last| content.tokens.issue(SCOPE, &Cursor::behind(last)));
    Ok(Response::new(proto::ListTagsResponse {
        tags: tags.into_iter().map(Into::into).collect(),
        next_page_token: next.unwrap_or_default(),
    }))
}

async fn rename(content: &Content, message: proto::RenameTagRequest) -> Result<Response<proto::Tag>> {
    let id: TagId = id(&message.tag_id, "tagId")?;
    let given = message.tag.unwrap_or_default();
    let fields = mask::fields(message.update_mask, &["name"], |_| !given.name.is_empty())?;
    let name = fields.contains("name").then(|| Name::parse(&given.name).in_field("tag.name")).transpose()?;

    let mut tx = content.db.begin().await?;
    tables::tag::lock(&mut tx, id, None).await?;
    let mut tag = tables::tag::find(&mut tx, id).await?.ok_or(Error::Missing("tag"))?;
    tag.revision.check(&given.etag)?;
    if let Some(name) = name.filter(|name| *name != tag.name) {
        tag.name = name;
        tag.revision.advance(content.source.now());
        tables::tag::save(&mut tx, &tag).await?;
        content.outbox.append(&mut tx, tag.revision.number, &TagRenamed { tag_id: tag.id.to_string() }).await?;
        tx.commit().await?;
    }
    Ok(Response::new(tag.into()))
}

async fn merge(content: &Content, message: &proto::MergeTagsRequest) -> Result<Response<proto::Tag>> {
    let from: TagId = id(&message.tag_id, "tagId")?;
    let to: TagId = id(&message.target_id, "targetId")?;
    if from == to {
        return Err(Error::field("targetId", "is the tag itself"));
    }
    let mut tx = content.db.begin().await?;
    tables::tag::lock(&mut tx, from, Some(to)).await?;
    let merged = tables::tag::find(&mut tx, from).await?.ok_or(Error::Missing("tag"))?;
    let mut target =
        tables::tag::find(&mut tx, to).await?.ok_or_else(|| Error::field("targetId", "there is no such tag"))?;
    target.revision.advance(content.source.now());
    let target = tables::tag::merge(&mut tx, from, &target).await?;
    let event = TagMerged { tag_id: from.to_string(), target_id: to.to_string() };
    content.outbox.append(&mut tx, merged.revision.number + 1, &event).await?;
    tx.commit().await?;
    Ok(Response::new(target.into()))
}

impl From<Tag> for proto::Tag {
    fn from(tag: Tag) -> Self {
        Self {
            id: tag.id.to_string(),
            create_time: Some(tag.revision.create_time.into()),
            update_time: Some(tag.revision.update_time.into()),
            etag: tag.revision.etag(),
            name: tag.name.to_string(),
            post_count: i32::try_from(tag.posts).unwrap_or(i32::MAX),
        }
    }
}
