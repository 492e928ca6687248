//! One process, two hops, and a collector that sees them as one trace.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt, Empty, StreamBody};
use ids::Source;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{TraceService, TraceServiceServer};
use opentelemetry_proto::tonic::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use opentelemetry_proto::tonic::common::v1::AnyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use telemetry::{ClientLayer, Format, ServerLayer, Settings};
use tokio::net::TcpListener;
use tonic::transport::server::TcpIncoming;
use tower::{ServiceBuilder, ServiceExt};
use tracing::Instrument;

const GET_POST: &str = "/guildhall.content.v1.PostService/GetPost";
const PROFILES: &str = "/guildhall.auth.v1.ProfileService/BatchGetProfiles";

/// The spans that came, with the `service.name` of their resource.
#[derive(Clone, Default)]
struct Collector(Arc<Mutex<Vec<(String, Span)>>>);

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: tonic::Request<ExportTraceServiceRequest>,
    ) -> Result<tonic::Response<ExportTraceServiceResponse>, tonic::Status> {
        for part in request.into_inner().resource_spans {
            let attributes = part.resource.unwrap().attributes;
            let service = attributes.into_iter().find(|attribute| attribute.key == "service.name").unwrap();
            let Some(AnyValue { value: Some(Value::StringValue(service)) }) = service.value else { panic!("a text") };
            let spans = part.scope_spans.into_iter().flat_map(|scope| scope.spans);
            self.0.lock().unwrap().extend(spans.map(|span| (service.clone(), span)));
        }
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
async fn two_hops_and_an_event_are_one_trace_at_the_collector_each_span_under_its_service_and_are_measured() {
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
    let event = Source::system().id();
    call("edge-gateway", "content", GET_POST, move || {
        let keep = keep.clone();
        async move {
            let created = async { *keep.lock().unwrap() = telemetry::traceparent() };
            created.instrument(telemetry::event::create("content", "content.post.created", event)).await;
            call("content", "auth", PROFILES, || async { answer("5") }).await;
            answer("0")
        }
    })
    .await;
    let kept = kept.lock().unwrap().clone().expect("a call is in a trace");
    let process = telemetry::event::process("auth.readers", "content.post.created", event, Some(&kept));
    async {
        async {}.instrument(tracing::info_span!("whatever a handler does")).await;
    }
    .instrument(process)
    .await;
    async {}.instrument(telemetry::event::process("chassis.revocations", "t", event, Some("no traceparent"))).await;
    // As `log::log_enabled!` asks, which sqlx does after each statement: it must not decide about the span that comes next.
    let unwanted = tracing::debug_span!("unwanted");
    let unwanted = unwanted.metadata().expect("a span that is not made has its metadata all the same");
    let _whatever_the_answer = tracing::dispatcher::get_default(|dispatch| dispatch.enabled(unwanted));
    let after = tracing::info_span!("after a question").in_scope(telemetry::traceparent);
    assert!(after.is_some(), "a span is in a trace whatever was asked before it");
    call("a", "b", "/somebody/made.this.up", || async { answer("0") }).await;

    let metrics = telemetry.metrics().render();
    let flush = telemetry.clone();
    tokio::task::spawn_blocking(move || flush.shutdown()).await.unwrap();
    let spans = collector.0.lock().unwrap().clone();
    let root = find(&spans, "edge-gateway", GET_POST, b"");
    let trace: Vec<_> = spans.iter().filter(|(_, span)| span.trace_id == root.trace_id).cloned().collect();
    assert_eq!(trace.len(), 7, "{spans:#?}");
    let content = find(&trace, "content", GET_POST, &root.span_id);
    let outgoing = find(&trace, "content", PROFILES, &content.span_id);
    find(&trace, "auth", PROFILES, &outgoing.span_id);
    let created = find(&trace, "content", "create content.post.created", &content.span_id);
    let processed = find(&trace, "auth", "process content.post.created", &created.span_id);
    find(&trace, "auth", "whatever a handler does", &processed.span_id);
    // It belongs to no service, and its event was created in no trace.
    find(&spans, "test", "process t", b"");
    for (_, span) in &spans {
        assert!(span.attributes.iter().all(|attribute| attribute.key != "guildhall.service"), "{span:#?}");
    }

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

/// The span of this name, or of this method, in this service below this parent.
fn find<'a>(spans: &'a [(String, Span)], service: &str, name: &str, parent: &[u8]) -> &'a Span {
    let name = name.trim_start_matches('/');
    let fits = |span: &Span| span.name == name && span.parent_span_id == parent;
    let found: Vec<_> = spans.iter().filter(|(of, span)| of == service && fits(span)).collect();
    assert_eq!(found.len(), 1, "{name} of {service} under {parent:?}: {spans:#?}");
    &found[0].1
}
