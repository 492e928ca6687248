//! `cargo xtask bench`: builds the benchmarks of `e2e` with optimisation, and the program that they measure, and becomes them.

use std::ffi::OsString;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::Command as Program;

use anyhow::{Context, Result};
use clap::{Args, Subcommand};

use crate::{postgres, redis, tool};

/// What is measured. The program in `e2e` has the same command line.
#[derive(Subcommand)]
pub enum Command {
    /// What the mesh costs: one small call over SPIFFE mTLS against the same over plaintext gRPC.
    ///
    /// In one process and between two; one call at a time, 32 at a time, and each on a new connection, handshake included. In between
    /// stands mutual TLS with the same SVIDs and nothing else of the mesh: what remains is authorization, deadlines, retries, balancing
    /// and telemetry. Takes about a minute and a half.
    Mesh(Options),
    /// What the edge costs: the same reads through it, by REST and by gRPC, against calling content directly by gRPC.
    ///
    /// Runs auth, content and the edge as processes on a PostgreSQL and a Redis of its own, and imports posts first. The direct calls
    /// are made with the edge's identity, over mutual TLS. Takes about a minute and a half.
    Edge(Options),
    /// What `guildhall dev` takes: the time from its start until every part is ready, and its memory when nobody calls.
    Dev(DevOptions),
}

#[derive(Args)]
pub struct Options {
    /// How often each contender has its turn.
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    pub rounds: u32,
    /// Calls of a single caller in one turn; 32 callers together make four times as many. Without it, as many as take about a second.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub calls: Option<u32>,
    /// Writes the figures there too.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

#[derive(Args)]
pub struct DevOptions {
    /// How often it is started on an empty directory, and once more on the same.
    #[arg(long, value_name = "N", default_value_t = 7, value_parser = clap::value_parser!(u32).range(1..))]
    pub rounds: u32,
    /// How long it is left alone before its memory is looked at.
    #[arg(long, value_name = "SECONDS", default_value_t = 10)]
    pub idle: u64,
    /// Writes the figures there too.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

impl Command {
    fn arguments(&self) -> Vec<OsString> {
        let (name, rounds, other, json) = match self {
            Self::Mesh(Options { rounds, calls, json }) => {
                ("mesh", rounds, calls.map(|calls| format!("--calls={calls}")), json)
            }
            Self::Edge(Options { rounds, calls, json }) => {
                ("edge", rounds, calls.map(|calls| format!("--calls={calls}")), json)
            }
            Self::Dev(DevOptions { rounds, idle, json }) => ("dev", rounds, Some(format!("--idle={idle}")), json),
        };
        let json = json.iter().flat_map(|file| [OsString::from("--json"), file.into()]);
        let always = [name.into(), format!("--rounds={rounds}").into()];
        always.into_iter().chain(other.map(OsString::from)).chain(json).collect()
    }
}

pub fn run(command: &Command) -> Result<()> {
    if let Command::Edge(_) = command {
        postgres::install()?;
        redis::install()?;
    }
    let common = ["--locked", "--release", "-p", "e2e"];
    tool::run(Program::new("cargo").arg("build").args(common).args(["--bin", "guildhall-under-test"]))?;
    let mut bench = Program::new("cargo");
    bench.arg("run").args(common).args(["--bin", "bench", "--"]).args(command.arguments());
    // In this process's place, so that whoever ends this ends what it started.
    Err(bench.exec()).context("cannot start cargo")
}
