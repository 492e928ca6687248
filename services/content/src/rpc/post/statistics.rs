//! Posts are liked and seen.

use ids::PostId;
use tonic::{Request, Response};

use super::super::{Content, id, person, proto, viewer};
use crate::error::{Error, Result};
use crate::permit::{PostRule, Viewer};
use crate::store as tables;
use crate::store::statistics::Statistics;
use crate::view::Full;

pub(super) async fn like(
    content: &Content,
    request: Request<proto::LikePostRequest>,
) -> Result<Response<proto::PostStatistics>> {
    let viewer = person(&request)?;
    let post = visible(content, &request.get_ref().post_id, Some(viewer)).await?;
    let mut tx = content.db.begin().await?;
    let statistics = tables::statistics::like(&mut tx, post, viewer.id, content.source.now()).await?;
    tx.commit().await?;
    Ok(Response::new(statistics.into()))
}

pub(super) async fn unlike(
    content: &Content,
    request: Request<proto::UnlikePostRequest>,
) -> Result<Response<proto::PostStatistics>> {
    let viewer = person(&request)?;
    let post = visible(content, &request.get_ref().post_id, Some(viewer)).await?;
    let mut tx = content.db.begin().await?;
    let statistics = tables::statistics::unlike(&mut tx, post, viewer.id).await?;
    tx.commit().await?;
    Ok(Response::new(statistics.into()))
}

pub(super) async fn record_view(content: &Content, request: Request<proto::RecordViewRequest>) -> Result<Response<()>> {
    let viewer = viewer(&request)?;
    let post = visible(content, &request.get_ref().post_id, viewer).await?;
    while let Err(Full) = content.views.record(post) {
        content.flush_views().await?;
    }
    Ok(Response::new(()))
}

pub(super) async fn get(
    content: &Content,
    request: Request<proto::GetPostStatisticsRequest>,
) -> Result<Response<proto::PostStatistics>> {
    let viewer = viewer(&request)?;
    let post = visible(content, &request.get_ref().post_id, viewer).await?;
    let statistics = tables::statistics::find(&mut content.db.read().await?, post).await?;
    Ok(Response::new(statistics.ok_or(Error::Missing("post"))?.into()))
}

/// The post, if the viewer may see it.
async fn visible(content: &Content, post_id: &str, viewer: Option<Viewer>) -> Result<PostId> {
    let id: PostId = id(post_id, "postId")?;
    let guarded = tables::post::guarded(&mut content.db.read().await?, id).await?.ok_or(Error::Missing("post"))?;
    PostRule::Visible.check(viewer, guarded).map_err(|refusal| Error::refusal(refusal, "post"))?;
    Ok(id)
}

impl From<Statistics> for proto::PostStatistics {
    fn from(statistics: Statistics) -> Self {
        Self { views: statistics.views, likes: statistics.likes }
    }
}
