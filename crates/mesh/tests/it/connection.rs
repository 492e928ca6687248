//! Connections end before the SVIDs that they were made with, and what is called meanwhile is neither lost nor done twice.

use std::{
    collections::HashSet,
    io,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use contracts::content::v1::{
    ExportPostsRequest, ListTagsRequest, post_service_client::PostServiceClient,
    post_service_server::PostServiceServer, tag_service_client::TagServiceClient, tag_service_server::TagServiceServer,
};
use futures_util::{FutureExt, StreamExt, stream};
use http::{Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt, Empty, Full, StreamBody};
use hyper::{body::Incoming, server::conn::http2, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use mesh::{Channel, Settings};
use spiffe::X509Source;
use spiffe_rustls::{LocalOnly, mtls_server};
use status::Reason;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::Notify,
    task::JoinSet,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tonic::{Status, body::Body};
use tower::ServiceExt;

use crate::{
    services::{Posts, Tags},
    world::{World, reason, soon, with_token},
};

/// Of an SVID: short, but the agent renews it at half, and the machine may be late by the rest.
const LIFETIME: Duration = Duration::from_secs(6);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_channel_goes_on_over_ever_new_connections() {
    let world = World::with_svids_for(LIFETIME).await;
    let content = world.serve("content", |server| server.grpc(TagServiceServer::new(Tags::default()))).await;
    let edge = world.identity("edge-gateway").await;
    let channel = mesh::connect_with(&edge, "content".parse().unwrap(), content.address.into(), &settings(false));
    let mut tags = TagServiceClient::new(channel);
    let first = edge.leaf_expiry().unwrap();
    let started = Instant::now();
    while started.elapsed() < LIFETIME {
        tags.list_tags(ListTagsRequest::default()).await.unwrap();
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    assert!(edge.leaf_expiry().unwrap() > first);
}

#[tokio::test]
async fn a_connection_does_not_outlive_the_svids_it_was_made_with() {
    let world = World::with_svids_for(LIFETIME).await;
    let (posts, _seen) = Posts::new();
    let content = world.serve("content", |server| server.grpc(PostServiceServer::new(posts))).await;
    let mut posts = PostServiceClient::new(world.channel("edge-gateway", "content", &content).await);
    let admin = world.token(|claims| claims.roles = vec!["admin".into()]);
    let mut rows = posts.export_posts(with_token(ExportPostsRequest {}, &admin)).await.unwrap().into_inner();
    rows.message().await.unwrap().unwrap();
    assert!(soon(rows.message()).await.is_err());
}

/// A channel to a server that speaks mutual TLS as auth, and above it whatever the test wants.
async fn auth<F>(
    world: &World,
    settings: &Settings,
    serve: impl Fn(TlsStream<TcpStream>) -> F + Send + Sync + 'static,
) -> Channel
where
    F: Future<Output = ()> + Send + 'static,
{
    let source = X509Source::builder().endpoint(world.agent.endpoint("auth")).build().await.unwrap();
    let config = mtls_server(source)
        .trust_domain_policy(LocalOnly("guildhall.internal".try_into().unwrap()))
        .with_alpn_protocols([b"h2"])
        .build()
        .unwrap();
    let tls = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            tokio::spawn(serve(tls.accept(listener.accept().await.unwrap().0).await.unwrap()));
        }
    });
    mesh::connect_with(&world.identity("content").await, "auth".parse().unwrap(), address.into(), settings)
}

fn get() -> Request<Body> {
    Request::get("/oauth2/jwks").body(Body::empty()).unwrap()
}

/// A request that nobody says may be handled twice.
fn post(text: String) -> Request<Body> {
    Request::post("/guildhall.content.v1.PostService/CreatePost").body(Body::new(Full::from(text))).unwrap()
}

fn settings(retry: bool) -> Settings {
    Settings { retry, ..Settings::default() }
}

#[tokio::test]
async fn a_client_does_not_leave_it_to_the_server_to_renew_a_connection_in_time() {
    let world = World::with_svids_for(LIFETIME).await;
    let connections = Arc::new(AtomicUsize::new(0));
    let counted = connections.clone();
    // Never says that it wants another, and answers with one part of a body that never ends.
    let channel = auth(&world, &Settings::default(), move |stream| {
        counted.fetch_add(1, Ordering::SeqCst);
        let service = service_fn(|_| async {
            let part = stream::once(async { Ok::<_, io::Error>(Frame::data(Bytes::from_static(b"part"))) });
            Ok::<_, io::Error>(Response::new(StreamBody::new(part.chain(stream::pending()))))
        });
        let connection = http2::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service);
        async move { drop(connection.await) }
    })
    .await;
    let mut endless = soon(channel.clone().oneshot(get())).await.unwrap().into_body();
    soon(endless.frame()).await.unwrap().unwrap();
    while connections.load(Ordering::SeqCst) < 2 {
        assert!(endless.frame().now_or_never().is_none(), "the connection is as old as its SVIDs");
        soon(channel.clone().oneshot(get())).await.unwrap();
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(soon(endless.frame()).await.unwrap().is_err(), "what was begun on it ends with them");
}

/// Frames as they are on the wire (RFC 9113, section 4.1).
struct Frames(TlsStream<TcpStream>);

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;
const ACK: u8 = 1;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
/// `:status: 200` (RFC 7541, appendix A).
const OK: [u8; 1] = [0x88];

impl Frames {
    /// The beginning of a conversation: the server's settings, for which the client waits, and the client's preface.
    async fn begin(stream: TlsStream<TcpStream>) -> Self {
        let mut frames = Self(stream);
        frames.send(SETTINGS, 0, 0, &[]).await;
        frames.0.read_exact(&mut [0; 24]).await.unwrap();
        frames
    }

