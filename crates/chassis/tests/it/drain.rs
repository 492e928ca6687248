use std::time::Duration;

use chassis::Builder;
use testkit::{Mesh, server_settings};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep};
use tonic::Code;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

use crate::fixture::{FINE, Fake, WAIT, ask, client, soon};

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_is_unready_then_goaway_then_ends_watches_then_waits_for_calls_then_stops_the_background() {
    let (mesh, fake) = (Mesh::start().await, Fake::new());
    let mut settings = server_settings();
    settings.drain.unready = Duration::from_millis(500);
    settings.drain.grace = Duration::from_secs(30);
    let noting = fake.clone();
    let builder = fake.builder(&mesh, settings).await.task("noting", |stop| async move {
        stop.cancelled().await;
        noting.note("task");
    });
    let db = fake.database();
    let service = mesh.serve(builder.bind().await.unwrap()).await;

    let mut watching = HealthClient::new(mesh.channel("content", "auth").await);
    let mut watch = watching.watch(HealthCheckRequest::default()).await.unwrap().into_inner();
    watch.message().await.unwrap().unwrap();
    let inside = tokio::spawn({
        let mut client = client(&mesh).await;
        async move { client.batch_get_profiles(ask(WAIT)).await }
    });
    soon("the call", fake.entered()).await;
    service.drain();

    soon("not ready", async {
        while service.admin("/readyz").await.0 != 503 {
            sleep(Duration::from_millis(2)).await;
        }
    })
    .await;
    client(&mesh).await.batch_get_profiles(ask(FINE)).await.expect("an unready server still serves");

    let ended = soon("the end of the watch", async {
        loop {
            if let Err(status) = watch.message().await.map(|message| message.expect("a status ends it")) {
                return status;
            }
        }
    });
    assert_eq!(ended.await.code(), Code::Unavailable);
    soon("the closed port", async {
        while TcpStream::connect(service.address()).await.is_ok() {
            sleep(Duration::from_millis(2)).await;
        }
    })
    .await;
    assert!(!inside.is_finished() && fake.notes().is_empty(), "the call goes on and nothing behind it has stopped");
    assert!(db.ping().await.is_ok());
    assert!(service.admin("/readyz").await.1.contains("draining"), "the admin port answers to the end");

    fake.release();
    inside.await.unwrap().expect("a call in flight is answered");
    soon("the end", service.stop()).await.unwrap();
    assert_eq!(fake.notes(), ["call", "task"]);
    assert!(db.ping().await.is_err(), "the database is closed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_does_not_end_is_ended_after_the_grace() {
    let (mesh, fake) = (Mesh::start().await, Fake::new());
    let mut settings = server_settings();
    settings.drain.grace = Duration::from_millis(200);
    let service = mesh.serve(fake.builder(&mesh, settings).await.bind().await.unwrap()).await;
    let stuck = tokio::spawn({
        let mut client = client(&mesh).await;
        async move { client.batch_get_profiles(ask(WAIT)).await }
    });
    soon("the call", fake.entered()).await;
    let started = Instant::now();
    soon("the end", service.stop()).await.unwrap();
    assert!(started.elapsed() >= Duration::from_millis(200));
    soon("the refusal", stuck).await.unwrap().unwrap_err();
    assert!(fake.notes().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_with_a_server_of_its_own_is_drained_and_killed_like_the_others() {
    let (mesh, fake) = (Mesh::start().await, Fake::new());
    let _auth = mesh.serve_auth().await;
    let mut settings = server_settings();
    settings.drain.grace = Duration::from_millis(50);
    let noting = fake.clone();
    let platform = mesh.platform("edge-gateway").await;
    let bound = Builder::new("edge-gateway", settings, &platform).verifier(mesh.verifier()).server(|end| async move {
        end.drain.cancelled().await;
        noting.note("drain");
        end.kill.cancelled().await;
        noting.note("kill");
        Ok(())
    });
    let service = mesh.serve(bound.bind().await.unwrap()).await;
    soon("the end", service.stop()).await.unwrap();
    assert_eq!(fake.notes(), ["drain", "kill"]);
}
