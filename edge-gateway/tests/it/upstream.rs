//! The services behind the edge: they do what the request says, and remember what they saw.

use std::{
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use axum::{
    Router,
    body::Bytes,
    routing::{get, post},
};
use chassis::Builder;
use contracts::{
    Event,
    auth::v1::{
        account_service_server::{AccountService, AccountServiceServer},
        *,
    },
    content::v1::{
        feed_service_server::{FeedService, FeedServiceServer},
        post_service_server::{PostService, PostServiceServer},
        *,
    },
    google::api::HttpBody,
};
use events::{Outbox, Relay};
use futures_util::{Stream, StreamExt, stream};
use http::HeaderMap;
use mesh::Caller;
use status::{Problem, Reason};
use testkit::{Backend, Mesh, Service, Signer, TestDb, server_settings};
use tokio::sync::watch;
use tonic::{Request, Response, Status};

pub const POST: &str = "01980000-0000-7000-8000-000000000002";

pub struct Upstream {
    state: State,
    pub content: Service,
    _auth: Service,
    outbox: Outbox,
    db: TestDb,
}

/// One call as the service saw it.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    pub headers: HeaderMap,
    pub left: Option<Duration>,
    pub body: Bytes,
}

/// What an export does.
#[derive(Clone, Copy, Debug, Default)]
pub enum Export {
    #[default]
    Two,
    /// One post, and then a failure.
    FailsAfterOne,
    FailsAtOnce,
    /// One post, and then nothing for ever.
    Hangs,
    /// Large posts for as long as somebody takes them.
    Endless,
}

#[derive(Clone, Default)]
struct State {
    seen: Arc<Mutex<Vec<Seen>>>,
    export: Arc<Mutex<Export>>,
    running: Arc<watch::Sender<usize>>,
}

impl Upstream {
    /// The last call.
    pub fn last(&self) -> Seen {
        lock(&self.state.seen).last().cloned().expect("the service was called")
    }

    pub fn calls(&self) -> usize {
        lock(&self.state.seen).len()
    }

    pub fn export(&self, export: Export) {
        *lock(&self.state.export) = export;
    }

    /// Publishes an event of auth.
    pub async fn publish<E: Event>(&self, version: i64, event: &E) {
        let mut tx = self.db.begin().await.expect("a transaction");
        self.outbox.append(&mut tx, version, event).await.expect("the event is appended");
        tx.commit().await.expect("the event is committed");
    }

