use std::path::Path;
use std::process::Command;

use mesh::{Authorizer, Identity, IdentitySettings, Server};
use serde_json::Value;
use tempfile::TempDir;
use testkit::Mesh;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

use crate::program::{Process, answer, complaint, eventually, program};

fn agent(directory: &Path, workloads: &str) -> Command {
    let mut command = program(&["agent", "--workload", workloads, "--directory"]);
    command.arg(directory);
    command
}

pub async fn started(directory: &Path, workloads: &str, lifetime: &str) -> Process {
    let process = Process::start(agent(directory, workloads).args(["--svid-lifetime", lifetime]));
    let last = workloads.rsplit(',').next().unwrap();
    let socket = directory.join(format!("{last}.sock"));
    eventually("the agent listens", async || tokio::net::UnixStream::connect(&socket).await.ok()).await;
    process
}

async fn identity(directory: &Path, workload: &str) -> Identity {
    let settings = IdentitySettings {
        endpoint: format!("unix:{}", directory.join(format!("{workload}.sock")).display()),
        trust_domain: "guildhall.internal".to_owned(),
        namespace: "guildhall".to_owned(),
    };
    Identity::connect(settings).await.unwrap()
}

fn svid(directory: &Path, workload: &str) -> Value {
    let socket = format!("unix:{}", directory.join(format!("{workload}.sock")).display());
    serde_json::from_str(&answer(&mut program(&["svid", "--json", "--socket", &socket]))).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_crash_what_was_issued_before_and_after_trust_each_other() {
    let home = TempDir::new().unwrap();
    let directory = home.path().join("agent");
    let mut first = started(&directory, "content", "10m").await;
    let before = identity(&directory, "content").await;
    first.kill();
    // Not `content` any more: whoever got an identity there keeps the one of before.
    let _second = started(&directory, "auth,edge-gateway", "10m").await;
    let after = identity(&directory, "auth").await;

    let mesh = Mesh::start().await;
    for (server, client) in [(&before, &after), (&after, &before)] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let authorizer = Authorizer::new(server.workload(), mesh.verifier(), mesh.source().clone());
        let (_reporter, health) = tonic_health::server::health_reporter();
        let serves = Server::new(server.clone(), authorizer).grpc(health);
        let drain = CancellationToken::new();
        let serving = tokio::spawn(serves.serve(listener, drain.clone(), CancellationToken::new()));
        let channel = mesh::connect(client, server.workload().clone(), address.into());
        HealthClient::new(channel).check(HealthCheckRequest::default()).await.unwrap();
        drain.cancel();
        serving.await.unwrap().unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hangup_takes_a_new_ca_into_use_with_overlap_and_term_ends_in_order() {
    let home = TempDir::new().unwrap();
    let directory = home.path().join("agent");
    let mut process = started(&directory, "auth,content", "4s").await;
    let begin = svid(&directory, "content");
    let old = begin["roots"][0]["subject"].clone();
    assert_eq!(begin["x509Svids"][0]["issuer"], old);

    process.signal("HUP");
    let changed = eventually("the new CA signs", async || {
        let now = svid(&directory, "content");
        (now["x509Svids"][0]["issuer"] != old).then_some(now)
    })
    .await;
    let roots: Vec<_> = changed["roots"].as_array().unwrap().iter().map(|root| &root["subject"]).collect();
    assert_eq!(roots.len(), 2, "the old one is still trusted");
    assert!(roots.contains(&&old) && roots.contains(&&changed["x509Svids"][0]["issuer"]));
    eventually("the old CA is forgotten", async || {
        (svid(&directory, "content")["roots"].as_array().unwrap().len() == 1).then_some(())
    })
    .await;

    let said = complaint(&mut agent(&directory, "auth"));
    assert!(said.contains("another agent works in"), "{said}");
    assert_eq!(process.stop().await, Some(0));
    assert!(!directory.join("auth.sock").exists());
}

#[test]
fn what_cannot_be_an_identity_is_refused_before_anything_is_made() {
    let home = TempDir::new().unwrap();
    let directory = home.path().join("agent");
    for (flag, value) in
        [("--workload", "Auth"), ("--trust-domain", "a b"), ("--svid-lifetime", "1s"), ("--svid-lifetime", "2d")]
    {
        let said = complaint(program(&["agent", flag, value, "--directory"]).arg(&directory));
        assert!(said.contains(flag) && said.contains(value), "{said}");
    }
    assert!(!directory.exists());
}
