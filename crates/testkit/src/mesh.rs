use std::sync::Arc;
use std::time::Duration;

use agent::Agent;
use chassis::{Bound, MasterKey, Platform, Services};
use events::{EmbeddedBus, Outbox};
use ids::{ManualClock, Source, SystemRandom};
use mesh::token::{Keys, Verifier};
use mesh::{Channel, Identity, IdentitySettings};
use store::testing::{Backend, TestDb};
use store::{Db, Migrations};
use tempfile::TempDir;
use tokio::time::{sleep, timeout};
use tonic::Request;

use crate::service::POLL;
use crate::token::{AUDIENCE, ISSUER, Signer, TokenSpec};
use crate::{Service, StandIn};

pub(crate) const TRUST_DOMAIN: &str = "guildhall.internal";
const NAMESPACE: &str = "guildhall";
/// Everybody who has an identity; `stranger` is a workload that no access rule names.
const WORKLOADS: [&str; 9] =
    ["auth", "content", "comment", "media", "sig", "liveops", "edge-gateway", "operator", "stranger"];
/// Long enough for a test, short enough that rotation happens in a long one.
const SVID_LIFETIME: Duration = Duration::from_mins(2);
/// How long events may take to be published.
const SETTLE: Duration = Duration::from_secs(20);

/// A mesh of its own for one test.
pub struct Mesh {
    agent: Agent,
    source: Source,
    bus: Arc<EmbeddedBus>,
    services: Services,
    metrics: telemetry::Metrics,
    _directory: TempDir,
}

impl Mesh {
    /// A mesh on the machine's clock.
    pub async fn start() -> Self {
        Self::with(Source::system()).await
    }

    /// A mesh whose services and tokens follow a clock that the test moves. Certificates follow the machine's: TLS does.
    pub async fn with_clock(clock: Arc<ManualClock>) -> Self {
        Self::with(Source::new(clock, Arc::new(SystemRandom))).await
    }

    async fn with(source: Source) -> Self {
        let settings = telemetry::Settings {
            format: telemetry::Format::Pretty,
            filter: std::env::var("GUILDHALL_TEST_LOG").unwrap_or_else(|_| "off".to_owned()),
            otlp_endpoint: None,
            service_name: "test".to_owned(),
        };
        let metrics = telemetry::init(&settings).expect("telemetry starts").metrics();
        let directory = TempDir::new().expect("a directory for the test");
        let agent = Agent::start(agent::Settings {
            directory: directory.path().join("agent"),
            trust_domain: TRUST_DOMAIN.to_owned(),
            namespace: NAMESPACE.to_owned(),
            workloads: WORKLOADS.map(str::to_owned).to_vec(),
            svid_lifetime: SVID_LIFETIME,
            source: Source::system(),
        });
        Self {
            agent: agent.await.expect("the agent starts"),
            bus: Arc::new(EmbeddedBus::new(source.clone())),
            source,
            services: Services::new(),
            metrics,
            _directory: directory,
        }
    }

    /// The identities' agent, to rotate them.
    pub fn agent(&self) -> &Agent {
        &self.agent
    }

    /// Time, randomness and ids of this mesh.
    pub fn source(&self) -> &Source {
        &self.source
    }

    /// The bus of this mesh.
    pub fn bus(&self) -> Arc<EmbeddedBus> {
        Arc::clone(&self.bus)
    }

    /// Where the services are; those that [`Mesh::serve`] serves are entered by it.
    pub fn services(&self) -> &Services {
        &self.services
    }

    /// What the service of this name is built on.
    pub async fn platform(&self, workload: &str) -> Platform {
        Platform {
            source: self.source.clone(),
            identity: self.caller(workload).await,
            bus: self.bus(),
            limits: Arc::new(limit::InProcess::new(limit::CAPACITY, self.source.clone())),
            keyspace: None,
            key: MasterKey::from_hex(&"5e".repeat(32)).expect("64 digits"),
            metrics: self.metrics.clone(),
            services: self.services.clone(),
            mesh: mesh::Settings::default(),
            embedded: Some(self.bus()),
        }
    }

    /// The identity of a workload, to call with.
    pub async fn caller(&self, workload: &str) -> Identity {
        let settings = IdentitySettings {
            endpoint: self.agent.endpoint(workload),
            trust_domain: TRUST_DOMAIN.to_owned(),
            namespace: NAMESPACE.to_owned(),
        };
        Identity::connect(settings).await.expect("the workload has an identity")
    }

    /// A channel from one workload to another that is served, or will be.
    pub async fn channel(&self, from: &str, to: &str) -> Channel {
        let server = to.parse().expect("a workload's name");
        mesh::connect(&self.caller(from).await, server, self.services.endpoints(to).await)
    }

    /// Serves, makes the address known to the others, and returns when the service is ready.
    pub async fn serve(&self, bound: Bound) -> Service {
        self.services.set(bound.name(), bound.address());
        let service = Service::start(bound);
        service.ready().await;
        service
    }

    /// Stands in for auth: see [`StandIn`].
    pub async fn serve_auth(&self) -> StandIn {
        StandIn::serve(self).await
    }

    /// A new database with the tables of the events, the store and `migrations`.
    pub async fn database(&self, backend: Backend, migrations: &[&'static Migrations]) -> TestDb {
        let all: Vec<_> =
            [&store::MIGRATIONS, &events::MIGRATIONS].into_iter().chain(migrations.iter().copied()).collect();
        store::testing::database(backend, &all).await
    }

    /// An access token that the services of this mesh accept.
    pub fn token(&self, spec: &TokenSpec) -> String {
        Signer::shared().sign(&spec.claims(&self.source))
    }

    /// The keys that verify [`Mesh::token`].
    pub fn keys(&self) -> Arc<dyn Keys> {
        Signer::shared().keys()
    }

    /// A verifier of [`Mesh::token`], for a service that is tested without auth.
    pub fn verifier(&self) -> Verifier {
        Verifier::new(self.keys(), ISSUER.to_owned(), AUDIENCE.to_owned(), self.source.clone())
    }

    /// A request in the name of the token's user.
    pub fn as_user<T>(&self, token: &str, message: T) -> Request<T> {
        let mut request = Request::new(message);
        let value = format!("Bearer {token}").parse().expect("a token is ASCII");
        request.metadata_mut().insert("authorization", value);
        request
    }

    /// Waits until every event of this database has been published, and fails if that does not happen: call it at the end
    /// of a test, so that no event is left behind.
    pub async fn settle(&self, db: &Db) {
        let settled = async {
            while Outbox::pending(db).await.expect("the outbox can be read") > 0 {
                sleep(POLL).await;
            }
        };
        let in_time = timeout(SETTLE, settled).await.is_ok();
        assert!(in_time, "{:?} events were never published", Outbox::pending(db).await);
    }
}
