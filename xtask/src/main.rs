//! `cargo xtask`: the project's own chores. To add one: a module with a `run`, and a variant of [`Chore`].

mod mesh;
mod suite;
mod tools;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use xtask::{bench, faults, postgres, redis, tool};

/// Guildhall's chores.
#[derive(Parser)]
#[command(bin_name = "cargo xtask", version, about)]
struct Arguments {
    #[command(subcommand)]
    chore: Chore,
}

#[derive(Subcommand)]
enum Chore {
    /// Runs every check and every test: format, clippy, cargo-deny, buf lint, and the tests on SQLite, PostgreSQL and Redis.
    ///
    /// Installs what it needs once (PostgreSQL and Redis from the system's packages, tools into a cache outside the tree) and says so.
    /// Where it may not install, it fails with the command to run. It never skips a step silently.
    Test(suite::Options),
    /// Breaks everything on purpose: kills, restarts, halts and partitions processes, PostgreSQL and Redis on a seed, while clients
    /// write, and compares what they were told with the databases.
    ///
    /// Each scenario deploys Guildhall on a PostgreSQL and a Redis of its own, lets six clients write over REST and gRPC, breaks
    /// something, lets all events arrive, and compares: what was acknowledged is there once, what was not is there once at most, each
    /// event had its effect once, and no client was told anything that the scenario does not allow. Prints each fault with its time and
    /// what was found, and last a table; fails if anything is not as promised. SIGINT or SIGTERM ends it with all that it started.
    ///
    /// All of it takes less than an hour. `cargo xtask faults --short` takes three minutes.
    Faults(faults::Build),
    /// Measures what things cost, as ratios in one run: contenders take turns, so that a machine that is busy hits all alike.
    ///
    /// Always built with optimisation. Prints a table in Markdown, with the machine that the figures come from.
    #[command(subcommand)]
    Bench(bench::Command),
    /// Installs every outside program that a chore uses, at the version that the project is checked with.
    ///
    /// Each is built or fetched once, into a cache outside the tree; what is there is skipped. SPIRE is built from source, which takes
    /// a quarter of an hour on two cores.
    Tools,
    /// Runs Guildhall on a real mesh on this machine.
    #[command(subcommand)]
    Mesh(mesh::Command),
}

fn main() -> ExitCode {
    let result = match Arguments::parse().chore {
        Chore::Test(options) => suite::run(&options),
        Chore::Faults(options) => faults::run(&options),
        Chore::Bench(command) => bench::run(&command),
        Chore::Tools => tools::run(),
        Chore::Mesh(command) => mesh::run(&command),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
