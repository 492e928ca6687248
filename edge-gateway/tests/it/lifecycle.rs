//! Starting, TLS, and the end.

use std::{io::Write, path::Path, sync::Arc, time::Duration};

use edge_gateway::config::Tls;
use http::Version;
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::{
    harness::{Edge, SOON, read_to_end},
    upstream::Export,
};

#[tokio::test]
async fn the_admin_port_tells_health_readiness_and_metrics() {
    let edge = Edge::start().await;
    edge.get("/api/v1/posts").send().await.expect("an answer");
    for path in ["/healthz", "/readyz", "/metrics"] {
        assert_eq!(edge.service.admin(path).await.0, 200, "{path}");
    }
    assert!(edge.service.admin("/metrics").await.1.contains("/api/v1/posts"), "measured by route");
}

#[tokio::test]
async fn one_port_speaks_http_1_and_h2c_on_both_loopback_addresses() {
    let edge = Edge::start().await;
    assert_eq!(edge.get("/").send().await.expect("an answer").version(), Version::HTTP_11);
    let h2 = reqwest::Client::builder().http2_prior_knowledge().build().expect("a client");
    assert_eq!(h2.get(edge.url("/")).send().await.expect("an answer").version(), Version::HTTP_2);
    if std::net::TcpListener::bind("[::1]:0").is_ok() {
        let url = format!("http://[::1]:{}/", edge.service.address().port());
        assert_eq!(edge.client.get(url).send().await.expect("an answer").status(), 200);
    }
}

/// Writes a new self-signed certificate for `localhost`, and gives its bytes.
fn certify(directory: &Path) -> Vec<u8> {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    for (name, text) in [("tls.key", made.signing_key.serialize_pem()), ("tls.crt", made.cert.pem())] {
        let mut file = std::fs::File::create(directory.join(name)).expect("a file");
        file.write_all(text.as_bytes()).expect("written");
    }
    made.cert.der().to_vec()
}

/// The protocol that is agreed on, and an answer over it where that is HTTP/1.1; `None` where the certificate is another.
async fn over_tls(edge: &Edge, certificate: &[u8], protocols: &[&str]) -> Option<(String, String)> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(certificate.to_vec().into()).expect("a certificate");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder =
        rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().expect("TLS 1.3");
    let mut config = builder.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
    let stream = TcpStream::connect(edge.service.address()).await.expect("the port is open");
    let name = "localhost".try_into().expect("a name");
    let mut stream = tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, stream).await.ok()?;
    let agreed = String::from_utf8_lossy(stream.get_ref().1.alpn_protocol().unwrap_or_default()).into_owned();
    let mut answer = Vec::new();
    if agreed == "http/1.1" {
        stream.write_all(b"GET / HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").await.expect("sent");
        let _ = tokio::time::timeout(SOON, stream.read_to_end(&mut answer)).await.expect("an answer");
    }
    Some((agreed, String::from_utf8_lossy(&answer).into_owned()))
}

#[tokio::test]
async fn tls_offers_h2_and_takes_up_a_new_certificate() {
    let directory = tempfile::tempdir().expect("a directory");
    let first = certify(directory.path());
    let tls = Tls {
        certificates: directory.path().join("tls.crt"),
        key: directory.path().join("tls.key"),
        reload: Duration::from_millis(20),
    };
    let edge = Edge::with(|config| config.tls = Some(tls)).await;
    assert_eq!(over_tls(&edge, &first, &["h2", "http/1.1"]).await.map(|(agreed, _)| agreed).as_deref(), Some("h2"));
    let (_, answer) = over_tls(&edge, &first, &["http/1.1"]).await.expect("the certificate is trusted");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let second = certify(directory.path());
    let renewed = async {
        while over_tls(&edge, &second, &["h2"]).await.is_none() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(SOON, renewed).await.expect("the new certificate is taken up");
    let plain = edge.raw(b"GET / HTTP/1.1\r\n\r\n").await;
    assert!(!plain.contains("200 OK"), "{plain:?}");
}

#[tokio::test]
async fn a_drain_lets_requests_in_flight_end_and_takes_no_new_connections() {
    let edge = Edge::start().await;
    let mut stream = TcpStream::connect(edge.service.address()).await.expect("the port is open");
    let body = json!({"title": "a"}).to_string();
    let head = format!(
        "POST /api/v1/posts HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {}\r\ncontent-type: application/json\r\ncontent-length: {}\r\nexpect: 100-continue\r\n\r\n",
        edge.token(),
        body.len()
    );
    stream.write_all(head.as_bytes()).await.expect("sent");
    let mut proceed = [0; 25];
    stream.read_exact(&mut proceed).await.expect("the edge waits for the body");
    edge.service.drain();
    let closed = async { while TcpStream::connect(edge.service.address()).await.is_ok() {} };
    tokio::time::timeout(SOON, closed).await.expect("no new connections");
    stream.write_all(body.as_bytes()).await.expect("sent");
    let answer = read_to_end(stream).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(answer.to_lowercase().contains("connection: close"), "{answer}");
}

#[tokio::test]
async fn a_stream_does_not_hold_the_end_for_longer_than_the_grace() {
    let edge = Edge::start().await;
    edge.upstream.export(Export::Hangs);
    let request =
        edge.get("/api/v1/posts:export").bearer_auth(edge.admin_token()).header("accept", "text/event-stream");
    let response = request.send().await.expect("an answer");
    edge.upstream.running(1).await;
    tokio::time::timeout(SOON, edge.service.stop()).await.expect("within the grace").expect("in order");
    drop(response);
    edge.upstream.running(0).await;
}
