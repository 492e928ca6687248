//! `guildhall.content.v1.PostService`.

mod read;
mod search;
mod statistics;
mod transfer;
mod versions;
mod write;

use std::sync::Arc;

use proto::post_service_server::PostService;
use tonic::{Request, Response, Status, Streaming};

use super::{Content, proto};
use crate::error::{Error, Result};
use crate::language::Language;
use crate::permit::{PostRule, Viewer};
use crate::post::{Post, State};

/// Serves posts.
pub struct Posts(pub Arc<Content>);

#[tonic::async_trait]
impl PostService for Posts {
    async fn create_post(&self, request: Request<proto::CreatePostRequest>) -> Result<Response<proto::Post>, Status> {
        Ok(write::create(&self.0, request).await?)
    }

    async fn get_post(&self, request: Request<proto::GetPostRequest>) -> Result<Response<proto::Post>, Status> {
        Ok(read::get(&self.0, request).await?)
    }

    async fn look_up_post(&self, request: Request<proto::LookUpPostRequest>) -> Result<Response<proto::Post>, Status> {
        Ok(read::look_up(&self.0, request).await?)
    }

    async fn list_posts(
        &self,
        request: Request<proto::ListPostsRequest>,
    ) -> Result<Response<proto::ListPostsResponse>, Status> {
        Ok(read::list(&self.0, request).await?)
    }

    async fn update_post(&self, request: Request<proto::UpdatePostRequest>) -> Result<Response<proto::Post>, Status> {
        Ok(write::update(&self.0, request).await?)
    }

    async fn delete_post(&self, request: Request<proto::DeletePostRequest>) -> Result<Response<()>, Status> {
        Ok(write::delete(&self.0, request).await?)
    }

    async fn undelete_post(
        &self,
        request: Request<proto::UndeletePostRequest>,
    ) -> Result<Response<proto::Post>, Status> {
        Ok(write::undelete(&self.0, request).await?)
    }

    async fn publish_post(&self, request: Request<proto::PublishPostRequest>) -> Result<Response<proto::Post>, Status> {
        Ok(write::publish(&self.0, request).await?)
    }

    async fn unpublish_post(
        &self,
        request: Request<proto::UnpublishPostRequest>,
    ) -> Result<Response<proto::Post>, Status> {
        Ok(write::unpublish(&self.0, request).await?)
    }

    async fn list_post_versions(
        &self,
        request: Request<proto::ListPostVersionsRequest>,
    ) -> Result<Response<proto::ListPostVersionsResponse>, Status> {
        Ok(versions::list(&self.0, request).await?)
    }

    async fn get_post_version(
        &self,
        request: Request<proto::GetPostVersionRequest>,
    ) -> Result<Response<proto::PostVersion>, Status> {
        Ok(versions::get(&self.0, request).await?)
    }

    async fn diff_post_versions(
        &self,
        request: Request<proto::DiffPostVersionsRequest>,
    ) -> Result<Response<proto::DiffPostVersionsResponse>, Status> {
        Ok(versions::diff(&self.0, request).await?)
    }

    async fn restore_post_version(
        &self,
        request: Request<proto::RestorePostVersionRequest>,
    ) -> Result<Response<proto::Post>, Status> {
        Ok(versions::restore(&self.0, request).await?)
    }

    async fn search_posts(
        &self,
        request: Request<proto::SearchPostsRequest>,
    ) -> Result<Response<proto::SearchPostsResponse>, Status> {
        Ok(search::search(&self.0, request).await?)
    }

    async fn like_post(
        &self,
        request: Request<proto::LikePostRequest>,
    ) -> Result<Response<proto::PostStatistics>, Status> {
        Ok(statistics::like(&self.0, request).await?)
    }

    async fn unlike_post(
        &self,
        request: Request<proto::UnlikePostRequest>,
    ) -> Result<Response<proto::PostStatistics>, Status> {
        Ok(statistics::unlike(&self.0, request).await?)
    }

    async fn record_view(&self, request: Request<proto::RecordViewRequest>) -> Result<Response<()>, Status> {
        Ok(statistics::record_view(&self.0, request).await?)
    }

    async fn get_post_statistics(
        &self,
        request: Request<proto::GetPostStatisticsRequest>,
    ) -> Result<Response<proto::PostStatistics>, Status> {
        Ok(statistics::get(&self.0, request).await?)
    }

    async fn import_posts(
        &self,
        request: Request<Streaming<proto::ImportPostsRequest>>,
    ) -> Result<Response<proto::ImportPostsResponse>, Status> {
        Ok(transfer::import(&self.0, request).await?)
    }

    type ExportPostsStream = transfer::Export;

    async fn export_posts(
        &self,
        _request: Request<proto::ExportPostsRequest>,
    ) -> Result<Response<Self::ExportPostsStream>, Status> {
        Ok(Response::new(transfer::export(Arc::clone(&self.0))))
    }
}

/// The post, if it is there, not deleted, and the rule lets the viewer pass.
fn permitted(post: Option<Post>, rule: PostRule, viewer: Option<Viewer>) -> Result<Post> {
    let post = post.filter(|post| post.delete_time.is_none()).ok_or(Error::Missing("post"))?;
    rule.check(viewer, post.guarded()).map_err(|refusal| Error::refusal(refusal, "post"))?;
    Ok(post)
}

impl From<Post> for proto::Post {
    fn from(post: Post) -> Self {
        Self {
            id: post.id.to_string(),
            create_time: Some(post.create_time.into()),
            update_time: Some(post.update_time.into()),
            etag: post.etag(),
            author_id: post.author.id.to_string(),
            author: post.author.display_name.unwrap_or_default(),
            byline: post.body.byline,
            title: post.body.title,
            slug: post.slug.to_string(),
            markdown: post.body.markdown,
            html: post.html,
            state: proto::post::State::from(post.state).into(),
            publish_time: post.state.publish_time().map(Into::into),
            category_id: post.body.category.map(|id| id.to_string()).unwrap_or_default(),
            tags: post.body.tags.iter().map(ToString::to_string).collect(),
            language: post.body.language.as_ref().map_or("", Language::as_str).to_owned(),
            version: post.version,
            aliases: post.aliases.iter().map(ToString::to_string).collect(),
        }
    }
}

impl From<State> for proto::post::State {
    fn from(state: State) -> Self {
        match state {
            State::Draft => Self::Draft,
            State::Scheduled(_) => Self::Scheduled,
            State::Published(_) => Self::Published,
        }
    }
}
