//! One process, two hops, and a collector that sees them as one trace.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt, Empty, StreamBody};
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{TraceService, TraceServiceServer};
use opentelemetry_proto::tonic::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use opentelemetry_proto::tonic::trace::v1::Span;
use telemetry::{ClientLayer, Format, ServerLayer, Settings};
use tokio::net::TcpListener;
use tonic::transport::server::TcpIncoming;
use tower::{ServiceBuilder, ServiceExt};
use tracing::Instrument;

const GET_POST: &str = "/guildhall.content.v1.PostService/GetPost";
const PROFILES: &str = "/guildhall.auth.v1.ProfileService/BatchGetProfiles";

#[derive(Clone, Default)]
struct Collector(Arc<Mutex<Vec<Span>>>);

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: tonic::Request<ExportTraceServiceRequest>,
    ) -> Result<tonic::Response<ExportTraceServiceResponse>, tonic::Status> {
        let spans = request.into_inner().resource_spans.into_iter().flat_map(|resource| resource.scope_spans);
        self.0.lock().unwrap().extend(spans.flat_map(|scope| scope.spans));
        Ok(tonic::Response::new(ExportTraceServiceResponse::default()))
    }
}

type Answer = Response<StreamBody<tokio_stream::Iter<std::vec::IntoIter<Result<Frame<Bytes>, Infallible>>>>>;

/// A gRPC answer: one frame of data, then the status in the trailers.
fn answer(status: &'static str) -> Answer {
    let trailers = HeaderMap::from_iter([(http::HeaderName::from_static("grpc-status"), status.parse().unwrap())]);
    let frames = vec![Ok(Frame::data(Bytes::from_static(b"\0\0\0\0\0"))), Ok(Frame::trailers(trailers))];
    Response::new(StreamBody::new(tokio_stream::iter(frames)))
}

fn request(path: &str) -> Request<Empty<Bytes>> {
    Request::post(path).header("content-type", "application/grpc").body(Empty::new()).unwrap()
}

/// Calls a server called `server`, whose handler is `handle`, as `service`; the header is all that passes between them.
async fn call<F>(service: &str, server: &str, path: &str, handle: impl Fn() -> F + Clone)
where
    F: Future<Output = Answer>,
{
    let answer = ServiceBuilder::new()
        .layer(ClientLayer::new(service, server))
        .map_request(|request: Request<Empty<Bytes>>| {
            assert!(request.headers().contains_key("traceparent"));
            request
        })
        .layer(ServerLayer::new(server))
        .service_fn(move |_request: Request<Empty<Bytes>>| {
            let handled = handle();
            async { Ok::<_, Infallible>(handled.await) }
        })
        .oneshot(request(path));
    // The server's work is not in the caller's span: another process does it.
    let answer = answer.await.unwrap();
    answer.into_body().collect().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hops_are_one_trace_at_the_collector_and_are_measured() {
    let collector = Collector::default();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let server = tonic::transport::Server::builder().add_service(TraceServiceServer::new(collector.clone()));
    tokio::spawn(server.serve_with_incoming(TcpIncoming::from(listener)));
    let telemetry = telemetry::init(&Settings {
        format: Format::Json,
        filter: "off".to_owned(),
        otlp_endpoint: Some(endpoint),
        service_name: "test".to_owned(),
    })
    .unwrap();

    let kept = Arc::new(Mutex::new(None));
    let keep = kept.clone();
    call("edge-gateway", "content", GET_POST, move || {
        let keep = keep.clone();
        async move {
            *keep.lock().unwrap() = telemetry::traceparent();
            call("content", "auth", PROFILES, || async { answer("5") }).await;
            answer("0")
        }
    })
    .await;
    let later = tracing::info_span!("later");
    telemetry::adopt(&later, kept.lock().unwrap().as_deref().expect("a call is in a trace"));
    async {}.instrument(later).await;
    call("a", "b", "/somebody/made.this.up", || async { answer("0") }).await;

    let metrics = telemetry.metrics().render();
    let flush = telemetry.clone();
    tokio::task::spawn_blocking(move || flush.shutdown()).await.unwrap();
    let spans = collector.0.lock().unwrap().clone();
    let chain: Vec<_> = spans.iter().filter(|span| span.trace_id == trace_of(&spans)).collect();
    assert_eq!(chain.len(), 5, "{spans:#?}");
    let root = find(&chain, "guildhall.content.v1.PostService/GetPost", b"");
    let content = find(&chain, "guildhall.content.v1.PostService/GetPost", &root.span_id);
    let outgoing = find(&chain, "guildhall.auth.v1.ProfileService/BatchGetProfiles", &content.span_id);
    find(&chain, "guildhall.auth.v1.ProfileService/BatchGetProfiles", &outgoing.span_id);
    find(&chain, "later", &content.span_id);

    for line in [
        format!(r#"guildhall_rpc_server_seconds_count{{service="content",method="{GET_POST}",code="OK"}} 1"#),
        format!(r#"guildhall_rpc_server_seconds_count{{service="auth",method="{PROFILES}",code="NOT_FOUND"}} 1"#),
        format!(
            r#"guildhall_rpc_client_seconds_count{{service="content",server="auth",method="{PROFILES}",code="NOT_FOUND"}} 1"#
        ),
        format!(r#"guildhall_rpc_server_in_flight{{service="content",method="{GET_POST}"}} 0"#),
        r#"guildhall_rpc_server_seconds_count{service="b",method="unknown",code="OK"} 1"#.to_owned(),
        "guildhall_log_dropped_lines_total 0".to_owned(),
    ] {
        assert!(metrics.lines().any(|found| found == line), "{line} is not in\n{metrics}");
    }
}

/// The trace of the first call.
fn trace_of(spans: &[Span]) -> Vec<u8> {
    spans.iter().find(|span| span.name == "later").expect("the later work is exported").trace_id.clone()
}

fn find<'a>(chain: &[&'a Span], name: &str, parent: &[u8]) -> &'a Span {
    let found: Vec<_> = chain.iter().filter(|span| span.name == name && span.parent_span_id == parent).collect();
    assert_eq!(found.len(), 1, "{name} under {parent:?}: {chain:#?}");
    found[0]
}
