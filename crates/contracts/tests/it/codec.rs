use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use contracts::Codec;
use contracts::content::v1::tag_service_client::TagServiceClient;
use contracts::content::v1::tag_service_server::{TagService, TagServiceServer};
use contracts::content::v1::{
    ImportPostsRequest, ImportPostsResponse, ListTagsRequest, ListTagsResponse, MergeTagsRequest, RenameTagRequest, Tag,
};
use http_body_util::Full;
use prost::Message as _;
use prost::bytes::{BufMut as _, Bytes, BytesMut};
use status::{Problem, Reason};
use tonic::body::Body;
use tonic::codegen::http;
use tonic::server::Grpc;
use tonic::{Code, Request, Response, Status, Streaming};
use tower::ServiceExt as _;

const ID: &str = "0190b6a2-7c3e-7abc-8def-0123456789ab";
const LIST: &str = "/guildhall.content.v1.TagService/ListTags";

/// Keeps the requests that got as far as the handler.
#[derive(Default)]
struct Tags(Arc<Mutex<Vec<ListTagsRequest>>>);

#[tonic::async_trait]
impl TagService for Tags {
    async fn list_tags(&self, request: Request<ListTagsRequest>) -> Result<Response<ListTagsResponse>, Status> {
        self.0.lock().unwrap().push(request.into_inner());
        Ok(Response::new(ListTagsResponse::default()))
    }

    async fn rename_tag(&self, _: Request<RenameTagRequest>) -> Result<Response<Tag>, Status> {
        unreachable!("no test calls it")
    }

    /// Answers a tag that no request could carry.
    async fn merge_tags(&self, _: Request<MergeTagsRequest>) -> Result<Response<Tag>, Status> {
        Ok(Response::new(Tag { name: "x".repeat(1000), ..Tag::default() }))
    }
}

/// The bytes as the body of a call without compression.
fn frame(message: &[u8]) -> Bytes {
    let mut frame = BytesMut::new();
    frame.put_u8(0);
    frame.put_u32(message.len().try_into().unwrap());
    frame.put_slice(message);
    frame.freeze()
}

/// Sends the bytes as the message of a ListTags call: what the handler saw, and what the client is told.
async fn list(message: &[u8]) -> (Vec<ListTagsRequest>, Option<Status>) {
    let tags = Tags::default();
    let seen = tags.0.clone();
    let request = http::Request::post(LIST)
        .header("content-type", "application/grpc")
        .body(Body::new(Full::new(frame(message))))
        .unwrap();
    let response = TagServiceServer::new(tags).oneshot(request).await.unwrap();
    let status = Status::from_header_map(response.headers()).filter(|status| status.code() != Code::Ok);
    let seen = seen.lock().unwrap().clone();
    (seen, status)
}

fn refused((seen, status): (Vec<ListTagsRequest>, Option<Status>)) -> (Code, Problem) {
    assert!(seen.is_empty(), "the handler saw {seen:?}");
    let status = status.expect("the call is refused");
    (status.code(), Problem::from(&status))
}

#[tokio::test]
async fn bytes_that_are_no_protobuf_are_a_malformed_request() {
    for bytes in [&b"\xff\xff\xff\xff"[..], b"{\"pageSize\": 1}", b"\x12\x7fshort"] {
        let (code, problem) = refused(list(bytes).await);
        assert_eq!((code, problem.reason()), (Code::InvalidArgument, Reason::MalformedRequest), "{bytes:?}");
        assert_eq!(problem.text(), Reason::MalformedRequest.title());
    }
}

#[tokio::test]
async fn a_string_that_is_no_utf8_is_a_malformed_request() {
    // Field 2, page_token, two bytes.
    let (code, problem) = refused(list(b"\x12\x02\xc3\x28").await);
    assert_eq!((code, problem.reason()), (Code::InvalidArgument, Reason::MalformedRequest));
}

#[tokio::test]
async fn a_field_of_a_newer_contract_is_ignored() {
    let mut bytes = ListTagsRequest { page_size: 7, ..ListTagsRequest::default() }.encode_to_vec();
    // Field 500, a varint.
    bytes.extend(b"\xa0\x1f\x2a");
    let (seen, status) = list(&bytes).await;
    assert!(status.is_none(), "{status:?}");
    assert_eq!(seen, [ListTagsRequest { page_size: 7, ..ListTagsRequest::default() }]);
}

#[tokio::test]
async fn a_request_that_breaks_a_rule_is_refused_with_the_field() {
    let request = ListTagsRequest { page_size: -1, page_token: "x".repeat(2000) };
    let (code, problem) = refused(list(&request.encode_to_vec()).await);
    assert_eq!((code, problem.reason()), (Code::InvalidArgument, Reason::InvalidFields));
    let fields: Vec<_> = problem.violation_list().iter().map(|violation| violation.field.as_str()).collect();
    assert_eq!(fields, ["pageSize", "pageToken"]);
}

#[tokio::test]
async fn an_answer_is_taken_as_it_is() {
    let mut client = TagServiceClient::new(TagServiceServer::new(Tags::default()));
    let request = MergeTagsRequest { tag_id: ID.to_owned(), target_id: ID.to_owned() };
    let tag = client.merge_tags(request).await.unwrap().into_inner();
    assert_eq!(tag.name.len(), 1000);
}

#[tokio::test]
async fn an_answer_that_is_no_protobuf_is_not_the_callers_fault() {
    let server = tower::service_fn(|_: http::Request<Body>| async {
        let response = http::Response::builder().header("content-type", "application/grpc");
        Ok::<_, Infallible>(response.body(Body::new(Full::new(frame(b"\xff\xff")))).unwrap())
    });
    let status = TagServiceClient::new(server).list_tags(ListTagsRequest::default()).await.unwrap_err();
    assert_eq!(status.code(), Code::Internal);
}

/// Sends one part of a stream, to a handler that takes every part.
async fn import(message: &[u8]) -> Option<Status> {
    let handler = tower::service_fn(|request: Request<Streaming<ImportPostsRequest>>| async {
        let mut parts = request.into_inner();
        while let Some(part) = parts.message().await? {
            assert_eq!(part.title, "");
        }
        Ok(Response::new(ImportPostsResponse::default()))
    });
    let codec = Codec::<ImportPostsResponse, ImportPostsRequest>::default();
    let request = http::Request::post("/").body(Body::new(Full::new(frame(message)))).unwrap();
    let response = Grpc::new(codec).client_streaming(handler, request).await;
    Status::from_header_map(response.headers()).filter(|status| status.code() != Code::Ok)
}

#[tokio::test]
async fn a_part_of_a_stream_that_breaks_a_rule_is_the_handlers_to_judge() {
    let status = import(&ImportPostsRequest::default().encode_to_vec()).await;
    assert!(status.is_none(), "{status:?}");
}

#[tokio::test]
async fn a_part_of_a_stream_that_is_no_protobuf_is_a_malformed_request() {
    let status = import(b"\xff\xff").await.unwrap();
    assert_eq!((status.code(), Problem::from(&status).reason()), (Code::InvalidArgument, Reason::MalformedRequest));
}