    /// Waits until exactly so many calls that hang are under way.
    pub async fn running(&self, calls: usize) {
        let mut running = self.state.running.subscribe();
        let reached = running.wait_for(|running| *running == calls);
        tokio::time::timeout(crate::harness::SOON, reached).await.expect("within the time").expect("the sender lives");
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

pub async fn serve(mesh: &Mesh) -> Upstream {
    let state = State::default();
    let content = Builder::new("content", server_settings(), &mesh.platform("content").await)
        .verifier(mesh.verifier())
        .grpc(PostServiceServer::new(state.clone()))
        .grpc(FeedServiceServer::new(state.clone()))
        .bind()
        .await
        .expect("content binds");
    let jwks = || async { ([("content-type", "application/jwk-set+json")], Signer::shared().jwks()) };
    let token = {
        let state = state.clone();
        move |headers: HeaderMap, body: Bytes| async move {
            lock(&state.seen).push(Seen { headers, body, ..Seen::default() });
            (
                [("content-type", "application/json"), ("x-http-code", "500"), ("connection", "x-hop"), ("x-hop", "1")],
                r#"{"access_token":"a"}"#,
            )
        }
    };
    let db = mesh.database(Backend::Sqlite, &[]).await;
    let platform = mesh.platform("auth").await;
    let auth = Builder::new("auth", server_settings(), &platform)
        .verifier(mesh.verifier())
        .database(db.clone())
        .relay(Relay::new(db.clone(), "auth", platform.bus.clone(), platform.source.clone()))
        .grpc(AccountServiceServer::new(state.clone()))
        .http(Router::new().route("/oauth2/jwks", get(jwks)).route("/oauth2/token", post(token)))
        .bind()
        .await
        .expect("auth binds");
    let outbox = Outbox::new("auth", platform.source);
    // auth first: what it announces opens the gates of the others.
    let auth = mesh.serve(auth).await;
    Upstream { state, content: mesh.serve(content).await, _auth: auth, outbox, db }
}

impl State {
    fn see<T>(&self, request: &Request<T>) -> Option<String> {
        let user = Caller::of(request).ok().and_then(|caller| caller.user).map(|user| user.id.to_string());
        let headers = request.metadata().clone().into_headers();
        lock(&self.seen).push(Seen { headers, left: mesh::deadline::remaining(), body: Bytes::new() });
        user
    }

    fn run(&self) -> Running {
        self.running.send_modify(|running| *running += 1);
        Running(Arc::clone(&self.running))
    }

    /// Never ends; whoever waits for it is counted until it is dropped.
    async fn hang(&self) {
        let _running = self.run();
        std::future::pending::<()>().await;
    }
}

/// One call under way.
struct Running(Arc<watch::Sender<usize>>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.send_modify(|running| *running -= 1);
    }
}

/// RPCs that no test here calls.
macro_rules! unused {
    ($($name:ident($request:ty) -> $answer:ty;)*) => {$(
        fn $name<'l, 'f>(&'l self, _: Request<$request>) -> Pin<Box<dyn Future<Output = Result<Response<$answer>, Status>> + Send + 'f>>
        where
            'l: 'f,
            Self: 'f,
        {
            Box::pin(async { Err(Problem::new(Reason::NotFound).into()) })
        }
    )*};
}

fn a_post() -> Post {
    Post {
        id: POST.to_owned(),
        etag: "v1".to_owned(),
        title: "A post".to_owned(),
        markdown: "word ".repeat(500),
        ..Post::default()
    }
}

#[tonic::async_trait]
impl PostService for State {
    async fn create_post(&self, request: Request<CreatePostRequest>) -> Result<Response<Post>, Status> {
        let author_id = self.see(&request).unwrap_or_default();
        let CreatePostRequest { title, markdown, tags, request_id, .. } = request.into_inner();
        match title.as_str() {
            "hang" => self.hang().await,
            "internal" => {
                return Err(Problem::new(Reason::Internal).because("password of the database: hunter2").into());
            }
            "foreign internal" => return Err(Status::internal("hunter2 at /var/lib")),
            "unknown detail" => {
                return Err(Status::with_details(
                    tonic::Code::NotFound,
                    "gone",
                    Bytes::from_static(b"\x08\x05\x1a\x10\x0a\x0eexample.org/Odd"),
                ));
            }
            "unknown code" => return Err(Status::unknown("hunter2")),
            "taken" => return Err(Problem::new(Reason::SlugTaken).into()),
            _ => {}
        }
        Ok(Response::new(Post { title, markdown, tags, author_id, slug: request_id, ..a_post() }))
    }

    async fn get_post(&self, request: Request<GetPostRequest>) -> Result<Response<Post>, Status> {
        self.see(&request);
        Ok(Response::new(Post { id: request.into_inner().post_id, ..a_post() }))
    }

    async fn look_up_post(&self, request: Request<LookUpPostRequest>) -> Result<Response<Post>, Status> {
        self.see(&request);
        let code = match request.get_ref().by {
            Some(look_up_post_request::By::Slug(_)) => "301",
            _ => "503",
        };
        let mut response = Response::new(a_post());
        for (name, value) in [
            ("x-http-code", code),
            ("x-http-location", "/api/v1/posts/1"),
            ("x-http-set-cookie", "a=b"),
            ("x-internal", "1"),
        ] {
            response.metadata_mut().insert(name, value.parse().expect("ASCII"));
        }
        Ok(response)
    }

    async fn list_posts(&self, request: Request<ListPostsRequest>) -> Result<Response<ListPostsResponse>, Status> {
        self.see(&request);
        let posts = match request.get_ref().tag.as_str() {
            "large" => vec![Post { markdown: "a".repeat(500_000), ..a_post() }; 6],
            _ => vec![a_post()],
        };
        Ok(Response::new(ListPostsResponse { posts, next_page_token: request.into_inner().tag }))
    }

    async fn update_post(&self, request: Request<UpdatePostRequest>) -> Result<Response<Post>, Status> {
        self.see(&request);
        let UpdatePostRequest { post, update_mask, .. } = request.into_inner();
        let post = post.unwrap_or_default();
        if !post.etag.is_empty() && post.etag != "v1" {
            return Err(Problem::new(Reason::EtagMismatch).into());
        }
        Ok(Response::new(Post { etag: "v2".to_owned(), tags: update_mask.unwrap_or_default().paths, ..post }))
    }

    async fn import_posts(
        &self,
        request: Request<tonic::Streaming<ImportPostsRequest>>,
    ) -> Result<Response<ImportPostsResponse>, Status> {
        self.see(&request);
        let mut posts = request.into_inner();
        let mut imported = 0;
        while posts.next().await.transpose()?.is_some() {
            imported += 1;
        }
        Ok(Response::new(ImportPostsResponse { imported, ..ImportPostsResponse::default() }))
    }

    type ExportPostsStream = Pin<Box<dyn Stream<Item = Result<ExportPostsResponse, Status>> + Send>>;

    async fn export_posts(
        &self,
        request: Request<ExportPostsRequest>,
    ) -> Result<Response<Self::ExportPostsStream>, Status> {
        self.see(&request);
        let one = || {
            Ok(ExportPostsResponse { post: Some(a_post()), category: "Games".to_owned(), source_id: "1".to_owned() })
        };
        let failure = || Err(Problem::new(Reason::Internal).because("hunter2").into());
        let export = *lock(&self.export);
        let state = self.clone();
        Ok(Response::new(match export {
            Export::Two => stream::iter([one(), one()]).boxed(),
            Export::FailsAtOnce => stream::iter([failure()]).boxed(),
            Export::FailsAfterOne => stream::iter([one(), failure()]).boxed(),
            Export::Endless => {
                let running = self.run();
                let large = Post { markdown: "a".repeat(500_000), ..a_post() };
                stream::repeat_with(move || {
                    let _ = &running;
                    Ok(ExportPostsResponse { post: Some(large.clone()), ..ExportPostsResponse::default() })
                })
                .boxed()
            }
            Export::Hangs => stream::iter([one()])
                .chain(stream::once(async move {
                    state.hang().await;
                    Err(Status::internal("never"))
                }))
                .boxed(),
        }))
    }

    unused! {
        delete_post(DeletePostRequest) -> ();
        undelete_post(UndeletePostRequest) -> Post;
        publish_post(PublishPostRequest) -> Post;
        unpublish_post(UnpublishPostRequest) -> Post;
        list_post_versions(ListPostVersionsRequest) -> ListPostVersionsResponse;
        get_post_version(GetPostVersionRequest) -> PostVersion;
        diff_post_versions(DiffPostVersionsRequest) -> DiffPostVersionsResponse;
        restore_post_version(RestorePostVersionRequest) -> Post;
        search_posts(SearchPostsRequest) -> SearchPostsResponse;
        like_post(LikePostRequest) -> PostStatistics;
        unlike_post(UnlikePostRequest) -> PostStatistics;
        record_view(RecordViewRequest) -> ();
        get_post_statistics(GetPostStatisticsRequest) -> PostStatistics;
    }
}

#[tonic::async_trait]
impl FeedService for State {
    async fn get_atom_feed(&self, request: Request<GetAtomFeedRequest>) -> Result<Response<HttpBody>, Status> {
        self.see(&request);
        let data = b"<feed/>".to_vec();
        Ok(Response::new(HttpBody {
            content_type: "application/atom+xml".to_owned(),
            data: data.into(),
            extensions: vec![],
        }))
    }

    unused! {
        get_rss_feed(GetRssFeedRequest) -> HttpBody;
        get_sitemap(GetSitemapRequest) -> HttpBody;
    }
}

#[tonic::async_trait]
impl AccountService for State {
    async fn login(&self, request: Request<LoginRequest>) -> Result<Response<LoginResponse>, Status> {
        self.see(&request);
        Err(Problem::new(Reason::CredentialsInvalid).into())
    }

    unused! {
        register(RegisterRequest) -> ();
        verify_email(VerifyEmailRequest) -> ();
        request_password_reset(RequestPasswordResetRequest) -> ();
        reset_password(ResetPasswordRequest) -> ();
        get_me(GetMeRequest) -> User;
        update_me(UpdateMeRequest) -> User;
        get_user(GetUserRequest) -> Profile;
        list_users(ListUsersRequest) -> ListUsersResponse;
        get_settings(GetSettingsRequest) -> Settings;
        update_settings(UpdateSettingsRequest) -> Settings;
        list_sessions(ListSessionsRequest) -> ListSessionsResponse;
        revoke_session(RevokeSessionRequest) -> ();
        set_roles(SetRolesRequest) -> User;
        set_tier(SetTierRequest) -> User;
        suspend(SuspendRequest) -> User;
        reinstate(ReinstateRequest) -> User;
    }
}
