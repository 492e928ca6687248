//! What a table reads of an RPC, with annotations and without; and that the platform's own contracts can be served.
use edge_gateway::transcode::{Access, Cache, Idempotency, Limit, Routed, Table, User};
use http::Method;
use prost_reflect::DescriptorPool;

use crate::KITCHEN;

fn rpc(method: &str) -> edge_gateway::transcode::Rpc {
    (**KITCHEN.rpc(&format!("/kitchen.v1.Kitchen/{method}")).unwrap()).clone()
}

#[test]
fn annotations_are_read_from_the_pool() {
    let create = rpc("CreateDish");
    let access = Access {
        workloads: vec!["edge-gateway".to_owned()],
        user: User::Authenticated,
        scopes: vec!["dish.write".to_owned()],
        role: Some("moderator".to_owned()),
        resource_rule: Some("dish.cook".to_owned()),
    };
    assert_eq!((create.access, create.limit), (Some(access), Limit::Write));
    assert_eq!(create.idempotency_key.unwrap().name(), "request_id");
    let raw = rpc("Raw");
    assert_eq!(raw.cache, Some(Cache { max_age: 60, public: true }));
    assert_eq!(
        (raw.http.request_headers[0].as_str(), raw.http.response_headers[0].as_str()),
        ("range", "content-range")
    );
    assert_eq!(raw.http.statuses.iter().map(http::StatusCode::as_u16).collect::<Vec<_>>(), [206, 304]);
    assert_eq!(raw.http.produces, ["image/png"]);
    let delete = rpc("DeleteDish");
    assert_eq!((delete.deprecated, delete.idempotency), (true, Idempotency::Idempotent));
    let watch = rpc("Watch");
    assert_eq!(
        (watch.access, watch.limit, watch.cache, watch.server_streaming, watch.client_streaming),
        (None, Limit::Read, None, true, false)
    );
}

#[test]
fn an_rpc_without_a_route_is_found_by_its_grpc_path_alone() {
    assert_eq!(rpc("Inner").access.unwrap().user, User::WorkloadOnly);
    assert!(KITCHEN.rpc("/kitchen.v1.Kitchen/Nothing").is_none());
    assert!(matches!(KITCHEN.route(&Method::POST, "/kitchen.v1.Kitchen/Inner"), Routed::NotFound));
}

#[test]
fn the_platforms_contracts_can_be_served() {
    let table = Table::from_pool(DescriptorPool::decode(contracts::DESCRIPTOR_SET).unwrap()).unwrap();
    for method in contracts::METHODS {
        let rpc = table.rpc(method.path).unwrap_or_else(|| panic!("{} is missing", method.path));
        assert_eq!(
            rpc.access.as_ref().map(|access| access.scopes.len()),
            Some(method.access.scopes.len()),
            "{}",
            method.path
        );
        assert_eq!((rpc.client_streaming, rpc.server_streaming), (method.client_streaming, method.server_streaming));
        assert_eq!(rpc.idempotency_key.as_ref().map(prost_reflect::FieldDescriptor::name), method.idempotency_key);
    }
    let leads = |request: (Method, &str)| match table.route(&request.0, request.1) {
        Routed::Found(found) => found.rpc().path.path().rsplit_once('/').unwrap().1.to_owned(),
        Routed::MethodNotAllowed { allow } => format!("{allow:?}"),
        Routed::NotFound => String::new(),
    };
    assert_eq!(leads((Method::GET, "/api/v1/users/me")), "GetMe");
    assert_eq!(leads((Method::GET, "/api/v1/users/0198")), "GetUser");
    assert_eq!(leads((Method::GET, "/api/v1/posts:search")), "SearchPosts");
    assert_eq!(leads((Method::POST, "/api/v1/posts/0198:publish")), "PublishPost");
    assert_eq!(leads((Method::GET, "/feeds/posts.atom")), "GetAtomFeed");
    assert_eq!(leads((Method::PATCH, "/feeds/posts.atom")), "[GET, HEAD, OPTIONS]");
}
