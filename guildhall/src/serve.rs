//! `guildhall serve`: one service in a process of its own, as the service's own program runs it.

use anyhow::Result;
use chassis::process;
use clap::{Args, ValueEnum};

#[derive(Args)]
pub struct Options {
    service: Service,
    #[command(flatten)]
    process: process::Options,
}

#[derive(Clone, Copy, ValueEnum)]
enum Service {
    Auth,
    Content,
    EdgeGateway,
}

pub async fn run(Options { service, process }: Options) -> Result<()> {
    let served = match service {
        Service::Auth => auth::PROCESS.run(process).await,
        Service::Content => content::PROCESS.run(process).await,
        Service::EdgeGateway => edge_gateway::PROCESS.run(process).await,
    };
    Ok(served?)
}
