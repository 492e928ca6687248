//! What everybody stands on is away for a while: PostgreSQL, Redis, a network, a process that is halted.

use std::path::Path;
use std::time::Duration;

use rand::seq::IndexedRandom as _;
use xtask::postgres::Ending;

use super::{SOON, Stage};
use crate::faults::cluster::{AUTH, CONTENT, Plan};
use crate::faults::journal::Tolerance;
use crate::faults::load::Manner;
use crate::faults::proxy::Network;
use crate::faults::{Findings, Run, moment};

/// A service sees a lost database as soon as a caller does.
pub async fn postgres(run: &Run, logs: Option<&Path>) -> Findings {
    let mut dice = run.dice();
    let mut stage = Stage::set(run, Plan { replicas: 2, ..Plan::default() }, Manner::of(run), logs).await;
    for round in 1..=run.times(1, 10) {
        for ending in [Ending::Fast, Ending::Immediate] {
            tokio::time::sleep(moment(&mut dice, 20..1_000)).await;
            let away = moment(&mut dice, 0..3_000);
            run.tell(format_args!("restart {round} of PostgreSQL, {ending:?}, away for {} ms", away.as_millis()));
            stage.cluster.restart_postgres(ending, away).await;
            stage.load.works(5, SOON).await;
        }
    }
    stage.end(run, Tolerance::Unavailable).await
}

/// Redis keeps nothing on disk here: each kill loses all of it.
pub async fn redis(run: &Run, logs: Option<&Path>) -> Findings {
    let mut dice = run.dice();
    let away = run.choose(Duration::from_secs(4), Duration::from_secs(30));
    let mut stage = Stage::set(run, Plan { replicas: 2, ..Plan::default() }, Manner::of(run), logs).await;
    for round in 1..=run.times(1, 3) {
        tokio::time::sleep(moment(&mut dice, 20..1_000)).await;
        run.tell(format_args!("round {round}: Redis halts for {away:?}"));
        stage.cluster.redis.pause().await;
        tokio::time::sleep(away).await;
        stage.cluster.redis.resume().await;
        stage.load.works(5, SOON).await;

        tokio::time::sleep(moment(&mut dice, 20..1_000)).await;
        run.tell(format_args!("round {round}: Redis is killed, and comes back empty after {away:?}"));
        stage.cluster.redis.kill().await;
        tokio::time::sleep(away).await;
        stage.cluster.redis.restart().await;
        stage.load.works(5, SOON).await;
    }
    stage.end(run, Tolerance::Unavailable).await
}

/// Long halts outlast leases: what the process held has another owner when it goes on.
pub async fn processes(run: &Run, logs: Option<&Path>) -> Findings {
    let mut dice = run.dice();
    let mut stage = Stage::set(run, Plan { replicas: 2, ..Plan::default() }, Manner::of(run), logs).await;
    for round in 1..=run.times(1, 5) {
        for name in stage.cluster.names() {
            let halt = moment(&mut dice, run.choose(500..2_000, 500..13_000));
            run.tell(format_args!("halt {round} of {name}, for {} ms", halt.as_millis()));
            stage.cluster.process(&name).signal("STOP").await;
            tokio::time::sleep(halt).await;
            stage.cluster.process(&name).signal("CONT").await;
            stage.load.works(5, SOON).await;
        }
    }
    stage.end(run, Tolerance::Slowness).await
}

pub async fn networks(run: &Run, logs: Option<&Path>) -> Findings {
    let mut dice = run.dice();
    let plan = Plan { replicas: 2, proxied: true, ..Plan::default() };
    let stage = Stage::set(run, plan, Manner::of(run), logs).await;
    let databases = ["postgres", "redis"].map(str::to_owned);
    let replicas = [stage.cluster.names_of(AUTH), stage.cluster.names_of(CONTENT)].concat();
    let faults = [Network::Cut, Network::Silent, Network::Slow(Duration::from_millis(100))];
    for round in 1..=run.times(1, 5) {
        for name in databases.iter().chain(&replicas) {
            let &fault = faults.choose(&mut dice).expect("there are some");
            let lasts = moment(&mut dice, run.choose(500..2_000, 500..13_000));
            run.tell(format_args!("round {round}: the way to {name} is {fault:?} for {} ms", lasts.as_millis()));
            stage.cluster.proxy(name).set(fault);
            tokio::time::sleep(lasts).await;
            stage.cluster.proxy(name).set(Network::Whole);
            stage.load.works(5, SOON).await;
        }
    }
    stage.end(run, Tolerance::Slowness).await
}
