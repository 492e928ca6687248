//! The edge: the one port that everybody outside talks to. REST with JSON, gRPC and gRPC-Web come in, gRPC over the mesh
//! goes out, and the contracts alone say what is let through.
//!
//! A request passes, in this order: the listener (`listener`, `tls`), the layers that `gateway::router` lists, admission by
//! limit and token (`admission`, `limit`), and then `rest`, `grpc`, `proxy` or `web`.
//!
//! An RPC needs nothing here: its annotations are enough. To give every request one more rule, add a layer in
//! `gateway::router`; to add a setting, add it to `config` and, with its reason, to `config.default.toml`.

mod access_log;
mod admission;
mod body;
pub mod config;
mod cors;
mod deadline;
mod exchange;
mod freshness;
mod gateway;
mod grpc;
mod guard;
mod headers;
pub mod limit;
mod listener;
pub mod openapi;
pub mod problem;
mod proxy;
mod rest;
mod stall;
mod tls;
pub mod transcode;
mod upstream;
mod web;

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use chassis::{Builder, Drain, Platform, Process};
use mesh::token::{RemoteKeys, Verifier};
use prost_reflect::DescriptorPool;

pub use chassis::Bound;
pub use config::Config;
pub use grpc::Error as GrpcError;
pub use tls::Error as TlsError;

use self::limit::Limiter;
use gateway::Gateway;
use upstream::Upstreams;

/// The edge's workload, as contracts name it.
pub const NAME: &str = "edge-gateway";
/// Every setting with its default.
pub const DEFAULTS: &str = include_str!("../config.default.toml");

/// The audience of the platform's access tokens.
const AUDIENCE: &str = "guildhall";
/// How long the start waits to hear where auth listens.
const KEYS_ADDRESS_WAIT: Duration = Duration::from_secs(30);

/// Why the edge cannot start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot listen on {address}")]
    Listen {
        address: SocketAddr,
        #[source]
        source: io::Error,
    },
    #[error("the contracts' descriptors cannot be read")]
    Descriptors(#[from] prost_reflect::DescriptorError),
    #[error("the contracts cannot be served")]
    Routes(#[from] transcode::table::Error),
    #[error("the edge's own gRPC services cannot be set up")]
    Grpc(#[from] grpc::Error),
    #[error("TLS cannot be set up")]
    Tls(#[from] tls::Error),
    #[error("nobody says where `auth` listens, whose keys the edge needs")]
    AuthUnknown,
    #[error(transparent)]
    Chassis(#[from] chassis::Error),
}

/// The edge in a process of its own.
pub const PROCESS: Process<Config> = Process {
    name: NAME,
    defaults: DEFAULTS,
    build: |config, platform| Box::pin(async { Ok(build(config, platform).await?) }),
};

/// Binds the ports and sets up all that requests need. The address of what it returns is the public one.
pub async fn build(mut config: Config, platform: Platform) -> Result<Bound, Error> {
    let sockets = listener::take(config.server.listen)
        .map_err(|source| Error::Listen { address: config.server.listen, source })?;
    config.server.listen =
        sockets[0].local_addr().map_err(|source| Error::Listen { address: config.server.listen, source })?;
    let certificate = config.tls.as_ref().map(tls::Certificate::load).transpose()?;
    let acceptor = certificate.as_ref().map(tls::Certificate::acceptor).transpose()?;

    let auth = "auth".parse().map_err(|_| Error::AuthUnknown)?;
    let auth =
        tokio::time::timeout(KEYS_ADDRESS_WAIT, platform.connect(&auth)).await.map_err(|_| Error::AuthUnknown)?;
    let keys = RemoteKeys::new(auth);
    let verifier =
        Verifier::new(Arc::clone(&keys) as _, config.issuer.clone(), AUDIENCE.to_owned(), platform.source.clone());

    let config = Arc::new(config);
    let gateway = Arc::new(gateway(&config, &platform, verifier.clone())?);
    let router = gateway::router(Arc::clone(&gateway));
    let mut builder = Builder::new(NAME, config.server.clone(), &platform).verifier(verifier).keys(keys);
    if let Some(certificate) = certificate {
        builder = builder.task("certificate", |drain| async move { certificate.watch(drain).await });
    }
    let serve = |drain: Drain| {
        let address = config.server.listen;
        let listeners = listener::listen(sockets).map_err(|source| Error::Listen { address, source });
        async move {
            let listeners = listeners?;
            gateway.own.serving(true).await;
            let unready = drain.drain.clone();
            let served = listener::serve(listeners, acceptor, router, config, drain);
            let goodbye = async {
                unready.cancelled().await;
                gateway.own.serving(false).await;
            };
            tokio::join!(served, goodbye);
            Ok(())
        }
    };
    Ok(builder.server(serve).bind().await?)
}

fn gateway(config: &Arc<Config>, platform: &Platform, verifier: Verifier) -> Result<Gateway, Error> {
    let pool = DescriptorPool::decode(contracts::DESCRIPTOR_SET)?;
    let table = transcode::Table::from_pool(pool)?;
    let openapi = openapi::document(&table, &about());
    Ok(Gateway {
        own: grpc::Own::new(&table)?,
        pages: web::Pages::new(&openapi, &config.issuer),
        upstreams: Upstreams::new(platform.clone()),
        limiter: Limiter::new(config.limit.clone(), Arc::clone(&platform.limits)),
        source: platform.source.clone(),
        config: Arc::clone(config),
        verifier,
        table,
    })
}

fn about() -> openapi::Info {
    openapi::Info {
        title: "Guildhall".to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        description: "The backend of a community and its games: identity, posts, and what grows around them."
            .to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use chassis::config::{Overrides, load};

    use super::*;

    /// The defaults.
    pub(crate) fn config() -> Config {
        load(DEFAULTS, NAME, None, &Overrides::new()).expect("the defaults are complete")
    }

    #[test]
    fn the_defaults_are_complete() {
        let config = config();
        assert!(config.tls.is_none());
        assert!(config.cors.origins.is_empty() && !config.cors.loopback);
        assert!(config.trusted_proxies.is_empty());
    }
}
