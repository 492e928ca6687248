//! Guildhall, the one binary that people run. It is a library too, so that the end-to-end tests can start it and kill it.
//!
//! To add a command: a module with a `run`, and a variant of `cli::Command`.

mod agent;
mod cli;
mod dev;
mod dev_file;
mod events;
mod import;
mod key;
mod serve;
mod svid;
mod token;

pub use cli::main;
pub use dev_file::{Credential, DevFile, Service};
