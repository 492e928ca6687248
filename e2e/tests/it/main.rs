//! Guildhall as a process, seen from outside.

mod architecture;
mod bad_input;
mod contract;
mod deadline;
mod import;
mod journey;
mod kill;
mod observability;
mod preconditions;
mod replay;
mod tokens;
mod unauthorised;
