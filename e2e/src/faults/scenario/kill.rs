//! `kill -9` at random moments.

use std::path::Path;

use super::{SETTLED, SOON, Stage};
use crate::Guildhall;
use crate::faults::check::Databases;
use crate::faults::cluster::{self, Plan};
use crate::faults::journal::Tolerance;
use crate::faults::load::{Admin, Load, Manner};
use crate::faults::{Findings, Run, moment};

/// All of `guildhall dev`.
pub async fn all_in_one(run: &Run) -> Findings {
    let mut dice = run.dice();
    let mut guildhall = Guildhall::start(&run.program, &format!("{}:8000", cluster::address())).await;
    let admin = guildhall.dev.admin.as_ref().expect("dev.json holds the first admin");
    let admin = Admin { email: admin.email.clone(), password: admin.password.clone() };
    let edges = [guildhall.dev.http.clone()];
    let load = Load::start(&edges, &admin, run.seed, Manner::of(run)).await;
    for kill in 1..=run.times(10, 100) {
        let after = moment(&mut dice, 20..1_000);
        tokio::time::sleep(after).await;
        let acknowledged = load.journal.acknowledged();
        guildhall.kill().await;
        run.tell(format_args!(
            "kill {kill}, {} ms after the start; {acknowledged} calls acknowledged",
            after.as_millis()
        ));
        guildhall.restart().await;
    }
    load.works(10, SOON).await;
    let journal = load.stop().await;
    let mut databases = Databases::sqlite(&guildhall.data()).await;
    let mut late = Findings::default();
    databases.settle(SETTLED, &mut late).await;
    let ended = guildhall.stop().await;
    let mut findings = databases.check(&journal, Tolerance::Silence).await;
    findings.add(late);
    findings.expect(ended.success(), || format!("guildhall dev ended with {ended}"));
    findings
}

/// Each process of a deployment without replicas, in turn: after a while, and away for a while.
pub async fn each(run: &Run, logs: Option<&Path>) -> Findings {
    let mut dice = run.dice();
    let mut stage = Stage::set(run, Plan::default(), Manner::of(run), logs).await;
    for kill in 1..=run.times(1, 100) {
        let mut killed = Vec::new();
        for name in stage.cluster.names() {
            let after = moment(&mut dice, 20..400);
            tokio::time::sleep(after).await;
            stage.cluster.process(&name).kill().await;
            let away = moment(&mut dice, 0..300);
            tokio::time::sleep(away).await;
            stage.cluster.start_process(&name).await;
            killed.push(format!("{name} after {} ms for {} ms", after.as_millis(), away.as_millis()));
        }
        let acknowledged = stage.load.journal.acknowledged();
        run.tell(format_args!("kill {kill} of {}; {acknowledged} calls acknowledged", killed.join(", ")));
        stage.load.works(5, SOON).await;
    }
    stage.end(run, Tolerance::Silence).await
}
