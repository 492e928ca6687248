//! The program as it is run.

mod agent;
mod command;
mod inspect;
mod program;
mod serve;
