//! The agent as workloads see it: through the `spiffe` crate's sources, and by bare calls where those are too polite.

mod api {
    #![allow(clippy::pedantic, dead_code, reason = "generated")]
    tonic::include_proto!("_");
}

use std::{
    collections::HashSet,
    fs,
    os::unix::fs::PermissionsExt,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use agent::{Agent, Error, Settings};
use api::{
    JwtBundlesRequest, JwtsvidRequest, ValidateJwtsvidRequest, X509BundlesRequest, X509svid, X509svidRequest,
    spiffe_workload_api_client::SpiffeWorkloadApiClient,
};
use ids::{Clock, ManualClock, Source, SystemClock, SystemRandom};
use spiffe::{JwtSource, JwtSvid, TrustDomain, X509Source};
use tempfile::TempDir;
use tonic::{Code, Request, transport::Channel};
use x509_parser::{
    certificate::X509Certificate,
    extensions::{GeneralName, ParsedExtension},
    prelude::FromDer,
};

const CONTENT: &str = "spiffe://guildhall.internal/ns/guildhall/sa/content";

fn settings(directory: &Path, svid_lifetime: Duration) -> Settings {
    Settings {
        directory: directory.join("agent"),
        trust_domain: "guildhall.internal".into(),
        namespace: "guildhall".into(),
        workloads: vec!["auth".into(), "content".into()],
        svid_lifetime,
        source: Source::system(),
    }
}

async fn started() -> (Agent, TempDir) {
    let directory = tempfile::tempdir().unwrap();
    let agent = Agent::start(settings(directory.path(), Duration::from_mins(5))).await.unwrap();
    (agent, directory)
}

async fn client(agent: &Agent, workload: &str) -> SpiffeWorkloadApiClient<Channel> {
    SpiffeWorkloadApiClient::connect(agent.endpoint(workload)).await.unwrap()
}

fn request<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("workload.spiffe.io", "true".parse().unwrap());
    request
}

/// Splits concatenated DER certificates.
fn certificates(mut der: &[u8]) -> Vec<X509Certificate<'_>> {
    let mut found = Vec::new();
    while !der.is_empty() {
        let (rest, certificate) = X509Certificate::from_der(der).unwrap();
        found.push(certificate);
        der = rest;
    }
    found
}

fn key_identifiers(certificate: &X509Certificate<'_>) -> (Option<Vec<u8>>, Option<Vec<u8>>) {
    let (mut own, mut issuer) = (None, None);
    for extension in certificate.extensions() {
        match extension.parsed_extension() {
            ParsedExtension::SubjectKeyIdentifier(id) => own = Some(id.0.to_vec()),
            ParsedExtension::AuthorityKeyIdentifier(id) => issuer = id.key_identifier.as_ref().map(|id| id.0.to_vec()),
            _ => {}
        }
    }
    (own, issuer)
}

async fn first_svid(agent: &Agent) -> X509svid {
    let mut states =
        client(agent, "content").await.fetch_x509svid(request(X509svidRequest {})).await.unwrap().into_inner();
    let mut svids = states.message().await.unwrap().unwrap().svids;
    assert_eq!(svids.len(), 1);
    svids.remove(0)
}

#[tokio::test]
async fn the_leaf_is_a_conforming_x509_svid() {
    let (agent, _directory) = started().await;
    let svid = first_svid(&agent).await;
    assert_eq!(svid.spiffe_id, CONTENT);
    let leaf = &certificates(&svid.x509_svid)[0];
    let root = &certificates(&svid.bundle)[0];

    let names = leaf.subject_alternative_name().unwrap().unwrap();
    assert!(matches!(names.value.general_names[..], [GeneralName::URI(CONTENT)]));
    let constraints = leaf.basic_constraints().unwrap().unwrap();
    assert!(!constraints.value.ca && constraints.critical);
    let usage = leaf.key_usage().unwrap().unwrap();
    assert!(usage.critical && usage.value.digital_signature());
    assert_eq!(usage.value.flags, 1, "digitalSignature and nothing else");

    assert!(root.basic_constraints().unwrap().unwrap().value.ca);
    assert!(root.key_usage().unwrap().unwrap().value.key_cert_sign());
    let (root_id, _) = key_identifiers(root);
    let (_, issuer_id) = key_identifiers(leaf);
    assert!(root_id.is_some() && root_id == issuer_id);
    assert_eq!(leaf.issuer(), root.subject());

    let now = Source::system().now().seconds();
    assert!(leaf.validity().not_before.timestamp() <= now - 30);
    assert!(leaf.validity().not_after.timestamp() <= now + 301);
}

