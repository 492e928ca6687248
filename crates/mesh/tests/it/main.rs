//! The mesh over real sockets, with SVIDs of a real dev agent. `world` boots what a test needs, `services` are small
//! implementations of real contracts.

mod authorize;
mod connection;
mod deadline;
mod drain;
mod metrics;
mod replicas;
mod rotation;
mod services;
mod tls;
mod token;
mod world;
