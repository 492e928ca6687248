use contracts::content::v1::{
    ExportPostsRequest, GetPostRequest, ImportPostsRequest, post_service_client::PostServiceClient,
    post_service_server::PostServiceServer,
};

use tokio::{sync::mpsc, time::Duration};
use tokio_stream::wrappers::ReceiverStream;

use crate::{
    services::{POST, Posts, Seen},
    world::{Running, World, soon, with_token},
};

async fn content(world: &World) -> (Running, PostServiceClient<mesh::Channel>, mpsc::UnboundedReceiver<Seen>) {
    let (posts, seen) = Posts::new();
    let content = world.serve("content", |server| server.grpc(PostServiceServer::new(posts))).await;
    let channel = world.channel("edge-gateway", "content", &content).await;
    (content, PostServiceClient::new(channel), seen)
}

#[tokio::test]
async fn a_server_drains_at_once_when_nothing_is_in_flight() {
    let world = World::start().await;
    let (content, mut posts, _seen) = content(&world).await;
    posts.get_post(GetPostRequest { post_id: POST.into() }).await.unwrap();
    content.drain.cancel();
    soon(content.task).await.unwrap().unwrap();
    assert!(posts.get_post(GetPostRequest { post_id: POST.into() }).await.is_err());
}

#[tokio::test]
async fn a_call_in_flight_is_finished_before_the_server_ends() {
    let world = World::start().await;
    let (content, mut posts, _seen) = content(&world).await;
    let admin = world.token(|claims| claims.roles = vec!["admin".into()]);
    let (send, rows) = mpsc::channel(4);
    let upload = tokio::spawn(async move { posts.import_posts(with_token(ReceiverStream::new(rows), &admin)).await });
    let row = ImportPostsRequest { source_id: "1".into(), ..ImportPostsRequest::default() };
    send.send(row.clone()).await.unwrap();
    while send.capacity() < 4 {
        tokio::task::yield_now().await;
    }
    content.drain.cancel();
    let broken_off = tokio::time::timeout(Duration::from_millis(300), send.closed()).await;
    assert!(broken_off.is_err(), "the upload goes on while there is time");
    send.send(row).await.unwrap();
    drop(send);
    assert_eq!(soon(upload).await.unwrap().unwrap().into_inner().imported, 2);
    soon(content.task).await.unwrap().unwrap();
}

#[tokio::test]
async fn an_open_stream_holds_the_drain_until_the_bound_and_no_longer() {
    let world = World::start().await;
    let (mut content, mut posts, mut seen) = content(&world).await;
    let admin = world.token(|claims| claims.roles = vec!["admin".into()]);
    let mut rows = posts.export_posts(with_token(ExportPostsRequest {}, &admin)).await.unwrap().into_inner();
    rows.message().await.unwrap().unwrap();
    content.drain.cancel();
    let early = tokio::time::timeout(Duration::from_millis(300), &mut content.task).await;
    assert!(early.is_err(), "an open stream goes on while there is time");
    content.kill.cancel();
    soon(content.task).await.unwrap().unwrap();
    assert_eq!(soon(seen.recv()).await, Some(Seen::Dropped));
    assert!(soon(rows.message()).await.is_err());
}
