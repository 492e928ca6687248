use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use contracts::content::v1::{
    ExportPostsRequest, ListTagsRequest, post_service_client::PostServiceClient,
    post_service_server::PostServiceServer, tag_service_client::TagServiceClient, tag_service_server::TagServiceServer,
};
use futures_util::{StreamExt, stream};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use hyper::{server::conn::http2, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use mesh::{Identity, Settings};
use spiffe::X509Source;
use spiffe_rustls::{LocalOnly, mtls_server};
use tokio::{net::TcpListener, task::JoinSet};
use tokio_rustls::TlsAcceptor;
use tonic::body::Body;
use tower::ServiceExt;

use crate::{
    services::{Posts, Tags},
    world::{Running, World, soon, with_token},
};

/// Calls over ever new connections from several clients until it is told to stop: how many, and what went wrong.
struct Load {
    stop: Arc<AtomicBool>,
    calls: Arc<AtomicUsize>,
    clients: JoinSet<Vec<tonic::Status>>,
}

impl Load {
    fn start(edge: &Identity, content: &Running) -> Self {
        Self::start_with(edge, content, &Settings::default())
    }

    fn start_with(edge: &Identity, content: &Running, settings: &Settings) -> Self {
        let (stop, calls) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let mut clients = JoinSet::new();
        for _ in 0..4 {
            let (stop, calls) = (stop.clone(), calls.clone());
            let (edge, address, settings) = (edge.clone(), content.address, settings.clone());
            clients.spawn(async move {
                let mut failed = Vec::new();
                while !stop.load(Ordering::SeqCst) {
                    let channel = mesh::connect_with(&edge, "content".parse().unwrap(), address.into(), &settings);
                    let mut tags = TagServiceClient::new(channel);
                    for _ in 0..3 {
                        failed.extend(tags.list_tags(ListTagsRequest::default()).await.err());
                        calls.fetch_add(1, Ordering::SeqCst);
                    }
                }
                failed
            });
        }
        Self { stop, calls, clients }
    }

    /// Waits until that many more calls were made.
    async fn more(&self, calls: usize) {
        let target = self.calls.load(Ordering::SeqCst) + calls;
        while self.calls.load(Ordering::SeqCst) < target {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    async fn finish(self) -> usize {
        self.stop.store(true, Ordering::SeqCst);
        let failed: Vec<_> = self.clients.join_all().await.into_iter().flatten().collect();
        assert!(failed.is_empty(), "{} calls failed, the first: {:?}", failed.len(), failed.first());
        self.calls.load(Ordering::SeqCst)
    }
}

async fn content(world: &World) -> (Running, Identity) {
    let content = world.serve("content", |server| server.grpc(TagServiceServer::new(Tags::default()))).await;
    (content, world.identity("edge-gateway").await)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twenty_rotations_under_load_lose_no_call() {
    let world = World::start().await;
    let (content, edge) = content(&world).await;
    let load = Load::start(&edge, &content);
    for _ in 0..20 {
        world.agent.rotate().await.unwrap();
        soon(load.more(10)).await;
    }
    assert!(load.finish().await >= 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rotation_every_second_loses_no_call_though_none_is_sent_twice() {
    let world = World::start().await;
    let (content, edge) = content(&world).await;
    let no_retries = Settings { retry: false, ..Settings::default() };
    let load = Load::start_with(&edge, &content, &no_retries);
    let mut every_second = tokio::time::interval(Duration::from_secs(1));
    for _ in 0..10 {
        every_second.tick().await;
        world.agent.rotate().await.unwrap();
        soon(load.more(10)).await;
    }
    assert!(load.finish().await >= 100);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_authority_under_load_loses_no_call() {
    let world = World::with_svids_for(Duration::from_secs(6)).await;
    let (content, edge) = content(&world).await;
    let load = Load::start(&edge, &content);
    for _ in 0..3 {
        world.agent.rotate_authority().await.unwrap();
        soon(load.more(20)).await;
    }
    assert!(load.finish().await >= 60);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_channel_goes_on_over_ever_new_connections() {
    let lifetime = Duration::from_secs(2);
    let world = World::with_svids_for(lifetime).await;
    let (content, edge) = content(&world).await;
    let mut tags = TagServiceClient::new(mesh::connect(&edge, "content".parse().unwrap(), content.address.into()));
    let first = edge.leaf_expiry().unwrap();
    let started = Instant::now();
    let mut calls = 0;
    while started.elapsed() < lifetime * 2 {
        tags.list_tags(ListTagsRequest::default()).await.unwrap();
        calls += 1;
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    assert!(edge.leaf_expiry().unwrap() > first);
    assert!(calls > 100);
}

#[tokio::test]
async fn a_connection_does_not_outlive_the_svids_it_was_made_with() {
    let lifetime = Duration::from_secs(2);
    let world = World::with_svids_for(lifetime).await;
    let (posts, _seen) = Posts::new();
    let content = world.serve("content", |server| server.grpc(PostServiceServer::new(posts))).await;
    let mut posts = PostServiceClient::new(world.channel("edge-gateway", "content", &content).await);
    let admin = world.token(|claims| claims.roles = vec!["admin".into()]);
    let started = Instant::now();
    let mut rows = posts.export_posts(with_token(ExportPostsRequest {}, &admin)).await.unwrap().into_inner();
    rows.message().await.unwrap().unwrap();
    assert!(soon(rows.message()).await.is_err());
    assert!(started.elapsed() < lifetime + Duration::from_secs(1));
}

/// Speaks mutual TLS as auth, and never tells a client to make a new connection: how many there were.
async fn server_that_never_renews(world: &World) -> (std::net::SocketAddr, Arc<AtomicUsize>) {
    let source = X509Source::builder().endpoint(world.agent.endpoint("auth")).build().await.unwrap();
    let config = mtls_server(source)
        .trust_domain_policy(LocalOnly("guildhall.internal".try_into().unwrap()))
        .with_alpn_protocols([b"h2"])
        .build()
        .unwrap();
    let tls = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, connections) = (listener.local_addr().unwrap(), Arc::new(AtomicUsize::new(0)));
    let counted = connections.clone();
    tokio::spawn(async move {
        loop {
            let stream = tls.accept(listener.accept().await.unwrap().0).await.unwrap();
            counted.fetch_add(1, Ordering::SeqCst);
            // Answers with one part of a body that never ends.
            let service = service_fn(|_| async {
                let part = stream::once(async { Ok::<_, std::io::Error>(Frame::data(Bytes::from_static(b"part"))) });
                Ok::<_, std::io::Error>(http::Response::new(StreamBody::new(part.chain(stream::pending()))))
            });
            tokio::spawn(http2::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service));
        }
    });
    (address, connections)
}

#[tokio::test]
async fn a_client_does_not_leave_it_to_the_server_to_renew_a_connection_in_time() {
    let lifetime = Duration::from_secs(4);
    let world = World::with_svids_for(lifetime).await;
    let (address, connections) = server_that_never_renews(&world).await;
    let channel = mesh::connect(&world.identity("content").await, "auth".parse().unwrap(), address.into());
    let started = Instant::now();
    let get = || channel.clone().oneshot(http::Request::get("/oauth2/jwks").body(Body::empty()).unwrap());
    let mut endless = soon(get()).await.unwrap().into_body();
    soon(endless.frame()).await.unwrap().unwrap();
    while connections.load(Ordering::SeqCst) < 2 {
        assert!(started.elapsed() < lifetime, "the connection is as old as its SVIDs");
        soon(get()).await.unwrap();
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(soon(endless.frame()).await.unwrap().is_err());
    assert!(started.elapsed() < lifetime + Duration::from_secs(1), "what was begun on it ends with them");
}
