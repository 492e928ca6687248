use std::{sync::Arc, time::Duration};

use contracts::{
    auth::v1::{profile_service_client::ProfileServiceClient, profile_service_server::ProfileServiceServer},
    content::v1::{ListTagsRequest, tag_service_client::TagServiceClient, tag_service_server::TagServiceServer},
};
use hyper_util::rt::TokioIo;
use mesh::{IdentitySettings, identity::Error};
use spiffe::X509Source;
use spiffe_rustls::{LocalOnly, mtls_client};
use status::Reason;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::mpsc,
};
use tokio_rustls::TlsConnector;
use tonic::transport::Endpoint;

use crate::{
    services::{Profiles, Tags, anybody},
    world::{World, agent, identity, identity_in, reason, soon},
};

fn profiles() -> ProfileServiceServer<Profiles> {
    ProfileServiceServer::new(Profiles { seen: mpsc::unbounded_channel().0, hang: false })
}

#[tokio::test]
async fn a_workload_calls_another_over_mutual_tls() {
    let world = World::start().await;
    let auth = world.serve("auth", |server| server.grpc(profiles())).await;
    let channel = world.channel("content", "auth", &auth).await;
    ProfileServiceClient::new(channel).batch_get_profiles(anybody()).await.unwrap();
}

#[tokio::test]
async fn a_workload_that_the_contract_does_not_name_is_told_so() {
    let world = World::start().await;
    let auth = world.serve("auth", |server| server.grpc(profiles())).await;
    for workload in ["edge-gateway", "comment", "auth"] {
        let channel = world.channel(workload, "auth", &auth).await;
        let answer = ProfileServiceClient::new(channel).batch_get_profiles(anybody()).await;
        assert_eq!(reason(answer), Reason::WorkloadNotAllowed, "{workload}");
    }
}

#[tokio::test]
async fn a_server_with_another_workloads_svid_is_not_spoken_to() {
    let world = World::start().await;
    let impostor = world.serve("comment", |server| server.grpc(TagServiceServer::new(Tags::default()))).await;
    let channel = world.channel("edge-gateway", "content", &impostor).await;
    let answer = TagServiceClient::new(channel).list_tags(ListTagsRequest::default()).await;
    assert_eq!(reason(answer), Reason::Unavailable);
}

#[tokio::test]
async fn another_authority_is_refused_by_both_sides_though_every_name_agrees() {
    let world = World::start().await;
    let tags = Tags::default();
    let calls = tags.calls.clone();
    let content = world.serve("content", |server| server.grpc(TagServiceServer::new(tags))).await;

    let directory = tempfile::tempdir().unwrap();
    let foreign = agent(&directory, "guildhall.internal", "guildhall", Duration::from_mins(5)).await;
    let edge = identity(&foreign, "edge-gateway").await;
    let channel = mesh::connect(&edge, "content".parse().unwrap(), content.address.into());
    let answer = TagServiceClient::new(channel).list_tags(ListTagsRequest::default()).await;
    assert_eq!(reason(answer), Reason::Unavailable);
    assert_eq!(calls.load(std::sync::atomic::Ordering::SeqCst), 0);
}

#[tokio::test]
async fn another_trust_domain_is_refused() {
    let world = World::start().await;
    let content = world.serve("content", |server| server.grpc(TagServiceServer::new(Tags::default()))).await;
    let directory = tempfile::tempdir().unwrap();
    let foreign = agent(&directory, "elsewhere.example", "guildhall", Duration::from_mins(5)).await;
    let edge = identity_in(&foreign, "edge-gateway", "elsewhere.example").await;
    let channel = mesh::connect(&edge, "content".parse().unwrap(), content.address.into());
    let answer = TagServiceClient::new(channel).list_tags(ListTagsRequest::default()).await;
    assert_eq!(reason(answer), Reason::Unavailable);
}

#[tokio::test]
async fn a_workload_of_another_namespace_is_nobody_though_its_name_and_authority_agree() {
    let directory = tempfile::tempdir().unwrap();
    let lifetime = Duration::from_mins(5);
    let here = agent(&directory, "guildhall.internal", "guildhall", lifetime).await;
    let world = World::with_agent(here, directory);
    let content = world.serve("content", |server| server.grpc(TagServiceServer::new(Tags::default()))).await;
    world.agent.shutdown().await;
    // The authority lies in the directory, so it is the next agent's too.
    let elsewhere = agent(&world.directory, "guildhall.internal", "elsewhere", lifetime).await;
    let source = X509Source::builder().endpoint(elsewhere.endpoint("edge-gateway")).build().await.unwrap();
    let id = source.svid().unwrap().spiffe_id().to_string();
    assert_eq!(id, "spiffe://guildhall.internal/ns/elsewhere/sa/edge-gateway");

    let config = mtls_client(source)
        .trust_domain_policy(LocalOnly("guildhall.internal".try_into().unwrap()))
        .with_alpn_protocols([b"h2"])
        .build()
        .unwrap();
    let tls = TlsConnector::from(Arc::new(config));
    let address = content.address;
    let connector = tower::service_fn(move |_| {
        let tls = tls.clone();
        async move {
            let tcp = TcpStream::connect(address).await?;
            tls.connect("content".try_into().unwrap(), tcp).await.map(TokioIo::new)
        }
    });
    let channel = Endpoint::from_static("https://content").connect_with_connector(connector).await.unwrap();
    let answer = TagServiceClient::new(channel).list_tags(ListTagsRequest::default()).await;
    assert_eq!(reason(answer), Reason::WorkloadNotAllowed);
}

