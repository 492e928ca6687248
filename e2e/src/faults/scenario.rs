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

use xtask::faults::Scenario;

use super::cluster::{Cluster, Plan};
use super::journal::Tolerance;
use super::load::{Load, Manner};
use super::{Findings, Run};

/// How soon the system works again, on a machine that is busy.
const SOON: Duration = Duration::from_mins(1);
/// How soon no event is on its way any more: several leases, one after the other.
const SETTLED: Duration = Duration::from_mins(2);

impl Run {
    /// Breaks what the scenario says, and compares. What the processes print is kept in `logs`.
    pub async fn make(&self, scenario: Scenario, logs: Option<&Path>) -> Findings {
        match scenario {
            Scenario::KillDev => Box::pin(kill::all_in_one(self)).await,
            Scenario::Kill => Box::pin(kill::each(self, logs)).await,
            Scenario::Restart => Box::pin(restart::each(self, logs)).await,
            Scenario::Postgres => Box::pin(away::postgres(self, logs)).await,
            Scenario::Redis => Box::pin(away::redis(self, logs)).await,
            Scenario::Pause => Box::pin(away::processes(self, logs)).await,
            Scenario::Partition => Box::pin(away::networks(self, logs)).await,
            Scenario::Rotation => Box::pin(rotation::under_load(self, logs)).await,
            Scenario::Replicas => Box::pin(replicas::two_of_each(self, logs)).await,
            Scenario::Migration => Box::pin(migration::under_load(self, logs)).await,
            Scenario::Strangers => Box::pin(strangers::refused(self, logs)).await,
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
