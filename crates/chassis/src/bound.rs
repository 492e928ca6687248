use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use futures_util::future::BoxFuture;
use store::Db;
use telemetry::Metrics;
use tokio::net::TcpListener;
use tokio::task::{JoinError, JoinHandle};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::gate::{Gate, Gates};
use crate::task::{self, Task, Tasks};
use crate::{BoxError, Drain, Draining, ServerSettings, admin};

/// How long calls may take to end once they have been told to for the last time.
const KILL: Duration = Duration::from_secs(1);

/// The gate that holds until the service listens, which is after all others.
const PORT: &str = "port";

/// Why a service did not start, or did not end well.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The port cannot be had.
    #[error("cannot listen on {address}")]
    Listen { address: SocketAddr, source: io::Error },
    /// The service is built without a verifier: it could admit nobody.
    #[error("a service on the mesh needs a verifier of tokens")]
    NoVerifier,
    /// The descriptors of the contracts cannot be served.
    #[error("reflection cannot be served")]
    Reflection(#[from] tonic_reflection::server::Error),
    /// The bus did not take a subscription.
    #[error("the consumer `{consumer}` cannot be subscribed")]
    Subscribe { consumer: &'static str, source: events::Error },
    /// Serving failed.
    #[error("the server failed")]
    Server(#[source] BoxError),
    /// The server ended although nobody had told it to.
    #[error("the server ended by itself")]
    ServerEnded,
    /// A part of the process panicked.
    #[error("the server panicked")]
    Panicked(#[from] JoinError),
    /// Background work failed.
    #[error(transparent)]
    Task(#[from] task::Error),
}

/// Listens, and answers with what serves until it is drained.
pub(crate) type Serving = Box<dyn FnOnce(Drain) -> BoxFuture<'static, Result<(), BoxError>> + Send>;

/// What a service is made of.
pub(crate) struct Parts {
    pub(crate) name: &'static str,
    pub(crate) settings: ServerSettings,
    pub(crate) metrics: Metrics,
    pub(crate) address: SocketAddr,
    pub(crate) admin: TcpListener,
    pub(crate) gates: Gates,
    pub(crate) draining: Draining,
    pub(crate) serving: Serving,
    pub(crate) tasks: Vec<Task>,
    pub(crate) consumers: Vec<Task>,
    pub(crate) databases: Vec<Db>,
}

/// A service that has its ports and waits to serve.
pub struct Bound {
    parts: Parts,
    admin_address: SocketAddr,
}

impl Bound {
    pub(crate) fn new(parts: Parts) -> Result<Self, Error> {
        let listen = parts.settings.admin_listen;
        let admin_address = parts.admin.local_addr().map_err(|source| Error::Listen { address: listen, source })?;
        Ok(Self { parts, admin_address })
    }

    /// The service's name.
    pub fn name(&self) -> &'static str {
        self.parts.name
    }

    /// Where it listens on the mesh; for a process with a server of its own ([`Builder::server`](crate::Builder::server)), the
    /// address in its settings.
    pub fn address(&self) -> SocketAddr {
        self.parts.address
    }

    /// Where `/healthz`, `/readyz` and `/metrics` are.
    pub fn admin_address(&self) -> SocketAddr {
        self.admin_address
    }

    /// Serves, from when every gate is ready for the first time, until `drain` is cancelled, and then ends in order: not ready,
    /// a pause for load balancers, GOAWAY, watches, calls in flight, consumers and relay, databases. It ends in the same order,
    /// and with an error, if the server or a background task fails.
    pub async fn serve(self, drain: CancellationToken) -> Result<(), Error> {
        let Parts { name, settings, gates, draining, metrics, admin, serving, mut tasks, consumers, databases, .. } =
            self.parts;
        let end = Drain::default();
        let port = gates.gate(PORT);
        let stop_admin = CancellationToken::new();
        let mut admin = tokio::spawn(admin::serve(admin, gates.clone(), metrics, stop_admin.clone().cancelled_owned()));
        let mut server = tokio::spawn(serve_once_ready(serving, port, gates.clone(), end.clone()));
        tasks.push(Task::new("readiness", {
            let gates = gates.clone();
            move |stop| gates.report(name, stop)
        }));
        let (mut consumers, mut background) = (Tasks::start(consumers), Tasks::start(tasks));
        tracing::info!(service = name, address = %self.parts.address, admin.address = %self.admin_address, "Serving {name}");

        let failure = tokio::select! {
            () = drain.cancelled() => None,
            failure = consumers.failure() => Some(failure.into()),
            failure = background.failure() => Some(failure.into()),
            ended = &mut server => Some(unexpected(ended)),
            ended = &mut admin => Some(unexpected(ended.map(Ok))),
        };
        if let Some(failure) = &failure {
            tracing::error!(service = name, error = %failure, "A part of {name} failed, and so {name} ends");
        }

        gates.gate("drain").unready("draining");
        if failure.is_none() {
            tokio::time::sleep(settings.drain.unready).await;
        }
        end.drain.cancel();
        draining.0.cancel();
        finish(server, &end, settings.drain.grace).await;
        consumers.stop(settings.drain.grace).await;
        background.stop(settings.drain.grace).await;
        for database in databases {
            if timeout(settings.drain.grace, database.close()).await.is_err() {
                tracing::warn!(service = name, "A database did not close in time");
            }
        }
        stop_admin.cancel();
        if !admin.is_finished() {
            let _probes_do_not_hold_us = timeout(KILL, admin).await;
        }
        tracing::info!(service = name, "{name} has ended");
        failure.map_or(Ok(()), Err)
    }
}

/// Until the process has been ready nobody is listened to: who calls is refused by the system, and goes to a replica at once. It
/// could answer nobody's token yet, or would take one that was revoked.
async fn serve_once_ready(serving: Serving, port: Gate, gates: Gates, end: Drain) -> Result<(), BoxError> {
    if end.drain.run_until_cancelled(gates.all_ready_but(PORT)).await.is_none() {
        return Ok(());
    }
    let served = serving(end);
    port.ready();
    served.await
}

fn unexpected(ended: Result<Result<(), BoxError>, JoinError>) -> Error {
    match ended {
        Ok(Ok(())) => Error::ServerEnded,
        Ok(Err(error)) => Error::Server(error),
        Err(panic) => panic.into(),
    }
}

/// Waits for the calls in flight, as long as `grace`; then ends them.
async fn finish(mut server: JoinHandle<Result<(), BoxError>>, end: &Drain, grace: Duration) {
    if server.is_finished() || timeout(grace, &mut server).await.is_ok() {
        return;
    }
    tracing::warn!("Calls that did not end in time are ended");
    end.kill.cancel();
    if timeout(KILL, &mut server).await.is_err() {
        server.abort();
    }
}
