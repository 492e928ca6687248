//! Real contracts, implemented just far enough to look at what the mesh hands to a handler.

use std::{
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use contracts::{
    auth::v1::{
        BatchGetProfilesRequest, BatchGetProfilesResponse, profile_service_client::ProfileServiceClient,
        profile_service_server::ProfileService,
    },
    content::v1::{self, Post, post_service_server::PostService, tag_service_server::TagService},
};
use futures_util::{Stream, StreamExt, stream};
use mesh::{Caller, Channel, deadline, on_behalf};
use tokio::sync::mpsc;
use tonic::{Request, Response, Status, Streaming};

/// A handler that gets this post's id hangs until it is dropped.
pub const HANGS: &str = "00000000-0000-7000-8000-000000000001";
/// A handler that gets this post's id panics.
pub const PANICS: &str = "00000000-0000-7000-8000-000000000002";
pub const POST: &str = "00000000-0000-7000-8000-000000000003";

/// What handlers saw.
#[derive(Debug, PartialEq)]
pub enum Seen {
    Begun { remaining: Option<Duration> },
    Dropped,
}

/// Sends [`Seen::Dropped`] when the work it is held by ends in any way.
struct Guard(mpsc::UnboundedSender<Seen>);

impl Drop for Guard {
    fn drop(&mut self) {
        let _ = self.0.send(Seen::Dropped);
    }
}

/// A request for somebody's profile.
pub fn anybody() -> BatchGetProfilesRequest {
    BatchGetProfilesRequest { user_ids: vec![POST.into()] }
}

/// auth's ProfileService.
pub struct Profiles {
    pub seen: mpsc::UnboundedSender<Seen>,
    /// Hangs instead of answering.
    pub hang: bool,
}

#[tonic::async_trait]
impl ProfileService for Profiles {
    async fn batch_get_profiles(
        &self,
        request: Request<BatchGetProfilesRequest>,
    ) -> Result<Response<BatchGetProfilesResponse>, Status> {
        let caller = Caller::of(&request)?;
        assert!(caller.user.is_none() && request.metadata().get("authorization").is_none());
        let _guard = Guard(self.seen.clone());
        let _ = self.seen.send(Seen::Begun { remaining: deadline::remaining() });
        if self.hang {
            std::future::pending::<()>().await;
        }
        Ok(Response::new(BatchGetProfilesResponse::default()))
    }
}

/// content's TagService.
#[derive(Default)]
pub struct Tags {
    pub calls: Arc<AtomicUsize>,
}

#[tonic::async_trait]
impl TagService for Tags {
    async fn list_tags(&self, _: Request<v1::ListTagsRequest>) -> Result<Response<v1::ListTagsResponse>, Status> {
        self.calls.fetch_add(1, Ordering::SeqCst);
        Ok(Response::new(v1::ListTagsResponse::default()))
    }

    async fn rename_tag(&self, request: Request<v1::RenameTagRequest>) -> Result<Response<v1::Tag>, Status> {
        Caller::of(&request)?.user()?;
        Ok(Response::new(v1::Tag::default()))
    }

    async fn merge_tags(&self, _: Request<v1::MergeTagsRequest>) -> Result<Response<v1::Tag>, Status> {
        Ok(Response::new(v1::Tag::default()))
    }
}

/// What a replica does with a call.
#[derive(Clone)]
pub enum Behaviour {
    Serves,
    /// Answers after so long.
    Takes(Duration),
    /// Answers nothing but this.
    Refuses(Status),
    /// Serves two calls of three.
    Stumbles(Status),
}

/// One of several that serve content's tags, as the test wishes.
#[derive(Clone)]
pub struct Replica {
    behaviour: Arc<Mutex<Behaviour>>,
    calls: Arc<AtomicUsize>,
    renamed: Arc<Mutex<Vec<String>>>,
}

impl Replica {
    pub fn new(behaviour: Behaviour) -> Self {
        Self { behaviour: Arc::new(Mutex::new(behaviour)), calls: Arc::default(), renamed: Arc::default() }
    }

    pub fn behave(&self, behaviour: Behaviour) {
        *self.behaviour.lock().unwrap() = behaviour;
    }

    /// How many calls it has got.
    pub fn calls(&self) -> usize {
        self.calls.load(Ordering::SeqCst)
    }

    /// The names of the tags that it has renamed, each as often as it has.
    pub fn renamed(&self) -> Vec<String> {
        self.renamed.lock().unwrap().clone()
    }

    async fn handle(&self) -> Result<(), Status> {
        let call = self.calls.fetch_add(1, Ordering::SeqCst);
        let behaviour = self.behaviour.lock().unwrap().clone();
        match behaviour {
            Behaviour::Refuses(status) => Err(status),
            Behaviour::Stumbles(status) if call.is_multiple_of(3) => Err(status),
            Behaviour::Takes(time) => {
                tokio::time::sleep(time).await;
                Ok(())
            }
            Behaviour::Serves | Behaviour::Stumbles(_) => Ok(()),
        }
    }
}

#[tonic::async_trait]
impl TagService for Replica {
    async fn list_tags(&self, _: Request<v1::ListTagsRequest>) -> Result<Response<v1::ListTagsResponse>, Status> {
        self.handle().await?;
        Ok(Response::new(v1::ListTagsResponse::default()))
    }

    async fn rename_tag(&self, request: Request<v1::RenameTagRequest>) -> Result<Response<v1::Tag>, Status> {
        self.handle().await?;
        self.renamed.lock().unwrap().push(request.into_inner().tag.unwrap().name);
        Ok(Response::new(v1::Tag::default()))
    }

    async fn merge_tags(&self, _: Request<v1::MergeTagsRequest>) -> Result<Response<v1::Tag>, Status> {
        Ok(Response::new(v1::Tag::default()))
    }
}

/// content's PostService.
pub struct Posts {
    pub seen: mpsc::UnboundedSender<Seen>,
    /// auth, for the calls that go on.
    pub auth: Option<Channel>,
}

impl Posts {
    pub fn new() -> (Self, mpsc::UnboundedReceiver<Seen>) {
        let (seen, events) = mpsc::unbounded_channel();
        (Self { seen, auth: None }, events)
    }
}

type Rows<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// Implements PostService by the given methods; the others are not for these tests.
macro_rules! post_service {
    ({ $($own:tt)* } $($name:ident($request:ident) -> $answer:ty;)*) => {
        #[tonic::async_trait]
        impl PostService for Posts {
            $($own)*
            $(async fn $name(&self, _: Request<v1::$request>) -> Result<Response<$answer>, Status> {
                Err(Status::unimplemented("not in this test"))
            })*
        }
    };
}

post_service! {
    {
        type ExportPostsStream = Rows<v1::ExportPostsResponse>;

        /// Answers who asked: the user as author, the client's address as byline.
        async fn get_post(&self, request: Request<v1::GetPostRequest>) -> Result<Response<Post>, Status> {
            let caller = Caller::of(&request)?;
            let byline = request.metadata().get("x-client-address").and_then(|value| value.to_str().ok());
            let mut post = Post {
                id: request.get_ref().post_id.clone(),
                author_id: caller.user.map(|user| user.id.to_string()).unwrap_or_default(),
                byline: byline.unwrap_or_default().to_owned(),
                ..Post::default()
            };
            let _guard = Guard(self.seen.clone());
            let _ = self.seen.send(Seen::Begun { remaining: deadline::remaining() });
            match post.id.as_str() {
                HANGS => std::future::pending().await,
                PANICS => panic!("as the test asks for"),
                _ => {}
            }
            post.title = caller.workload.to_string();
            Ok(Response::new(post))
        }

        async fn create_post(&self, request: Request<v1::CreatePostRequest>) -> Result<Response<Post>, Status> {
            let caller = Caller::of(&request)?;
            Ok(Response::new(Post { author_id: caller.user()?.id.to_string(), ..Post::default() }))
        }

        /// Asks auth first.
        async fn get_post_statistics(
            &self,
            request: Request<v1::GetPostStatisticsRequest>,
        ) -> Result<Response<v1::PostStatistics>, Status> {
            let caller = Caller::of(&request)?;
            let auth = self.auth.clone().expect("this test needs auth");
            let ask = on_behalf(Request::new(anybody()), &caller);
            ProfileServiceClient::new(auth).batch_get_profiles(ask).await?;
            Ok(Response::new(v1::PostStatistics::default()))
        }

        /// One post, and then nothing more, for ever.
        async fn export_posts(
            &self,
            _: Request<v1::ExportPostsRequest>,
        ) -> Result<Response<Self::ExportPostsStream>, Status> {
            let guard = Guard(self.seen.clone());
            let first = stream::once(async { Ok(v1::ExportPostsResponse::default()) });
            let endless = stream::once(async move {
                let _guard = guard;
                std::future::pending().await
            });
            Ok(Response::new(first.chain(endless).boxed()))
        }

        async fn import_posts(
            &self,
            request: Request<Streaming<v1::ImportPostsRequest>>,
        ) -> Result<Response<v1::ImportPostsResponse>, Status> {
            let mut posts = request.into_inner();
            let mut imported = 0;
            while posts.message().await?.is_some() {
                imported += 1;
            }
            Ok(Response::new(v1::ImportPostsResponse { imported, ..v1::ImportPostsResponse::default() }))
        }
    }
    look_up_post(LookUpPostRequest) -> Post;
    list_posts(ListPostsRequest) -> v1::ListPostsResponse;
    update_post(UpdatePostRequest) -> Post;
    delete_post(DeletePostRequest) -> ();
    undelete_post(UndeletePostRequest) -> Post;
    publish_post(PublishPostRequest) -> Post;
    unpublish_post(UnpublishPostRequest) -> Post;
    list_post_versions(ListPostVersionsRequest) -> v1::ListPostVersionsResponse;
    get_post_version(GetPostVersionRequest) -> v1::PostVersion;
    diff_post_versions(DiffPostVersionsRequest) -> v1::DiffPostVersionsResponse;
    restore_post_version(RestorePostVersionRequest) -> Post;
    search_posts(SearchPostsRequest) -> v1::SearchPostsResponse;
    like_post(LikePostRequest) -> v1::PostStatistics;
    unlike_post(UnlikePostRequest) -> v1::PostStatistics;
    record_view(RecordViewRequest) -> ();
}