#[tokio::test]
async fn each_socket_gives_its_own_identity_and_lies_private() {
    let (agent, directory) = started().await;
    for workload in ["auth", "content"] {
        let source = X509Source::builder().endpoint(agent.endpoint(workload)).build().await.unwrap();
        let id = source.svid().unwrap().spiffe_id().to_string();
        assert_eq!(id, format!("spiffe://guildhall.internal/ns/guildhall/sa/{workload}"));
    }
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let agent_directory = directory.path().join("agent");
    assert_eq!(mode(&agent_directory), 0o700);
    for file in ["auth.sock", "content.sock", "authority.json"] {
        assert_eq!(mode(&agent_directory.join(file)), 0o600, "{file}");
    }
}

#[tokio::test]
async fn a_call_needs_the_security_header_exactly_once() {
    let (agent, _directory) = started().await;
    let mut client = client(&agent, "content").await;
    let bare = client.fetch_x509svid(X509svidRequest {}).await.unwrap_err();
    assert_eq!(bare.code(), Code::InvalidArgument);

    let mut wrong = Request::new(JwtBundlesRequest {});
    wrong.metadata_mut().insert("workload.spiffe.io", "TRUE".parse().unwrap());
    assert_eq!(client.fetch_jwt_bundles(wrong).await.unwrap_err().code(), Code::InvalidArgument);

    let mut twice = request(X509BundlesRequest {});
    twice.metadata_mut().append("workload.spiffe.io", "true".parse().unwrap());
    assert_eq!(client.fetch_x509_bundles(twice).await.unwrap_err().code(), Code::InvalidArgument);
}

#[tokio::test]
async fn a_rotation_reaches_open_streams() {
    let (agent, _directory) = started().await;
    let source = X509Source::builder().endpoint(agent.endpoint("content")).build().await.unwrap();
    let mut updates = source.updated();
    let before = source.svid().unwrap();
    for _ in 0..3 {
        agent.rotate().await.unwrap();
        tokio::time::timeout(Duration::from_secs(5), updates.changed()).await.unwrap().unwrap();
    }
    let after = source.svid().unwrap();
    assert_ne!(before.leaf(), after.leaf());
    assert_eq!(before.spiffe_id(), after.spiffe_id());
}

#[tokio::test]
async fn svids_are_renewed_at_half_life() {
    let directory = tempfile::tempdir().unwrap();
    let lifetime = Duration::from_secs(2);
    let agent = Agent::start(settings(directory.path(), lifetime)).await.unwrap();
    let mut client = client(&agent, "content").await;
    let mut states = client.fetch_x509svid(request(X509svidRequest {})).await.unwrap().into_inner();
    states.message().await.unwrap().unwrap();
    let begun = Instant::now();
    for renewal in 1..=3 {
        tokio::time::timeout(Duration::from_secs(5), states.message()).await.unwrap().unwrap().unwrap();
        let at = begun.elapsed() + Duration::from_millis(300);
        assert!(at >= lifetime / 2 * renewal, "renewal {renewal} came early: {at:?}");
    }
}

#[tokio::test]
async fn a_new_authority_is_trusted_before_it_signs_and_the_old_one_until_its_last_svid_is_gone() {
    let directory = tempfile::tempdir().unwrap();
    let agent = Agent::start(settings(directory.path(), Duration::from_secs(3))).await.unwrap();
    let mut client = client(&agent, "content").await;
    let mut states = client.fetch_x509svid(request(X509svidRequest {})).await.unwrap().into_inner();
    let begin = states.message().await.unwrap().unwrap().svids.remove(0);
    let old_root = begin.bundle.clone();
    agent.rotate_authority().await.unwrap();

    let mut trusted: HashSet<Vec<u8>> = HashSet::new();
    let mut sizes = Vec::new();
    let mut svid = begin;
    loop {
        let roots = certificates(&svid.bundle);
        let subjects: HashSet<_> = roots.iter().map(|root| root.subject().to_string()).collect();
        assert_eq!(subjects.len(), roots.len(), "roots have distinct subjects");
        let bundle: HashSet<_> = roots.iter().filter_map(|root| key_identifiers(root).0).collect();
        let issuer = key_identifiers(&certificates(&svid.x509_svid)[0]).1.unwrap();
        assert!(bundle.contains(&issuer), "a bundle verifies its own leaf");
        assert!(trusted.is_empty() || trusted.contains(&issuer), "who is one update behind can verify it too");
        sizes.push(bundle.len());
        if sizes.len() > 1 && bundle.len() == 1 {
            assert_ne!(svid.bundle, old_root);
            break;
        }
        trusted = bundle;
        let next = tokio::time::timeout(Duration::from_secs(10), states.message()).await.unwrap();
        svid = next.unwrap().unwrap().svids.remove(0);
    }
    assert!(sizes.contains(&2));
}

