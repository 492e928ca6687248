//! The scenarios.

mod away;
mod kill;
mod migration;
mod replicas;
mod restart;
mod rotation;
mod strangers;

use std::path::Path;
use std::time::Duration;

use clap::ValueEnum;

use super::cluster::{Cluster, Plan};
use super::journal::Tolerance;
use super::load::{Load, Manner};
use super::{Findings, Run};

/// How soon the system works again, on a machine that is busy.
const SOON: Duration = Duration::from_mins(1);
/// How soon no event is on its way any more: several leases, one after the other.
const SETTLED: Duration = Duration::from_mins(2);

/// What is broken, and what must hold nevertheless.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Scenario {
    /// `kill -9` of all of `guildhall dev` under load: nothing acknowledged is lost, nothing happens twice.
    KillDev,
    /// `kill -9` of each process in turn.
    Kill,
    /// Restarts in order, two replicas of each process: no call fails, none runs twice.
    Restart,
    /// PostgreSQL restarts: errors are 503 with Retry-After.
    Postgres,
    /// Redis is away, halted and then lost with all it had.
    Redis,
    /// Each process is halted for a while and goes on.
    Pause,
    /// Each network is slow, silent and cut.
    Partition,
    /// SVIDs and the authority change under calls on fresh connections, which nobody makes again: none fails.
    Rotation,
    /// Two replicas of each service: each piece of work is done once, and a dead replica's by the other.
    Replicas,
    /// A new version migrates the databases while the previous one serves from them: no call fails.
    Migration,
    /// Without an SVID, with a foreign one and with the wrong one nobody gets through to content.
    Strangers,
}

impl Scenario {
    /// Breaks it, and compares.
    pub async fn run(self, run: &Run, logs: Option<&Path>) -> Findings {
        match self {
            Self::KillDev => Box::pin(kill::all_in_one(run)).await,
            Self::Kill => Box::pin(kill::each(run, logs)).await,
            Self::Restart => Box::pin(restart::each(run, logs)).await,
            Self::Postgres => Box::pin(away::postgres(run, logs)).await,
            Self::Redis => Box::pin(away::redis(run, logs)).await,
            Self::Pause => Box::pin(away::processes(run, logs)).await,
            Self::Partition => Box::pin(away::networks(run, logs)).await,
            Self::Rotation => Box::pin(rotation::under_load(run, logs)).await,
            Self::Replicas => Box::pin(replicas::two_of_each(run, logs)).await,
            Self::Migration => Box::pin(migration::under_load(run, logs)).await,
            Self::Strangers => Box::pin(strangers::refused(run, logs)).await,
        }
    }
}

/// A deployment with clients at work.
struct Stage {
    cluster: Cluster,
    load: Load,
}

impl Stage {
    async fn set(run: &Run, plan: Plan, manner: Manner, logs: Option<&Path>) -> Self {
        let cluster = Cluster::start(&run.program, plan, logs).await;
        run.tell(format_args!("{} are ready", cluster.names().join(", ")));
        let load = Load::start(&cluster.edges(), &cluster.admin(), run.seed, manner).await;
        load.works(10, SOON).await;
        Self { cluster, load }
    }

    /// Lets the clients finish, waits until every event has arrived, and compares.
    async fn end(mut self, run: &Run, tolerance: Tolerance) -> Findings {
        self.load.works(10, SOON).await;
        self.cluster.expect_all_running();
        let journal = self.load.stop().await;
        run.tell(format_args!("the clients have stopped"));
        let mut databases = self.cluster.databases().await;
        let mut late = Findings::default();
        databases.settle(SETTLED, &mut late).await;
        run.tell(format_args!("the events have settled"));
        let mut findings = databases.check(&journal, tolerance).await;
        findings.add(late);
        findings
    }
}
