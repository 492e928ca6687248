//! The benchmarks as a program: what `cargo xtask bench` runs.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use e2e::bench;
use xtask::bench::Command;

/// Compares, in one run each, what costs something with what would do the same for less.
#[derive(Parser)]
#[command(bin_name = "cargo xtask bench")]
struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    #[command(flatten)]
    Bench(Command),
    /// The servers of `mesh`, in a process of their own, with the identity that this Workload API gives.
    #[command(hide = true)]
    Serve { endpoint: String },
}

#[tokio::main]
async fn main() -> ExitCode {
    match started(Arguments::parse().what).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Whoever ends this from outside ends what it started: all of it is held by the run, which is dropped here.
async fn started(what: What) -> anyhow::Result<()> {
    let stop = chassis::drain_on_signal()?;
    stop.run_until_cancelled(Box::pin(run(what)))
        .await
        .unwrap_or_else(|| Err(anyhow::anyhow!("it was ended from outside")))
}

async fn run(what: What) -> anyhow::Result<()> {
    match what {
        What::Bench(Command::Mesh(options)) => bench::mesh::run(&options).await,
        What::Bench(Command::Edge(options)) => bench::edge::run(&program()?, &options).await,
        What::Bench(Command::Dev(options)) => bench::dev::run(&program()?, &options).await,
        What::Serve { endpoint } => bench::mesh::serve(&endpoint).await,
    }
}

/// Cargo builds it beside this program.
fn program() -> std::io::Result<PathBuf> {
    Ok(std::env::current_exe()?.with_file_name("guildhall-under-test"))
}
