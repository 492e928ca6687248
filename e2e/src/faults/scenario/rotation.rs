//! Identities change while everything runs.

use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use mesh::{Identity, Settings, Workload};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::Stage;
use crate::faults::cluster::{AGENT, CONTENT, EDGE, Plan};
use crate::faults::journal::Tolerance;
use crate::faults::load::Manner;
use crate::faults::{Findings, Run};
use crate::raw;

/// An SVID is replaced at half of its life.
const LIFETIME: Duration = Duration::from_secs(10);
/// Callers of content itself, as the edge is one: each call has a connection, and so a handshake, of its own.
const CALLERS: usize = 4;
const PAUSE: Duration = Duration::from_millis(20);
const METHOD: &str = "/guildhall.content.v1.TagService/ListTags";

pub async fn under_load(run: &Run, logs: Option<&Path>) -> Findings {
    let lasts = run.choose(Duration::from_secs(15), Duration::from_mins(10));
    // Nobody repeats anything, so that nothing hides a call that a rotation costs: neither the processes, which keep their
    // connections until they age out, nor the callers below.
    let plan = Plan { replicas: 2, svid_lifetime: LIFETIME, retry: false, ..Plan::default() };
    let mut stage = Stage::set(run, plan, Manner { fresh: true, ..Manner::of(run) }, logs).await;
    let stop = CancellationToken::new();
    let mut callers = JoinSet::new();
    for number in 0..CALLERS {
        let replicas = stage.cluster.names_of(CONTENT);
        let address = stage.cluster.listens(&replicas[number % replicas.len()]);
        callers.spawn(call(stage.cluster.identity(EDGE).await, address, stop.clone()));
    }
    let began = Instant::now();
    tokio::time::sleep(lasts / 2).await;
    run.tell(format_args!("the agent gets a new authority"));
    stage.cluster.process(AGENT).signal("HUP").await;
    tokio::time::sleep(lasts.saturating_sub(began.elapsed())).await;
    run.tell(format_args!("SVIDs were replaced every {:?} for {lasts:?}", LIFETIME / 2));
    stop.cancel();
    let direct = callers.join_all().await;
    let mut findings = stage.end(run, Tolerance::Nothing).await;
    let calls: usize = direct.iter().map(|(calls, _)| calls).sum();
    let failures: Vec<_> = direct.into_iter().flat_map(|(_, failures)| failures).collect();
    run.tell(format_args!("{calls} calls of content on connections of their own, {} failed", failures.len()));
    findings.calls += calls;
    findings.checked += calls;
    findings.acknowledged += calls - failures.len();
    findings.defects.extend(failures.iter().map(|status| format!("content, called on a fresh connection: {status}")));
    findings
}

/// Calls again and again until told to stop; how often, and what failed.
async fn call(identity: Identity, address: SocketAddr, stop: CancellationToken) -> (usize, Vec<Status>) {
    let (mut calls, mut failures) = (0, Vec::new());
    while !stop.is_cancelled() {
        let server: Workload = CONTENT.parse().expect("a workload");
        let settings = Settings { retry: false, ..Settings::default() };
        let channel = mesh::connect_with(&identity, server, address.into(), &settings);
        calls += 1;
        failures.extend(raw::call(channel, METHOD, None, &[]).await.err());
        tokio::time::sleep(PAUSE).await;
    }
    (calls, failures)
}