#[tokio::test]
async fn jwt_svids_verify_by_the_bundle_for_their_audience_alone() {
    let (agent, _directory) = started().await;
    let source = JwtSource::builder().endpoint(agent.endpoint("content")).build().await.unwrap();
    let token = source.fetch_jwt_svid(["https://issuer.example"]).await.unwrap().token().to_owned();

    let svid = JwtSvid::parse_and_validate(&token, &source, &["https://issuer.example"]).unwrap();
    assert_eq!(svid.spiffe_id().to_string(), CONTENT);
    assert!(JwtSvid::parse_and_validate(&token, &source, &["another"]).is_err());
    let bundle = source.try_bundle_for_trust_domain(&TrustDomain::new("guildhall.internal").unwrap()).unwrap();
    assert!(bundle.find_jwt_authority(svid.key_id()).is_some());

    let mut client = client(&agent, "auth").await;
    let mut validate = async |audience: &str, svid: &str| {
        let message = ValidateJwtsvidRequest { audience: audience.into(), svid: svid.into() };
        client.validate_jwtsvid(request(message)).await.map(tonic::Response::into_inner)
    };
    let valid = validate("https://issuer.example", &token).await.unwrap();
    assert_eq!(valid.spiffe_id, CONTENT);
    assert!(valid.claims.unwrap().fields.contains_key("exp"));
    assert_eq!(validate("another", &token).await.unwrap_err().code(), Code::InvalidArgument);
    assert_eq!(validate("", &token).await.unwrap_err().code(), Code::InvalidArgument);
    let forged = format!("{}A", &token[..token.len() - 1]);
    let forged = if forged == token { format!("{}E", &token[..token.len() - 1]) } else { forged };
    assert!(validate("https://issuer.example", &forged).await.is_err());

    // Two at once: what the first authority signed is good until it expires.
    agent.rotate_authority().await.unwrap();
    agent.rotate_authority().await.unwrap();
    validate("https://issuer.example", &token).await.unwrap();
}

#[tokio::test]
async fn a_workload_gets_no_jwt_svid_of_another_and_none_without_an_audience() {
    let (agent, _directory) = started().await;
    let mut client = client(&agent, "content").await;
    let mut fetch = async |audience: &[&str], spiffe_id: &str| {
        let audience = audience.iter().map(ToString::to_string).collect();
        let message = JwtsvidRequest { audience, spiffe_id: spiffe_id.into() };
        client.fetch_jwtsvid(request(message)).await.map_err(|status| status.code())
    };
    assert_eq!(fetch(&[], "").await.unwrap_err(), Code::InvalidArgument);
    let other = "spiffe://guildhall.internal/ns/guildhall/sa/auth";
    assert_eq!(fetch(&["x"], other).await.unwrap_err(), Code::PermissionDenied);
    assert_eq!(fetch(&["x"], CONTENT).await.unwrap().into_inner().svids.len(), 1);
}

#[tokio::test]
async fn jwt_bundles_are_marked_for_jwt_svids() {
    let (agent, _directory) = started().await;
    let mut states =
        client(&agent, "auth").await.fetch_jwt_bundles(request(JwtBundlesRequest {})).await.unwrap().into_inner();
    let bundles = states.message().await.unwrap().unwrap().bundles;
    let jwks: serde_json::Value = serde_json::from_slice(&bundles["spiffe://guildhall.internal"]).unwrap();
    assert_eq!(jwks["keys"][0]["use"], "jwt-svid");
    assert_eq!(jwks["keys"][0]["kty"], "EC");
    assert!(jwks["keys"][0]["kid"].is_string());
}

