use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;

use events::{DeadLetters, Handler, Relay, Subscription};
use futures_util::FutureExt;
use mesh::token::{RemoteKeys, Verifier};
use mesh::{Authorizer, Server};
use store::Db;
use telemetry::ServerLayer;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::body::Body;
use tonic::server::NamedService;

use crate::bound::{Bound, Error, Parts, Serving};
use crate::consumer::Consumer;
use crate::gate::Gates;
use crate::health::Reporter;
use crate::revocation::{self, Revoker};
use crate::shed::ShedLayer;
use crate::task::Task;
use crate::{BoxError, Drain, Draining, Gate, Platform, ServerSettings, port, reflection};

/// Puts a service together: what it serves, what runs behind it, and what it waits for.
pub struct Builder {
    name: &'static str,
    settings: ServerSettings,
    platform: Platform,
    gates: Gates,
    draining: Draining,
    verifier: Option<Verifier>,
    own_server: Option<Serving>,
    services: Vec<&'static str>,
    routes: Vec<Route>,
    tasks: Vec<Task>,
    consumers: Vec<Consumer>,
    databases: Vec<Db>,
}

type Route = Box<dyn FnOnce(Server) -> Server + Send>;

impl Builder {
    /// For the service `name`, which is its workload's name too.
    pub fn new(name: &'static str, settings: ServerSettings, platform: &Platform) -> Self {
        Self {
            name,
            settings,
            platform: platform.clone(),
            gates: Gates::default(),
            draining: Draining(CancellationToken::new()),
            verifier: None,
            own_server: None,
            services: Vec::new(),
            routes: Vec::new(),
            tasks: Vec::new(),
            consumers: Vec::new(),
            databases: Vec::new(),
        }
    }

    /// Verifies the tokens of callers. The verifier hears of revoked tokens from here on; the gate `chassis.revocations`
    /// holds until those of the last minutes are known.
    #[must_use]
    pub fn verifier(mut self, verifier: Verifier) -> Self {
        self.verifier = Some(verifier.clone());
        let dead_letters = DeadLetters::log_only();
        self.consumer(revocation::SUBSCRIPTION, Arc::new(Revoker(verifier)), dead_letters)
    }

    /// Keeps auth's keys fresh. The gate `keys` holds until there is a set: a process without one can verify nobody.
    #[must_use]
    pub fn keys(self, keys: Arc<RemoteKeys>) -> Self {
        let gate = self.gate("keys");
        self.task("keys", |stop| async move {
            let opened = async {
                keys.ready().await;
                gate.ready();
                std::future::pending::<()>().await;
            };
            tokio::select! {
                () = Arc::clone(&keys).run(stop) => {}
                () = opened => {}
            }
        })
    }

    /// Serves a generated gRPC service, and lists it in health and reflection.
    #[must_use]
    pub fn grpc<S>(mut self, service: S) -> Self
    where
        S: tower::Service<http::Request<Body>, Error = Infallible> + NamedService + Clone + Send + Sync + 'static,
        S::Response: axum::response::IntoResponse,
        S::Future: Send + 'static,
    {
        self.services.push(S::NAME);
        self.routes.push(Box::new(|server| server.grpc(service)));
        self
    }

    /// Serves plain HTTP beside gRPC: the paths that the contract passes through.
    #[must_use]
    pub fn http(mut self, router: axum::Router) -> Self {
        self.routes.push(Box::new(|server| server.http(router)));
        self
    }

