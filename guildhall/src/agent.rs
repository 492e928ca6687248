//! `guildhall agent`: the dev agent alone, which gives identities to processes of their own where no SPIRE runs.

use std::path::{Path, PathBuf};
use std::time::Duration;

use agent::Agent;
use anyhow::{Context, Result, ensure};
use chassis::config::duration::re::humantime;
use clap::Args;
use ids::Source;
use mesh::{TrustDomain, Workload};
use telemetry::Format;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// The identities that there are unless somebody says otherwise; `guildhall dev` has these.
pub const TRUST_DOMAIN: &str = "guildhall.internal";
pub const NAMESPACE: &str = "guildhall";
/// The services, and `operator`, as whom `guildhall events` calls.
pub const WORKLOADS: [&str; 4] = ["auth", "content", edge_gateway::NAME, "operator"];

/// SVIDs of a few seconds are renewed more often than they are used; those of weeks would outlive the CA.
const SVID_LIFETIMES: std::ops::RangeInclusive<Duration> = Duration::from_secs(2)..=Duration::from_hours(24);

#[derive(Args)]
pub struct Options {
    /// Where the sockets and the CA lie; created when missing, and kept, so that a restart keeps the trust.
    ///
    /// For its owner's eyes alone: whoever opens a socket there is that workload.
    #[arg(long, env = "GUILDHALL_AGENT_DIRECTORY", value_name = "DIR", default_value = "./guildhall-agent")]
    directory: PathBuf,
    #[arg(long, env = "GUILDHALL_AGENT_TRUST_DOMAIN", value_name = "NAME", default_value = TRUST_DOMAIN, value_parser = trust_domain)]
    trust_domain: String,
    #[arg(long, env = "GUILDHALL_AGENT_NAMESPACE", value_name = "NAME", default_value = NAMESPACE)]
    namespace: String,
    /// Who gets an identity; said once for each, or separated by commas.
    #[arg(long = "workload", env = "GUILDHALL_AGENT_WORKLOADS", value_name = "NAME", value_delimiter = ',', default_values = WORKLOADS, value_parser = workload)]
    workloads: Vec<String>,
    /// How long an SVID lives; it is replaced at half of that. 2s to 24h.
    #[arg(long, env = "GUILDHALL_AGENT_SVID_LIFETIME", value_name = "TIME", default_value = "10m", value_parser = svid_lifetime)]
    svid_lifetime: Duration,
    /// What is logged, such as `info,agent=debug`.
    #[arg(long, env = "GUILDHALL_LOG", value_name = "FILTER", default_value = "info")]
    log: String,
}

fn trust_domain(text: &str) -> Result<String> {
    Ok(TrustDomain::new(text)?.to_string())
}

fn workload(text: &str) -> Result<String, mesh::NotAWorkload> {
    text.parse::<Workload>().map(|name| name.to_string())
}

fn svid_lifetime(text: &str) -> Result<Duration> {
    let lifetime = humantime::parse_duration(text)?;
    ensure!(SVID_LIFETIMES.contains(&lifetime), "an SVID lives 2s to 24h");
    Ok(lifetime)
}

pub async fn run(options: Options) -> Result<()> {
    let Options { directory, trust_domain, namespace, mut workloads, svid_lifetime, log } = options;
    let directory =
        std::path::absolute(&directory).with_context(|| format!("{} is no directory's name", directory.display()))?;
    workloads.sort();
    workloads.dedup();
    let telemetry = telemetry::init(&telemetry::Settings {
        format: Format::Auto,
        filter: log,
        otlp_endpoint: None,
        service_name: "agent".to_owned(),
    })?;
    let stop = chassis::drain_on_signal()?;
    let settings = agent::Settings {
        directory: directory.clone(),
        trust_domain,
        namespace,
        workloads,
        svid_lifetime,
        source: Source::system(),
    };
    let served = serve(&settings, &directory, &stop).await;
    telemetry.shutdown();
    served
}

async fn serve(settings: &agent::Settings, directory: &Path, stop: &CancellationToken) -> Result<()> {
    // Heard from the start: a hangup would otherwise end the process.
    let mut hangup = signal(SignalKind::hangup())?;
    let agent = Agent::start(settings.clone()).await?;
    announce(settings, directory, &agent);
    while stop.run_until_cancelled(hangup.recv()).await.is_some() {
        tracing::info!("SIGHUP: a new CA is trusted by everybody and then signs");
        match stop.run_until_cancelled(agent.rotate_authority()).await {
            Some(Ok(())) => tracing::info!("The new CA signs; the old one is trusted until its last SVID has expired"),
            Some(Err(error)) => {
                tracing::error!(error = &error as &dyn std::error::Error, "There is no new CA; the old one goes on");
            }
            None => {}
        }
    }
    agent.shutdown().await;
    Ok(())
}

fn announce(settings: &agent::Settings, directory: &Path, agent: &Agent) {
    let agent::Settings { trust_domain, namespace, svid_lifetime, .. } = settings;
    let lifetime = humantime::format_duration(*svid_lifetime);
    println!(
        "Identities of spiffe://{trust_domain}/ns/{namespace}/sa/…, each for {lifetime}, at SPIFFE_ENDPOINT_SOCKET="
    );
    for workload in &settings.workloads {
        println!("  {:<14} {}", workload, agent.endpoint(workload));
    }
    println!("The CA is kept in {}. SIGHUP takes a new one into use; SIGTERM ends.", directory.display());
}
