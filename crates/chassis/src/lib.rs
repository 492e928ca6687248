//! What every Guildhall process stands on: settings, secrets, the server with its layers, readiness, and an orderly end.
//!
//! A service is a `Config` and one function, `build(config, platform) -> Bound`; everything else is here and the same for
//! all of them. [`process`] runs one in a process of its own. To add a service, copy the shape of `services/content/src/lib.rs`: load the configuration with
//! [`config::load`], give [`Builder`] the gRPC services, tasks and consumers, and [`Builder::bind`] it. What a process must
//! wait for before it takes calls is a [`Gate`].

mod admin;
mod bound;
mod builder;
pub mod config;
mod consumer;
mod drain;
mod gate;
mod health;
pub mod key;
mod platform;
pub mod port;
pub mod process;
mod reflection;
mod revocation;
mod services;
mod settings;
mod shed;
mod signal;
mod task;

pub use bound::{Bound, Error};
pub use builder::Builder;
pub use drain::{Drain, Draining};
pub use gate::Gate;
pub use key::MasterKey;
pub use platform::Platform;
pub use process::Process;
pub use services::Services;
pub use settings::{DatabaseSettings, DrainSettings, ServerSettings};
pub use signal::drain_on_signal;

/// Any error, as background work reports it.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;
