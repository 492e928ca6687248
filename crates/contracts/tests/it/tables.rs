use std::collections::HashSet;

use contracts::{
    Cache, DESCRIPTOR_SET, Event, Idempotency, LimitClass, METHODS, PASSTHROUGHS, Role, TOPICS, User, auth, content,
    method,
};
use prost_reflect::{DescriptorPool, Value};

#[test]
fn a_custom_option_can_be_read_back_from_the_descriptors() {
    let pool = DescriptorPool::decode(DESCRIPTOR_SET).unwrap();
    let service = pool.get_service_by_name("guildhall.content.v1.PostService").unwrap();
    let method = service.methods().find(|method| method.name() == "PublishPost").unwrap();
    let extension = pool.get_extension_by_name("guildhall.mesh.v1.access").unwrap();
    let options = method.options();
    assert!(options.has_extension(&extension));
    let access = options.get_extension(&extension);
    let rule = access.as_message().unwrap().get_field_by_name("resource_rule").unwrap().into_owned();
    assert_eq!(rule, Value::String("post.author".to_owned()));
}

#[test]
fn the_descriptors_keep_comments() {
    let pool = DescriptorPool::decode(DESCRIPTOR_SET).unwrap();
    let file = pool.get_file_by_name("guildhall/content/v1/post.proto").unwrap();
    let info = file.file_descriptor_proto().source_code_info.as_ref().unwrap();
    assert!(info.location.iter().any(|location| location.leading_comments().contains("Writes a draft.")));
}

#[test]
fn every_rpc_of_the_descriptors_is_in_the_table_and_found_by_its_path() {
    let pool = DescriptorPool::decode(DESCRIPTOR_SET).unwrap();
    let paths: HashSet<_> = pool
        .services()
        .flat_map(|service| {
            service.methods().map(|method| format!("/{}/{}", service.full_name(), method.name())).collect::<Vec<_>>()
        })
        .collect();
    assert_eq!(paths.len(), METHODS.len());
    for path in &paths {
        assert_eq!(method(path).map(|method| method.path), Some(path.as_str()));
    }
    assert_eq!(method("/guildhall.content.v1.PostService/Nothing"), None);
    assert_eq!(method(""), None);
}

#[test]
fn a_method_says_what_its_annotations_say() {
    let get = method("/guildhall.content.v1.PostService/GetPost").unwrap();
    assert_eq!((get.owner, get.name), ("content", "GetPost"));
    assert_eq!(get.access.workloads, ["edge-gateway"]);
    assert_eq!(get.access.user, User::Anonymous);
    assert_eq!(get.access.resource_rule, Some("post.visible"));
    assert_eq!(get.limit, LimitClass::Read);
    assert_eq!(get.cache, Some(Cache { max_age: 5, public: true }));
    assert_eq!(get.idempotency, Idempotency::NoSideEffects);
    assert_eq!(get.input, "guildhall.content.v1.GetPostRequest");
    assert_eq!(get.output, "guildhall.content.v1.Post");

    let create = method("/guildhall.content.v1.PostService/CreatePost").unwrap();
    assert_eq!(create.access.user, User::Authenticated);
    assert_eq!(create.access.scopes, ["content.write"]);
    assert_eq!(create.limit, LimitClass::Write);
    assert_eq!((create.cache, create.idempotency), (None, Idempotency::Unknown));
    assert_eq!(create.idempotency_key, Some("request_id"));

    let look_up = method("/guildhall.content.v1.PostService/LookUpPost").unwrap();
    assert_eq!((look_up.http.statuses, look_up.http.response_headers), (&[301][..], &["location"][..]));

    let import = method("/guildhall.content.v1.PostService/ImportPosts").unwrap();
    assert_eq!((import.client_streaming, import.server_streaming), (true, false));
    assert_eq!((import.access.role, import.limit), (Some(Role::Admin), LimitClass::Bulk));

    let list = method("/guildhall.common.v1.DeadLetterService/List").unwrap();
    assert_eq!((list.owner, list.access.user), ("", User::WorkloadOnly));
    assert_eq!(list.access.workloads, ["operator"]);
}

#[test]
fn passthroughs_say_what_their_annotations_say() {
    let jwks = PASSTHROUGHS.iter().find(|passthrough| passthrough.path == "/oauth2/jwks").unwrap();
    assert_eq!((jwks.owner, jwks.methods, jwks.workloads), ("auth", &["GET"][..], &["*"][..]));
    let token = PASSTHROUGHS.iter().find(|passthrough| passthrough.path == "/oauth2/token").unwrap();
    assert_eq!((token.limit, token.workloads), (LimitClass::Credential, &["edge-gateway"][..]));
}

#[test]
fn events_know_their_topic_and_their_key() {
    let event = content::v1::PostPublished { post_id: "p".to_owned(), author_id: "a".to_owned() };
    assert_eq!(event.key(), "p");
    let topic = TOPICS.iter().find(|topic| topic.name == content::v1::PostPublished::TOPIC).unwrap();
    assert_eq!((topic.message, topic.owner), ("guildhall.content.v1.PostPublished", "content"));
    assert_eq!(auth::v1::TokenRevoked::TOPIC, "auth.token.revoked");
    assert!(TOPICS.is_sorted_by(|a, b| a.name < b.name));
}

#[test]
fn roles_are_ordered_and_their_names_round_trip() {
    assert!(Role::ALL.is_sorted_by(|lower, higher| lower < higher));
    for role in Role::ALL {
        assert_eq!(role.to_string().parse(), Ok(role));
    }
    assert!("owner".parse::<Role>().is_err());
    assert!("Admin".parse::<Role>().is_err());
}
