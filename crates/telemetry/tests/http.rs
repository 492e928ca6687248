//! Plain HTTP through the server layer.

use std::convert::Infallible;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Empty};
use telemetry::{Format, Route, ServerLayer, Settings};
use tower::{ServiceBuilder, ServiceExt};

#[tokio::test]
async fn http_calls_are_measured_by_their_route_and_never_by_their_path() {
    let settings = Settings {
        format: Format::Json,
        filter: "off".to_owned(),
        otlp_endpoint: None,
        service_name: "test".to_owned(),
    };
    let telemetry = telemetry::init(&settings).unwrap();
    let call = async |path: &str, route: Option<&str>, status: u16| {
        let route = route.map(|template| Route(template.into()));
        let server = ServiceBuilder::new().layer(ServerLayer::new("edge-gateway")).service_fn(
            |_request: Request<Empty<Bytes>>| async {
                let mut response = Response::builder().status(status).body(Empty::<Bytes>::new()).unwrap();
                if let Some(route) = route.clone() {
                    response.extensions_mut().insert(route);
                }
                Ok::<_, Infallible>(response)
            },
        );
        let request = Request::builder().method("BREW").uri(path).body(Empty::new()).unwrap();
        server.oneshot(request).await.unwrap().into_body().collect().await.unwrap();
    };
    call("/api/v1/posts/7", Some("/api/v1/posts/{post_id}"), 404).await;
    call("/.env", None, 404).await;
    call("/oauth2/jwks", None, 200).await;

    let metrics = telemetry.metrics().render();
    for (route, status) in [("/api/v1/posts/{post_id}", 404), ("unmatched", 404), ("/oauth2/jwks", 200)] {
        let labels = format!(r#"service="edge-gateway",method="other",route="{route}",status="{status}""#);
        let line = format!("guildhall_http_server_seconds_count{{{labels}}} 1");
        assert!(metrics.lines().any(|found| found == line), "{line} is not in\n{metrics}");
    }
    assert!(!metrics.contains(".env"));
    let help = "# HELP guildhall_http_server_seconds How long HTTP requests took to answer.";
    assert!(metrics.lines().any(|line| line == help), "{metrics}");
}
