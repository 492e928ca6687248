//! Rate limits, and limits of size and time.

use std::time::Duration;

use edge_gateway::{Config, limit::Rate};
use futures_util::stream;
use http::StatusCode;
use keyspace::testing::Server;
use mesh::Tier;
use serde_json::json;
use testkit::TokenSpec;
use tokio::{
    io::AsyncWriteExt,
    net::{TcpSocket, TcpStream},
};

use crate::harness::{Edge, SOON, problem, read_to_end, refused, user};

const TWO: Rate = Rate { per_second: 0.5, burst: 2 };

#[tokio::test]
async fn an_address_is_limited_by_class_and_let_in_again_when_told() {
    let (edge, clock) = Edge::with_clock(|config| config.limit.address.read = TWO).await;
    let first = edge.get("/api/v1/posts").send().await.expect("an answer");
    assert_eq!(first.headers()["ratelimit-policy"], "\"read\";q=2;w=4");
    assert_eq!(first.headers()["ratelimit"], "\"read\";r=1;t=2");
    edge.get("/api/v1/posts").send().await.expect("an answer");
    let refusal = edge.get("/api/v1/posts").send().await.expect("an answer");
    assert_eq!(refusal.headers()["retry-after"], "2");
    assert_eq!(refusal.headers()["ratelimit"], "\"read\";r=0;t=4");
    let problem = problem(refusal).await;
    assert_eq!((&problem["reason"], &problem["retryAfter"]), (&json!("RATE_LIMITED"), &json!(2)));
    assert_eq!(edge.upstream.calls(), 2);
    let write = edge.post("/api/v1/posts", &json!({"title": "a"})).bearer_auth(edge.token());
    assert_eq!(write.send().await.expect("an answer").status(), StatusCode::OK, "another class");
    clock.advance(Duration::from_secs(2));
    assert_eq!(edge.get("/api/v1/posts").send().await.expect("an answer").status(), StatusCode::OK);
}

#[tokio::test]
async fn a_user_is_limited_by_tier() {
    let (edge, _clock) = Edge::with_clock(|config| config.limit.free.read = TWO).await;
    let get =
        |tier| edge.get("/api/v1/posts").bearer_auth(edge.mesh.token(&TokenSpec { tier, ..TokenSpec::member(user()) }));
    for _ in 0..2 {
        assert_eq!(get(Tier::Free).send().await.expect("an answer").status(), StatusCode::OK);
    }
    refused(get(Tier::Free), 429, "RATE_LIMITED").await;
    let other = edge.mesh.token(&TokenSpec::member(ids::UserId::from(ids::Uuid::from_u128(9))));
    assert_eq!(edge.get("/api/v1/posts").bearer_auth(other).send().await.expect("an answer").status(), StatusCode::OK);
}