#[tokio::test]
async fn a_restart_keeps_the_trust_domain_and_another_directory_is_another_one() {
    let (agent, directory) = started().await;
    let first = first_svid(&agent).await;
    agent.shutdown().await;
    assert!(!directory.path().join("agent/content.sock").exists());

    let again = Agent::start(settings(directory.path(), Duration::from_mins(5))).await.unwrap();
    let second = first_svid(&again).await;
    assert_eq!(first.bundle, second.bundle);
    assert_ne!(first.x509_svid, second.x509_svid);

    let (elsewhere, _other_directory) = started().await;
    assert_ne!(first_svid(&elsewhere).await.bundle, first.bundle);
}

#[tokio::test]
async fn two_agents_do_not_share_a_directory_and_a_damaged_authority_is_named() {
    let (agent, directory) = started().await;
    let second = Agent::start(settings(directory.path(), Duration::from_mins(5))).await;
    assert!(matches!(second.err(), Some(Error::InUse(path)) if path.ends_with("agent")));
    first_svid(&agent).await;
    agent.shutdown().await;

    fs::write(directory.path().join("agent/authority.json"), "{").unwrap();
    let damaged = Agent::start(settings(directory.path(), Duration::from_mins(5))).await;
    assert!(matches!(damaged.err(), Some(Error::Unreadable { path, .. }) if path.ends_with("authority.json")));
}

#[tokio::test]
async fn a_crash_leaves_nothing_that_a_new_start_stumbles_over() {
    let (agent, directory) = started().await;
    let first = first_svid(&agent).await;
    drop(agent);
    assert!(directory.path().join("agent/content.sock").exists());
    let again = Agent::start(settings(directory.path(), Duration::from_mins(5))).await.unwrap();
    assert_eq!(first_svid(&again).await.bundle, first.bundle);
}

#[tokio::test]
async fn an_old_authority_is_replaced_with_overlap_after_a_restart_too() {
    let directory = tempfile::tempdir().unwrap();
    let clock = Arc::new(ManualClock::new(SystemClock.now()));
    let settings = Settings {
        source: Source::new(clock.clone(), Arc::new(SystemRandom)),
        ..settings(directory.path(), Duration::from_secs(10))
    };
    let agent = Agent::start(settings.clone()).await.unwrap();
    let old = first_svid(&agent).await.bundle;
    agent.shutdown().await;

    clock.advance(Duration::from_hours(16 * 24));
    let agent = Agent::start(settings.clone()).await.unwrap();
    let mut client = client(&agent, "content").await;
    let mut states = client.fetch_x509svid(request(X509svidRequest {})).await.unwrap().into_inner();
    let mut next = async || {
        let state = tokio::time::timeout(Duration::from_secs(10), states.message()).await.unwrap();
        state.unwrap().unwrap().svids.remove(0)
    };
    let root = |der: &[u8]| certificates(der)[0].subject().to_string();
    loop {
        let svid = next().await;
        assert!(certificates(&svid.bundle).iter().any(|kept| kept.subject().to_string() == root(&old)));
        if certificates(&svid.x509_svid)[0].issuer().to_string() != root(&old) {
            break;
        }
    }
    agent.shutdown().await;

    clock.advance(Duration::from_hours(31 * 24));
    let agent = Agent::start(settings).await.unwrap();
    let fresh = first_svid(&agent).await.bundle;
    assert_eq!(certificates(&fresh).len(), 1, "nothing that has expired is kept");
}

#[tokio::test]
async fn keys_that_others_can_read_and_those_of_another_trust_domain_are_not_used() {
    let (agent, directory) = started().await;
    agent.shutdown().await;
    let (of_agent, file) = (directory.path().join("agent"), directory.path().join("agent/authority.json"));
    let set = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    let start = async |trust_domain: &str| {
        let settings = settings(directory.path(), Duration::from_mins(5));
        Agent::start(Settings { trust_domain: trust_domain.into(), ..settings }).await.err()
    };

    set(&file, 0o640);
    assert!(matches!(start("guildhall.internal").await, Some(Error::Exposed(path)) if path == file));
    set(&file, 0o600);
    set(&of_agent, 0o755);
    assert!(matches!(start("guildhall.internal").await, Some(Error::Exposed(path)) if path == of_agent));
    assert_eq!(fs::metadata(&of_agent).unwrap().permissions().mode() & 0o777, 0o755, "it is left as it was");
    set(&of_agent, 0o700);
    let foreign = start("example.org").await;
    assert!(matches!(foreign, Some(Error::TrustDomain { kept, .. }) if kept == "guildhall.internal"));
    assert!(start("guildhall.internal").await.is_none());
}
