use std::net::SocketAddr;
use std::time::Duration;

use serde::Deserialize;
use store::Db;

use crate::config;

/// Where a process listens and how it ends: the `server` part of every configuration.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServerSettings {
    /// The mTLS port of the mesh; port 0 picks a free one.
    pub listen: SocketAddr,
    /// The plain port of `/healthz`, `/readyz` and `/metrics`; port 0 picks a free one.
    pub admin_listen: SocketAddr,
    /// How the process ends.
    pub drain: DrainSettings,
    /// Calls, streams included, that are served at once; more are refused with UNAVAILABLE.
    #[serde(default = "max_calls")]
    pub max_calls: usize,
}

/// How a process ends.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DrainSettings {
    /// How long it goes on serving after it has said that it is not ready, so that load balancers hear of it.
    #[serde(with = "config::duration")]
    pub unready: Duration,
    /// How long calls in flight, and after them each kind of background work, may take to end.
    #[serde(with = "config::duration")]
    pub grace: Duration,
}

fn max_calls() -> usize {
    1024
}

/// A service's database: the `database` part of its configuration.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DatabaseSettings {
    /// `postgres://…`, or `sqlite:` and a path.
    pub url: String,
    /// Connections that are open at once.
    pub max_connections: u32,
    /// How long a call waits for a connection before it is UNAVAILABLE.
    #[serde(with = "config::duration")]
    pub acquire_timeout: Duration,
}

impl DatabaseSettings {
    /// Opens it. A query ends with the deadline of the call that it is for.
    pub async fn open(&self) -> store::Result<Db> {
        let Self { url, max_connections, acquire_timeout } = self.clone();
        Db::open(store::Settings { url, max_connections, acquire_timeout, deadline: mesh::deadline::remaining }).await
    }
}
