use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use contracts::content::v1::{
    ExportPostsRequest, ListTagsRequest, post_service_client::PostServiceClient,
    post_service_server::PostServiceServer, tag_service_client::TagServiceClient, tag_service_server::TagServiceServer,
};
use mesh::Identity;
use tokio::task::JoinSet;

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
        let (stop, calls) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let mut clients = JoinSet::new();
        for _ in 0..4 {
            let (stop, calls) = (stop.clone(), calls.clone());
            let (edge, address) = (edge.clone(), content.address);
            clients.spawn(async move {
                let mut failed = Vec::new();
                while !stop.load(Ordering::SeqCst) {
                    let channel = mesh::connect(&edge, "content".parse().unwrap(), address.into());
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
