//! A new version migrates the databases while the previous one serves from them.

use std::path::Path;
use std::time::Duration;

use super::{SETTLED, SOON};
use crate::faults::cluster::{AUTH, CONTENT, Cluster, Plan};
use crate::faults::journal::Tolerance;
use crate::faults::load::{Load, Manner};
use crate::faults::{Findings, Run};
use crate::process::Process;

/// The previous version runs as `guildhall dev`, with the deployment's databases in place of its files.
pub async fn under_load(run: &Run, logs: Option<&Path>) -> Findings {
    let previous = run.previous.as_deref().expect("`cargo xtask faults` builds the previous version");
    let each = run.choose(Duration::from_secs(3), Duration::from_secs(20));
    let mut cluster = Cluster::prepare(&run.program, Plan::default(), logs).await;
    let data = tempfile::tempdir().expect("a temporary directory");
    // Kept beside the data, as every `guildhall dev` does it.
    std::fs::copy(cluster.master_key(), data.path().join("master.key")).expect("the key can be copied");

    let (http, admin) = (cluster.spare_address().to_string(), cluster.admin());
    let arguments = ["dev", "--http", &http, "--data-dir", &data.path().display().to_string()].map(str::to_owned);
    let mut old = Process::new("the previous version", previous, arguments)
        .set("GUILDHALL_LOG", "error")
        .set("GUILDHALL__AUTH__SERVER__LISTEN", "127.0.0.1:0")
        .set("GUILDHALL__CONTENT__SERVER__LISTEN", "127.0.0.1:0")
        .set("GUILDHALL__AUTH__DATABASE__URL", cluster.database(AUTH))
        .set("GUILDHALL__CONTENT__DATABASE__URL", cluster.database(CONTENT))
        .set("GUILDHALL__AUTH__FIRST_ADMIN", &admin.email)
        .set("GUILDHALL__AUTH__FIRST_ADMIN_PASSWORD", &admin.password);
    let old_edge = format!("http://{http}");
    let posts = format!("{old_edge}/api/v1/posts");
    old.start();
    old.until(async || reqwest::get(&posts).await.ok()?.error_for_status().ok()).await;
    run.tell(format_args!("the previous version serves"));

    // Clients of the old edge alone until the new ones are there.
    let edges = [vec![old_edge], cluster.edges()].concat();
    let load = Load::start(&edges[..1], &admin, run.seed, Manner::default()).await;
    tokio::time::sleep(each).await;
    cluster.launch().await;
    run.tell(format_args!("the new version has migrated the databases and serves from them too"));
    let both = Load::start(&edges, &admin, run.seed + 1, Manner::default()).await;
    tokio::time::sleep(each).await;
    old.expect_running();
    let journal = load.stop().await;
    run.tell(format_args!("the clients of the previous version have stopped"));
    let status = old.stop().await;
    run.tell(format_args!("the previous version ended with {status}"));
    tokio::time::sleep(each).await;
    both.works(10, SOON).await;
    let later = both.stop().await;

    let mut databases = cluster.databases().await;
    let mut findings = Findings::default();
    databases.settle(SETTLED, &mut findings).await;
    for journal in [journal, later] {
        findings.add(databases.check(&journal, Tolerance::Nothing).await);
    }
    findings.expect(status.success(), || format!("the previous version ended with {status}"));
    findings
}
