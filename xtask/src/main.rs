//! `cargo xtask`: the project's own chores. To add one: a module with a `run`, and a variant of [`Chore`].

mod faults;
mod mesh;
mod suite;
mod tools;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use xtask::{postgres, redis, tool};

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
    /// Prints each fault with its time, and what was found; fails if anything acknowledged is lost, or anything happened twice.
    Faults(faults::Options),
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