    async fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        let length = u8::try_from(payload.len()).unwrap();
        let head = [&[0, 0, length, kind, flags][..], &stream.to_be_bytes()].concat();
        self.0.write_all(&[&head, payload].concat()).await.unwrap();
        self.0.flush().await.unwrap();
    }

    /// Says that no stream after `last` was or will be looked at, for no error.
    async fn go_away(&mut self, last: u32) {
        self.send(GOAWAY, 0, 0, &u64::from(last).rotate_left(32).to_be_bytes()).await;
    }

    /// The stream of the next request, once it is there as a whole; `None` when the client has ended the conversation.
    async fn request(&mut self) -> Option<u32> {
        loop {
            let mut head = [0; 9];
            self.0.read_exact(&mut head).await.ok()?;
            let [long, longer, length, kind, flags, stream @ ..] = head;
            let length = u32::from_be_bytes([0, long, longer, length]);
            self.0.read_exact(&mut vec![0; length.try_into().unwrap()]).await.ok()?;
            match kind {
                HEADERS | DATA if flags & END_STREAM != 0 => return Some(u32::from_be_bytes(stream)),
                SETTINGS if flags & ACK == 0 => self.send(SETTINGS, ACK, 0, &[]).await,
                _ => {}
            }
        }
    }
}

/// The outcome of a POST over a channel whose first connection the server ends with these GOAWAYs once it has the request,
/// and how many requests came.
async fn turned_away(retry: bool, last: &'static [u32]) -> (Result<StatusCode, Reason>, usize) {
    let world = World::start().await;
    let (connections, requests) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let counted = requests.clone();
    let channel = auth(&world, &settings(retry), move |stream| {
        let first = connections.fetch_add(1, Ordering::SeqCst) == 0;
        let requests = counted.clone();
        async move {
            let mut frames = Frames::begin(stream).await;
            while let Some(stream) = frames.request().await {
                requests.fetch_add(1, Ordering::SeqCst);
                if first {
                    for last in last {
                        frames.go_away(*last).await;
                    }
                    if last.contains(&stream) {
                        // It has looked at the request, and says nothing.
                        return;
                    }
                } else {
                    frames.send(HEADERS, END_HEADERS | END_STREAM, stream, &OK).await;
                }
            }
        }
    })
    .await;
    let outcome = match soon(channel.oneshot(post("once".to_owned()))).await {
        Ok(answer) => Ok(answer.status()),
        Err(status) => Err(reason::<()>(Err(status))),
    };
    (outcome, requests.load(Ordering::SeqCst))
}

#[tokio::test]
async fn a_request_that_no_server_has_looked_at_goes_to_the_next_connection_whatever_the_settings() {
    for retry in [true, false] {
        assert_eq!(turned_away(retry, &[0]).await, (Ok(StatusCode::OK), 2), "at once");
        assert_eq!(turned_away(retry, &[u32::MAX >> 1, 0]).await, (Ok(StatusCode::OK), 2), "announced first");
    }
}

#[tokio::test]
async fn a_request_that_the_server_may_have_looked_at_stays_where_it_was() {
    for retry in [true, false] {
        assert_eq!(turned_away(retry, &[1]).await, (Err(Reason::Unavailable), 1));
        assert_eq!(turned_away(retry, &[u32::MAX >> 1, 1]).await, (Err(Reason::Unavailable), 1));
    }
}

/// After so many requests a connection is ended in order, whoever is about to send the next.
const REQUESTS: usize = 50;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_end_while_calls_are_made_lose_none_and_none_is_handled_twice() {
    let world = World::start().await;
    let (connections, handled) = (Arc::new(AtomicUsize::new(0)), Arc::new(Mutex::new(Vec::new())));
    let (counted, noted) = (connections.clone(), handled.clone());
    let channel = auth(&world, &settings(false), move |stream| {
        counted.fetch_add(1, Ordering::SeqCst);
        let (enough, requests, handled) = (Arc::new(Notify::new()), AtomicUsize::new(0), noted.clone());
        let old = enough.clone();
        let service = service_fn(move |request: Request<Incoming>| {
            if requests.fetch_add(1, Ordering::SeqCst) + 1 == REQUESTS {
                enough.notify_one();
            }
            let handled = handled.clone();
            async move {
                // What breaks off is not handled.
                let text = request.into_body().collect().await?.to_bytes();
                handled.lock().unwrap().push(text);
                Ok::<_, hyper::Error>(Response::new(Empty::<Bytes>::new()))
            }
        });
        async move {
            let connection = http2::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service);
            tokio::pin!(connection);
            tokio::select! {
                _ = connection.as_mut() => return,
                () = old.notified() => connection.as_mut().graceful_shutdown(),
            }
            // The client may be the first to close it.
            let _ = connection.await;
        }
    })
    .await;
    let (clients, calls) = (4, 800);
    let mut calling = JoinSet::new();
    for client in 0..clients {
        let channel = channel.clone();
        calling.spawn(async move {
            for call in 0..calls {
                channel.clone().oneshot(post(format!("{client}-{call}"))).await?;
            }
            Ok::<_, Status>(())
        });
    }
    let failed: Vec<_> = calling.join_all().await.into_iter().filter_map(Result::err).collect();
    assert!(failed.is_empty(), "{failed:?}");
    let handled = handled.lock().unwrap();
    assert_eq!(handled.len(), clients * calls, "none was handled twice");
    assert_eq!(handled.iter().collect::<HashSet<_>>().len(), clients * calls);
    assert!(connections.load(Ordering::SeqCst) >= clients * calls / (REQUESTS + clients));
}
