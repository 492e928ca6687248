//! Guildhall as a process, seen from outside.

mod architecture;
mod bad_input;
mod import;
mod journey;
mod kill;
mod unauthorised;
