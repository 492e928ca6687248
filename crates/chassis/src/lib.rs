//! What every Guildhall process stands on: settings, secrets, the server with its layers, readiness, and an orderly end.
//!
//! A service is a `Config` and one function, `build(config, platform) -> Bound`; everything else is here and the same for
//! all of them. To add a service, copy the shape of `services/content/src/lib.rs`: load the configuration with
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
mod reflection;
mod revocation;
mod run;
mod services;
mod settings;
mod shed;
mod task;

pub use bound::{Bound, Error};
pub use builder::Builder;
pub use drain::{Drain, Draining};
pub use gate::Gate;
pub use key::MasterKey;
pub use platform::Platform;
pub use run::{drain_on_signal, run};
pub use services::Services;
pub use settings::{DatabaseSettings, DrainSettings, ServerSettings};

/// Any error, as background work reports it.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;