#[tokio::test]
async fn addresses_behind_a_trusted_proxy_have_buckets_of_their_own() {
    let (edge, _clock) = Edge::with_clock(|config| {
        config.limit.address.read = TWO;
        config.trusted_proxies = vec!["127.0.0.0/8".parse().expect("a network")];
    })
    .await;
    let get = |client| edge.get("/api/v1/posts").header("x-forwarded-for", client);
    for _ in 0..2 {
        assert_eq!(get("192.0.2.1").send().await.expect("an answer").status(), StatusCode::OK);
    }
    refused(get("192.0.2.1"), 429, "RATE_LIMITED").await;
    refused(get("203.0.113.9, 192.0.2.1"), 429, "RATE_LIMITED").await;
    assert_eq!(get("192.0.2.2").send().await.expect("an answer").status(), StatusCode::OK);
    assert_eq!(edge.upstream.last().headers["x-client-address"], "192.0.2.2");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn edges_take_from_the_same_buckets_and_each_from_its_own_while_redis_is_away() {
    let mut server = Server::start(&[]).await;
    let narrow = |config: &mut Config| config.limit.address.read = Rate { per_second: 0.001, burst: 2 };
    let [one, other] =
        [Edge::on_redis(server.keyspace(), narrow).await, Edge::on_redis(server.keyspace(), narrow).await];
    for edge in [&one, &other] {
        assert_eq!(edge.get("/api/v1/posts").send().await.expect("an answer").status(), StatusCode::OK);
    }
    for edge in [&one, &other] {
        refused(edge.get("/api/v1/posts"), 429, "RATE_LIMITED").await;
    }
    server.kill().await;
    for edge in [&one, &other] {
        assert_eq!(edge.get("/api/v1/posts").send().await.expect("an answer").status(), StatusCode::OK);
        refused(edge.get("/api/v1/posts"), 429, "RATE_LIMITED").await;
    }
}

#[tokio::test]
async fn what_was_not_routed_is_limited_too() {
    let (edge, _clock) = Edge::with_clock(|config| config.limit.address.read = TWO).await;
    for _ in 0..2 {
        refused(edge.get("/api/v1/nothing"), 404, "ROUTE_NOT_FOUND").await;
    }
    refused(edge.get("/api/v1/nothing"), 429, "RATE_LIMITED").await;
}

#[tokio::test]
async fn the_factor_widens_every_limit() {
    let (edge, _clock) = Edge::with_clock(|config| {
        config.limit.address.read = TWO;
        config.limit.factor = 1000.0;
    })
    .await;
    let response = edge.get("/api/v1/posts").send().await.expect("an answer");
    assert_eq!(response.headers()["ratelimit-policy"], "\"read\";q=2000;w=4");
}

#[tokio::test]
async fn huge_bodies_are_refused_with_and_without_a_length() {
    let edge = Edge::with(|config| config.request.body_bytes = 10_000).await;
    let body = json!({"title": "a", "markdown": "a".repeat(20_000)}).to_string();
    let request = || {
        edge.client.post(edge.url("/api/v1/posts")).bearer_auth(edge.token()).header("content-type", "application/json")
    };
    refused(request().body(body.clone()), 413, "PAYLOAD_TOO_LARGE").await;
    let chunks = stream::iter([Ok::<_, std::io::Error>(body)]);
    refused(request().body(reqwest::Body::wrap_stream(chunks)), 413, "PAYLOAD_TOO_LARGE").await;
    assert_eq!(edge.upstream.calls(), 0);
}

#[tokio::test]
async fn a_body_that_stands_still_is_408() {
    let edge = Edge::with(|config| config.request.body_idle = Duration::from_millis(200)).await;
    for (path, token, content_type) in [
        ("/api/v1/posts", edge.token(), "application/json"),
        ("/api/v1/posts:import", edge.admin_token(), "application/x-ndjson"),
    ] {
        let mut stream = TcpStream::connect(edge.service.address()).await.expect("the port is open");
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\nauthorization: Bearer {token}\r\ncontent-type: {content_type}\r\ncontent-length: 100\r\n\r\n{{"
        );
        stream.write_all(head.as_bytes()).await.expect("sent");
        let answer = read_to_end(stream).await;
        assert!(answer.starts_with("HTTP/1.1 408"), "{path}: {answer}");
        assert!(answer.contains("REQUEST_TIMEOUT"), "{path}: {answer}");
    }
}

#[tokio::test]
async fn a_head_that_does_not_end_closes_the_connection() {
    let edge = Edge::with(|config| config.connection.header_read = Duration::from_millis(200)).await;
    let answer = edge.raw(b"GET / HTTP/1.1\r\nhost: a\r\nx-slow: ").await;
    assert!(!answer.starts_with("HTTP/1.1 200"), "{answer}");
}

#[tokio::test]
async fn a_connection_without_a_request_is_closed() {
    let edge = Edge::with(|config| {
        config.connection.idle = Duration::from_millis(200);
        config.connection.header_read = Duration::from_mins(1);
    })
    .await;
    assert_eq!(edge.raw(b"").await, "");
    let answer = edge.raw(b"GET /healthz-of-nobody HTTP/1.1\r\nhost: a\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 404"), "answered, and closed when nothing followed: {answer}");
}

#[tokio::test]
async fn a_client_that_takes_nothing_of_its_answer_is_cut_off() {
    let edge = Edge::with(|config| config.connection.write_stall = Duration::from_millis(200)).await;
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_recv_buffer_size(4096).expect("a small buffer");
    let mut stream = socket.connect(edge.service.address()).await.expect("the port is open");
    stream.write_all(b"GET /api/v1/posts?tag=large HTTP/1.1\r\nhost: a\r\n\r\n").await.expect("sent");
    let cut = async {
        while stream.write_all(b"\r\n").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(SOON, cut).await.expect("the edge closes the connection");
}

#[tokio::test]
async fn floods_of_headers_and_long_addresses_are_problems() {
    let edge = Edge::start().await;
    let many = (0..150).fold(edge.get("/api/v1/posts"), |request, at| request.header(format!("x-{at}"), "a"));
    refused(many, 431, "HEADERS_TOO_LARGE").await;
    refused(edge.get("/api/v1/posts").header("x-large", "a".repeat(40_000)), 431, "HEADERS_TOO_LARGE").await;
    refused(edge.get(&format!("/api/v1/posts?tag={}", "a".repeat(9_000))), 414, "URI_TOO_LONG").await;
    let flood = format!("GET / HTTP/1.1\r\n{}\r\n", "x-a: b\r\n".repeat(5_000));
    let answer = edge.raw(flood.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 431"), "{answer}");
}

#[tokio::test]
async fn bytes_that_are_no_http_are_refused() {
    let edge = Edge::start().await;
    for nonsense in
        ["\x16\x03\x01 hello\r\n\r\n", "GET\r\n\r\n", "GET / HTTP/1.1\r\nbad header\r\n\r\n", "GET / HTTP/9.9\r\n\r\n"]
    {
        let answer = edge.raw(nonsense.as_bytes()).await;
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{nonsense:?}: {answer}");
    }
    let smuggled = "POST /api/v1/posts HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\nGET / HTTP/1.1\r\nhost: a\r\n\r\n";
    let answer = edge.raw(format!("{smuggled}\r\n").as_bytes()).await;
    assert!(!answer.contains("HTTP/1.1 200"), "{answer}");
}

#[tokio::test]
async fn http_1_1_needs_exactly_one_host() {
    let edge = Edge::start().await;
    for (head, status) in [
        ("HTTP/1.1\r\nhost: a\r\n", "200"),
        ("HTTP/1.1\r\n", "400"),
        ("HTTP/1.1\r\nhost: a\r\nhost: b\r\n", "400"),
        ("HTTP/1.0\r\n", "200"),
        ("HTTP/1.0\r\nhost: a\r\nhost: a\r\n", "400"),
        ("HTTP/1.1\r\nhost: a/b\r\n", "400"),
    ] {
        for method in ["GET", "OPTIONS"] {
            let answer = edge.raw(format!("{method} / {head}connection: close\r\n\r\n").as_bytes()).await;
            let status = if status == "200" && method == "OPTIONS" { "204" } else { status };
            assert_eq!(answer.split(' ').nth(1), Some(status), "{method} {head:?}: {answer}");
            assert_eq!(answer.contains("MALFORMED_REQUEST"), status == "400", "{method} {head:?}: {answer}");
        }
    }
}

#[tokio::test]
async fn over_http_2_host_and_authority_must_mean_the_same() {
    let edge = Edge::start().await;
    let client = reqwest::Client::builder().http2_prior_knowledge().build().expect("a client");
    let url = edge.url("/").replace("127.0.0.1", "localhost");
    let port = edge.service.address().port();
    let get = |host: String| client.get(&url).header("host", host);
    for same in [format!("localhost:{port}"), format!("LOCALHOST:{port}")] {
        assert_eq!(get(same).send().await.expect("an answer").status(), StatusCode::OK);
    }
    for other in [format!("example.org:{port}"), "localhost".to_owned(), "localhost:1".to_owned(), String::new()] {
        let problem = refused(get(other), 400, "MALFORMED_REQUEST").await;
        assert_eq!(problem["violations"][0]["field"], "Host");
    }
    let grpc = client.post(format!("{url}guildhall.content.v1.PostService/GetPost")).header("host", "example.org");
    for (media_type, answered) in
        [("application/grpc", "application/grpc"), ("application/grpc-web", "application/grpc-web+proto")]
    {
        let call = grpc.try_clone().expect("no body").header("content-type", media_type);
        let refusal = call.send().await.expect("an answer");
        assert_eq!(
            (&refusal.headers()["grpc-status"], &refusal.headers()["content-type"]),
            (&http::HeaderValue::from_static("3"), &http::HeaderValue::from_static(answered))
        );
    }
}

#[tokio::test]
async fn transfer_codings_other_than_chunked_are_refused() {
    let edge = Edge::start().await;
    for (codings, refused) in [
        ("transfer-encoding: chunked", false),
        ("transfer-encoding: Chunked", false),
        ("transfer-encoding: gzip, chunked", true),
        ("transfer-encoding: gzip\r\ntransfer-encoding: chunked", true),
        ("transfer-encoding: chunked, chunked", true),
    ] {
        let head = "POST /api/v1/auth/login HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-type: application/json";
        let request = format!("{head}\r\n{codings}\r\n\r\n2\r\n{{}}\r\n0\r\n\r\n");
        let answer = edge.raw(request.as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 400"), "{codings}: {answer}");
        assert_eq!(answer.contains("\"field\":\"Transfer-Encoding\""), refused, "{codings}: {answer}");
    }
}

#[tokio::test]
async fn connections_of_one_address_are_limited() {
    let edge = Edge::with(|config| config.connection.most_per_address = 2).await;
    let mut open = Vec::new();
    for _ in 0..2 {
        let mut stream = TcpStream::connect(edge.service.address()).await.expect("the port is open");
        stream.write_all(b"GET /x HTTP/1.1\r\nhost: a\r\n\r\n").await.expect("sent");
        let mut answer = [0; 12];
        tokio::io::AsyncReadExt::read_exact(&mut stream, &mut answer).await.expect("an answer");
        assert_eq!(&answer, b"HTTP/1.1 404");
        open.push(stream);
    }
    let third = TcpStream::connect(edge.service.address()).await.expect("the port is open");
    assert_eq!(read_to_end(third).await, "", "closed at once");
}
