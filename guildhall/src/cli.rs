//! The command line.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::{agent, dev, events, import, key, serve, svid, token};

/// The backend of a community and its games: identity and content behind one REST and gRPC edge.
#[derive(Parser)]
#[command(name = "guildhall", version, about, args_conflicts_with_subcommands = true)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    dev: dev::Options,
}

#[derive(Subcommand)]
enum Command {
    /// Starts everything in one process: auth, content and the edge, over mutual TLS on loopback. The default.
    ///
    /// Needs nothing else: data in SQLite files under the data directory, events in process, identities from a built-in agent.
    /// Prints where everything is, and at the first start the admin's password.
    Dev(dev::Options),
    /// Runs one service in a process of its own, on PostgreSQL, Redis and any SPIFFE Workload API.
    ///
    /// Its settings stand in its section of the file and in [platform]. It is ready when its admin port says so, and ends in order
    /// on SIGTERM.
    Serve(serve::Options),
    /// Gives identities to processes of their own where no SPIRE runs: the agent of `guildhall dev` alone, for development.
    Agent(agent::Options),
    /// Makes a master key, from which a service derives the keys of what it seals.
    Key(key::Options),
    /// Shows who a process is that asks at a SPIFFE Workload API, and whom it trusts.
    Svid(svid::Options),
    /// Shows whose an access token is, and whether it is valid or why not.
    Token(token::Options),
    /// Brings content from elsewhere.
    #[command(subcommand)]
    Import(Import),
    /// Looks after events that a service could not handle.
    #[command(subcommand)]
    Events(events::Command),
}

#[derive(Subcommand)]
enum Import {
    /// Imports a directory of Markdown files with TOML (+++) or YAML (---) front matter.
    ///
    /// Reads title, date (or the date in `path`), authors, aliases, tags and `[extra] team` (the category), and publishes with the
    /// original dates. Running it again imports nothing twice: it goes on where it stopped, and what changed becomes a new version.
    Posts(import::Options),
}

/// Parses the command line and does what it says.
pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return failed(&error.into()),
    };
    let result = runtime.block_on(async {
        match arguments.command {
            None => Box::pin(dev::run(arguments.dev)).await,
            Some(Command::Dev(options)) => Box::pin(dev::run(options)).await,
            Some(Command::Serve(options)) => Box::pin(serve::run(options)).await,
            Some(Command::Agent(options)) => agent::run(options).await,
            Some(Command::Key(options)) => key::run(&options),
            Some(Command::Svid(options)) => svid::run(options).await,
            Some(Command::Token(options)) => token::run(options).await,
            Some(Command::Import(Import::Posts(options))) => import::run(options).await,
            Some(Command::Events(command)) => events::run(command).await,
        }
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failed(&error),
    }
}

fn failed(error: &anyhow::Error) -> ExitCode {
    eprintln!("error: {error:#}");
    ExitCode::FAILURE
}
