//! The chassis through its public surface: settings, keys, and whole services on a mesh of their own.

mod config;
mod drain;
mod fixture;
mod key;
mod serve;
