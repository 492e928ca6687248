//! What an operator sees. This test alone calls from `operator` to `comment`, since the metrics are the process's.

use contracts::content::v1::{
    ListTagsRequest, tag_service_client::TagServiceClient, tag_service_server::TagServiceServer,
};
use mesh::Endpoints;
use status::Reason;
use tokio::net::TcpListener;

use crate::{
    services::Tags,
    world::{World, reason, soon},
};

#[tokio::test]
async fn the_state_of_every_endpoint_is_in_the_metrics_and_goes_with_it() {
    let telemetry = telemetry::init(&telemetry::Settings {
        format: telemetry::Format::Pretty,
        filter: "off".to_owned(),
        otlp_endpoint: None,
        service_name: "test".to_owned(),
    });
    let metrics = telemetry.unwrap().metrics();
    let value = |name: &str, labels: &str| {
        let text = metrics.render();
        let start = format!("{name}{{service=\"operator\"{labels}}} ");
        let value = text.lines().find_map(|line| line.strip_prefix(&start)).map(|value| value.parse::<f64>().unwrap());
        value.unwrap_or_else(|| panic!("there is no {start}in\n{text}"))
    };
    let server = r#",server="comment""#;
    let at = |endpoint: &dyn std::fmt::Display| format!(r#"{server},endpoint="{endpoint}""#);
    let is = |name: &str, labels: &str, expected: f64| {
        let found = value(name, labels);
        assert!((found - expected).abs() < 1e-9, "{name}{{{labels}}} is {found} and not {expected}");
    };

    let world = World::start().await;
    let comment = world.serve("comment", |server| server.grpc(TagServiceServer::new(Tags::default()))).await;
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let identity = world.identity("operator").await;
    let to =
        |endpoints: Endpoints| TagServiceClient::new(mesh::connect(&identity, "comment".parse().unwrap(), endpoints));
    let (mut answered, mut refused) = (to(comment.address.into()), to(nobody.into()));
    for counter in ["breaker_opened", "retry_budget_exhausted", "all_endpoints_out", "lookup_failures"] {
        is(&format!("guildhall_mesh_{counter}_total"), server, 0.0);
    }
    for outcome in ["answered", "failed"] {
        is("guildhall_mesh_retries_total", &format!(r#"{server},outcome="{outcome}""#), 0.0);
    }
    is("guildhall_mesh_endpoints", server, 2.0);
    is("guildhall_mesh_breaker_open", &at(&nobody), 0.0);

    for _ in 0..5 {
        // What is refused by a rule is served as far as the mesh is concerned.
        assert_eq!(reason(answered.list_tags(ListTagsRequest::default()).await), Reason::RouteNotFound);
    }
    soon(async {
        while value("guildhall_mesh_all_endpoints_out_total", server) < 1.0 {
            assert_eq!(reason(refused.list_tags(ListTagsRequest::default()).await), Reason::Unavailable);
        }
    })
    .await;
    is("guildhall_mesh_breaker_opened_total", server, 1.0);
    is("guildhall_mesh_breaker_open", &at(&nobody), 1.0);
    is("guildhall_mesh_breaker_open", &at(&comment.address), 0.0);
    is("guildhall_mesh_picks_total", &at(&comment.address), 5.0);
    assert!(value("guildhall_mesh_picks_total", &at(&nobody)) >= 7.0);
    assert!(value("guildhall_mesh_retries_total", &format!(r#"{server},outcome="failed""#)) > 0.0);
    assert!(value("guildhall_mesh_answer_estimate_seconds", &at(&comment.address)) > 0.0);
    assert!(value("guildhall_mesh_svid_expiry_seconds", "") > 0.0);

    drop((answered, refused));
    is("guildhall_mesh_endpoints", server, 0.0);
    is("guildhall_mesh_breaker_open", &at(&nobody), 0.0);
}