    /// Takes the place of the mTLS server, health and reflection, for a process that has its own port: the edge. Everything
    /// else stays. Once the process is ready for calls `serve` is called: then it listens, and what it answers with serves. At the
    /// end `drain` is cancelled first, `kill` when the grace is over.
    #[must_use]
    pub fn server<F>(mut self, serve: impl FnOnce(Drain) -> F + Send + 'static) -> Self
    where
        F: Future<Output = Result<(), BoxError>> + Send + 'static,
    {
        self.own_server = Some(Box::new(|drain| Box::pin(serve(drain))));
        self
    }

    /// Runs work in the background until its token is cancelled. If it ends before that, or panics, [`Bound::serve`] fails.
    #[must_use]
    pub fn task<F>(mut self, name: &'static str, run: impl FnOnce(CancellationToken) -> F + Send + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.tasks.push(Task::new(name, run));
        self
    }

    /// Runs the relay of the service's outbox.
    #[must_use]
    pub fn relay(self, relay: Relay) -> Self {
        self.task("relay", |stop| relay.run(stop))
    }

    /// Consumes events. A broadcast has a gate of the consumer's name, which holds until the replay is over.
    #[must_use]
    pub fn consumer(
        mut self,
        subscription: Subscription,
        handler: Arc<dyn Handler>,
        dead_letters: DeadLetters,
    ) -> Self {
        self.consumers.push(Consumer { subscription, handler, dead_letters });
        self
    }

    /// Hands the service's outbox to the bus if that runs in this process, and closes the database at the end, when nothing
    /// uses it any more.
    #[must_use]
    pub fn database(mut self, db: Db) -> Self {
        self.databases.push(db);
        self
    }

    /// One more thing that must be there before the process is ready. It starts unready.
    pub fn gate(&self, name: &'static str) -> Gate {
        self.gates.gate(name)
    }

    /// For streams that have no end of their own: see [`Draining::watch`].
    pub fn draining(&self) -> Draining {
        self.draining.clone()
    }

    /// Takes the ports and subscribes the consumers. Nothing is served before [`Bound::serve`], and no call before every gate
    /// has been ready.
    pub async fn bind(mut self) -> Result<Bound, Error> {
        let admin = listen(self.settings.admin_listen).await?;
        let (address, serving) = self.serving().await?;
        for database in &self.databases {
            if let Some(bus) = &self.platform.embedded {
                bus.attach(self.name, database.clone());
            }
        }
        // Before any relay of the process runs: the embedded bus knows a consumer from its subscription on.
        let mut consumers = Vec::new();
        for consumer in self.consumers {
            consumers.push(consumer.start(self.platform.bus.as_ref(), &self.gates).await?);
        }
        Bound::new(Parts {
            name: self.name,
            settings: self.settings,
            metrics: self.platform.metrics,
            address,
            admin,
            gates: self.gates,
            draining: self.draining,
            serving,
            tasks: self.tasks,
            consumers,
            databases: self.databases,
        })
    }

    /// What serves, and the address that it listens at.
    async fn serving(&mut self) -> Result<(SocketAddr, Serving), Error> {
        if let Some(serving) = self.own_server.take() {
            return Ok((self.settings.listen, serving));
        }
        let listen = self.settings.listen;
        let failed = |source| Error::Listen { address: listen, source };
        let socket = port::take(listen).map_err(failed)?;
        let address = socket.local_addr().map_err(failed)?;
        let server = self.mesh_server().await?;
        let serving = move |Drain { drain, kill }: Drain| {
            let listener = port::listen(socket).map_err(|source| Error::Listen { address, source });
            async move { Ok(server.serve(listener?, drain, kill).await?) }.boxed()
        };
        Ok((address, Box::new(serving)))
    }

    async fn mesh_server(&mut self) -> Result<Server, Error> {
        let Platform { identity, source, .. } = &self.platform;
        let verifier = self.verifier.clone().ok_or(Error::NoVerifier)?;
        let (reflection_v1, reflection_v1alpha) = reflection::servers(&self.services)?;
        let health = Reporter::new(self.services.clone(), self.gates.clone());
        health.report().await;

        // A call comes in at 1 and goes up the list.
        let server = Server::new(identity.clone(), Authorizer::new(identity.workload(), verifier, source.clone()));
        // 6. The handlers. Generated code validates a message while it decodes it, and refuses one above 4 MiB.
        let server = self.routes.drain(..).fold(server, |server, add| add(server));
        let server = server
            .grpc(health.server(self.draining.clone()))
            .grpc(reflection_v1)
            .grpc(reflection_v1alpha)
            // 3. to 5. are the mesh server's own. A panic becomes INTERNAL, so that one bad call takes nothing with it; the
            //    deadline ends work for a caller who has given up; the authorization denies what the contract does not allow.
            // 2. A full house refuses at once instead of making everybody wait, and before the checks that cost something.
            .layer(ShedLayer::new(self.settings.max_calls))
            // 1. Telemetry is outermost: what is refused further in is traced and counted as well.
            .layer(ServerLayer::new(self.name));
        self.tasks.push(Task::new("health", |stop| health.run(stop)));
        Ok(server)
    }
}

async fn listen(address: SocketAddr) -> Result<TcpListener, Error> {
    TcpListener::bind(address).await.map_err(|source| Error::Listen { address, source })
}
