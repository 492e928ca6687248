use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use contracts::content::v1::{
    ListTagsRequest, tag_service_client::TagServiceClient, tag_service_server::TagServiceServer,
};
use mesh::{Identity, Settings};
use tokio::task::JoinSet;

use crate::{
    services::Tags,
    world::{Running, World, soon},
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
