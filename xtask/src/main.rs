//! `cargo xtask`: the project's own chores. To add one: a module with a `run`, and a variant of [`Chore`].

mod postgres;
mod suite;
mod tool;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Guildhall's chores.
#[derive(Parser)]
#[command(bin_name = "cargo xtask", version, about)]
struct Arguments {
    #[command(subcommand)]
    chore: Chore,
}

#[derive(Subcommand)]
enum Chore {
    /// Runs every check and every test: format, clippy, cargo-deny, buf lint, and the tests on SQLite and PostgreSQL.
    ///
    /// Installs what it needs once (PostgreSQL from the system's packages, tools into a cache outside the tree) and says so.
    /// Where it may not install, it fails with the command to run. It never skips a step silently.
    Test(suite::Options),
}

fn main() -> ExitCode {
    let result = match Arguments::parse().chore {
        Chore::Test(options) => suite::run(&options),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
