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
    let mut stage = Stage::set(run, Plan { replicas: 2, ..Plan::default() }, Manner::of(run), logs).await;
    for round in 1..=run.times(1, 20) {
        let mut restarted = Vec::new();
        for name in stage.cluster.names() {
            let after = moment(&mut dice, 20..500);
            tokio::time::sleep(after).await;
            let status = stage.cluster.process(&name).stop().await;
            if !status.success() {
                ended_badly.push(format!("{name} ended with {status}"));
            }
            stage.cluster.start_process(&name).await;
            stage.load.works(5, SOON).await;
            restarted.push(format!("{name} after {} ms", after.as_millis()));
        }
        let acknowledged = stage.load.journal.acknowledged();
        run.tell(format_args!("restart {round} of {}; {acknowledged} calls acknowledged", restarted.join(", ")));
    }
    let mut findings = stage.end(run, Tolerance::Nothing).await;
    findings.defects.append(&mut ended_badly);
    findings
}