#[tokio::test]
async fn plaintext_and_a_client_without_certificate_get_no_answer() {
    let world = World::start().await;
    let content = world.serve("content", |server| server.grpc(TagServiceServer::new(Tags::default()))).await;

    let mut plain = TcpStream::connect(content.address).await.unwrap();
    plain.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.unwrap();
    let mut answer = Vec::new();
    // Reset or closed, with a TLS alert at most.
    let _ = soon(plain.read_to_end(&mut answer)).await;
    assert!(answer.len() < 10, "{answer:?}");

    let mut config = tokio_rustls::rustls::ClientConfig::builder()
        .dangerous()
        .with_custom_certificate_verifier(trusting::anybody())
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let connector = TlsConnector::from(Arc::new(config));
    let tcp = TcpStream::connect(content.address).await.unwrap();
    let mut stream = soon(connector.connect("content".try_into().unwrap(), tcp)).await.unwrap();
    let mut answer = Vec::new();
    let error = soon(stream.read_to_end(&mut answer)).await.unwrap_err();
    assert!(error.to_string().contains("CertificateRequired"), "{error}");
    assert!(answer.is_empty());
}

#[tokio::test]
async fn an_identity_must_be_the_configured_one() {
    let world = World::start().await;
    let connect = |trust_domain: &str, namespace: &str| {
        mesh::Identity::connect(IdentitySettings {
            endpoint: world.agent.endpoint("content"),
            trust_domain: trust_domain.into(),
            namespace: namespace.into(),
        })
    };
    assert!(matches!(connect("elsewhere.example", "guildhall").await.err(), Some(Error::Foreign { .. })));
    assert!(matches!(connect("guildhall.internal", "another").await.err(), Some(Error::Foreign { .. })));
    assert!(matches!(connect("not a domain", "guildhall").await.err(), Some(Error::TrustDomain { .. })));

    let identity = connect("guildhall.internal", "guildhall").await.unwrap();
    assert_eq!(identity.spiffe_id().to_string(), "spiffe://guildhall.internal/ns/guildhall/sa/content");
    assert_eq!(identity.workload().as_str(), "content");
    let left = identity.leaf_expiry().unwrap().since(ids::Source::system().now());
    assert!(left > Duration::from_mins(9) && left <= Duration::from_mins(10) + Duration::from_secs(1), "{left:?}");
}

#[tokio::test]
async fn a_jwt_svid_tells_another_process_who_this_one_is() {
    let world = World::start().await;
    let content = world.identity("content").await;
    let auth = world.identity("auth").await;
    let token = content.jwt_svid("https://issuer.example").await.unwrap();
    assert_eq!(auth.verify_jwt_svid(&token, "https://issuer.example").unwrap(), *content.spiffe_id());
    assert!(auth.verify_jwt_svid(&token, "https://other.example").is_err());

    let directory = tempfile::tempdir().unwrap();
    let foreign = agent(&directory, "guildhall.internal", "guildhall", Duration::from_mins(5)).await;
    let stranger = identity(&foreign, "content").await;
    let forged = stranger.jwt_svid("https://issuer.example").await.unwrap();
    assert!(auth.verify_jwt_svid(&forged, "https://issuer.example").is_err());
}

/// A client that does not care whom it speaks to, to find out whether the server does.
mod trusting {
    use std::sync::Arc;

    use tokio_rustls::rustls::{
        DigitallySignedStruct, Error, SignatureScheme,
        client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        crypto::aws_lc_rs::default_provider,
        pki_types::{CertificateDer, ServerName, UnixTime},
    };

    #[derive(Debug)]
    struct Anybody;

    pub fn anybody() -> Arc<dyn ServerCertVerifier> {
        Arc::new(Anybody)
    }

    impl ServerCertVerifier for Anybody {
        fn verify_server_cert(
            &self,
            _: &CertificateDer<'_>,
            _: &[CertificateDer<'_>],
            _: &ServerName<'_>,
            _: &[u8],
            _: UnixTime,
        ) -> Result<ServerCertVerified, Error> {
            Ok(ServerCertVerified::assertion())
        }

        fn verify_tls12_signature(
            &self,
            _: &[u8],
            _: &CertificateDer<'_>,
            _: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            Ok(HandshakeSignatureValid::assertion())
        }

        fn verify_tls13_signature(
            &self,
            _: &[u8],
            _: &CertificateDer<'_>,
            _: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            Ok(HandshakeSignatureValid::assertion())
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            default_provider().signature_verification_algorithms.supported_schemes()
        }
    }
}
