//! Restarts as a deployment makes them: one replica after the other, each in order.

use std::path::Path;

use super::{SOON, Stage};
use crate::faults::cluster::Plan;
use crate::faults::journal::Tolerance;
use crate::faults::load::Manner;
use crate::faults::{Findings, Run, moment};

pub async fn each(run: &Run, logs: Option<&Path>) -> Findings {
    let mut dice = run.dice();
    let mut ended_badly = Vec::new();
    let mut stage = Stage::set(run, Plan { replicas: 2, ..Plan::default() }, Manner::default(), logs).await;
    for round in 1..=run.times(1, 20) {
        for name in stage.cluster.names() {
            tokio::time::sleep(moment(&mut dice, 20..500)).await;
            let status = stage.cluster.process(&name).stop().await;
            run.tell(format_args!("restart {round} of {name}, which ended with {status}"));
            if !status.success() {
                ended_badly.push(format!("{name} ended with {status}"));
            }
            stage.cluster.start_process(&name).await;
            stage.load.works(5, SOON).await;
        }
    }
    let mut findings = stage.end(run, Tolerance::Nothing).await;
    findings.defects.append(&mut ended_badly);
    findings
}
