//! One service in a process of its own, from its settings to its end: what `guildhall serve` and the services' own programs run.
//!
//! A process is the service's `build` on a [`Platform`] that comes from the section `[platform]`: identity from a SPIFFE Workload
//! API, events, limits and caches on Redis, everybody's addresses. `guildhall dev` builds the same services on a platform of its
//! own. To give a service a process, write its [`Process`] beside its `build`, name its section in `SECTIONS` and its address in
//! `platform.default.toml`.

mod settings;

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::{Args, FromArgMatches};
use events::RedisBus;
use futures_util::future::BoxFuture;
use ids::Source;
use keyspace::Keyspace;
use mesh::Identity;
use serde::de::DeserializeOwned;
use telemetry::{Metrics, Telemetry};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::config::{self, Overrides};
use crate::{Bound, BoxError, MasterKey, Platform, Services, drain_on_signal, key};

pub use settings::{Addresses, DEFAULTS, SECTION, Settings};

/// The sections of `guildhall.toml`. One file may serve all processes of a deployment, so each knows them all.
const SECTIONS: [&str; 4] = [SECTION, "auth", "content", "edge-gateway"];
/// How long Redis may take to answer for the first time. The Workload API has as long.
const REDIS_WAIT: Duration = Duration::from_secs(30);
const REDIS_PAUSE: Duration = Duration::from_millis(500);

/// A service, as a process of its own runs it.
pub struct Process<C> {
    /// Its name: its workload's, its section's.
    pub name: &'static str,
    /// Its `config.default.toml`.
    pub defaults: &'static str,
    /// Its `build`.
    pub build: fn(C, Platform) -> BoxFuture<'static, Result<Bound, BoxError>>,
}

/// What the command line of a process says.
// Not a group: the command that it is a part of has options too.
#[derive(Args, Clone, Default)]
#[group(skip)]
pub struct Options {
    /// Settings: a section for each service, and `[platform]`. `GUILDHALL__<SECTION>__<KEY>` in the environment wins over it.
    #[arg(long, env = "GUILDHALL_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
}

/// Why a process did not start, or did not end well. The text says what to do next.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Settings(#[from] config::Error),
    #[error(
        "there is nobody to ask for an identity: set SPIFFE_ENDPOINT_SOCKET, or `platform.identity.endpoint`, to the socket of a \
         SPIFFE Workload API, such as unix:/run/spire/agent.sock; for development `guildhall agent` serves some"
    )]
    NoWorkloadApi,
    #[error(
        "no identity: does the Workload API run, and does it know this process? `guildhall svid` shows what it gives"
    )]
    Identity(#[from] mesh::identity::Error),
    #[error(
        "this is `{service}`, but the Workload API says that the process is `{workload}`: it is another workload's socket, or a \
         registration entry that fits both"
    )]
    WrongWorkload { service: &'static str, workload: String },
    #[error(
        "`platform.redis.urls` is empty: events would stay in this process and reach no other. Name a Redis, or run everything in \
         one process by `guildhall dev`"
    )]
    NoRedis,
    #[error("Redis does not answer: is it running at `platform.redis.urls`, and do user and password fit?")]
    Redis(#[source] keyspace::Error),
    #[error("`platform.redis` cannot be used")]
    RedisSettings(#[source] keyspace::Error),
    #[error(
        "`platform.master_key_file` is not set: `guildhall key FILE` makes a key. All replicas of a service need the same, and it \
         must outlive them: what it sealed nobody opens without it"
    )]
    NoMasterKey,
    #[error(transparent)]
    MasterKey(#[from] key::Error),
    #[error("`platform.services.{workload}` cannot be used")]
    Endpoints { workload: String, source: mesh::NotEndpoints },
    #[error(
        "`{section}.database.url` is SQLite, which belongs to one process alone: name a database of PostgreSQL, or run everything in \
         one process by `guildhall dev`"
    )]
    Sqlite { section: String },
    #[error("{service} does not start: does PostgreSQL run at {place}, and do user, password and database fit?")]
    Database { service: &'static str, place: String, source: BoxError },
    #[error("{service} does not start")]
    Build { service: &'static str, source: BoxError },
    #[error("logs and traces cannot be written")]
    Telemetry(#[from] telemetry::Error),
    #[error("signals cannot be waited for")]
    Signals(#[source] io::Error),
    #[error("{service} did not end well")]
    Serve { service: &'static str, source: crate::Error },
}

impl<C: DeserializeOwned> Process<C> {
    /// The whole of a program that is this service alone.
    pub fn main(&self) -> ExitCode {
        let about = format!("The service `{0}` of Guildhall: what `guildhall serve {0}` runs.", self.name);
        let command =
            Options::augment_args(clap::Command::new(self.name)).about(about).version(env!("CARGO_PKG_VERSION"));
        let matches = command.get_matches();
        let options = Options::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
        let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
            Ok(runtime) => runtime,
            Err(error) => {
                eprintln!("error: {error}");
                return ExitCode::FAILURE;
            }
        };
        match runtime.block_on(self.run(options)) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("error: {}", chain(&error));
                ExitCode::FAILURE
            }
        }
    }

    /// Serves until SIGTERM or SIGINT and an orderly end ([`Bound::serve`]); then sends the last spans and writes the last lines.
    pub async fn run(&self, options: Options) -> Result<(), Error> {
        let file = options.config.as_deref();
        config::check_sections(&SECTIONS, file, std::env::vars())?;
        let settings = Settings::load(file)?;
        let config = config::load(self.defaults, self.name, file, &Overrides::new())?;
        let database = settings::database(self.defaults, self.name, file)?;

        let telemetry = telemetry::init(&settings.telemetry(self.name))?;
        let stop = drain_on_signal().map_err(Error::Signals)?;
        let served = Box::pin(self.serve(config, &settings, database, &telemetry, stop)).await;
        let _flushed = tokio::task::spawn_blocking(move || telemetry.shutdown()).await;
        served
    }

    async fn serve(
        &self,
        config: C,
        settings: &Settings,
        database: Option<String>,
        telemetry: &Telemetry,
        stop: CancellationToken,
    ) -> Result<(), Error> {
        let service = self.name;
        let starting = async {
            let platform = platform(service, settings, telemetry.metrics()).await?;
            (self.build)(config, platform).await.map_err(|source| match database {
                Some(place) if is_unavailable(&*source) => Error::Database { service, place, source },
                _ => Error::Build { service, source },
            })
        };
        // Whoever ends a process that still waits for something is not kept waiting.
        match stop.run_until_cancelled(starting).await {
            None => Ok(()),
            Some(bound) => bound?.serve(stop).await.map_err(|source| Error::Serve { service, source }),
        }
    }
}

/// What the settings say that `service` stands on. What can be judged at once is judged before anybody is waited for.
async fn platform(service: &'static str, settings: &Settings, metrics: Metrics) -> Result<Platform, Error> {
    let source = Source::system();
    let (identity, redis, key) = (settings.identity()?, settings.redis()?, settings.master_key()?);
    let services = Services::new();
    for (workload, endpoints) in settings.endpoints()? {
        services.set(&workload, endpoints);
    }

    let keyspace = Keyspace::open(&redis).map_err(Error::RedisSettings)?;
    let (identity, ()) = tokio::try_join!(identify(service, identity), answered(&keyspace))?;
    Ok(Platform {
        bus: Arc::new(RedisBus::new(keyspace.clone(), source.clone())),
        limits: limits(&keyspace, &key, &source),
        keyspace: Some(keyspace),
        embedded: None,
        mesh: mesh::Settings { retry: settings.mesh.retry, source: source.clone(), ..mesh::Settings::default() },
        source,
        identity,
        key,
        metrics,
        services,
    })
}

async fn identify(service: &'static str, settings: mesh::IdentitySettings) -> Result<Identity, Error> {
    tracing::info!(endpoint = settings.endpoint, "Waiting for the identity of {service}");
    let identity = Identity::connect(settings).await?;
    let workload = identity.workload().as_str();
    if workload == service {
        return Ok(identity);
    }
    Err(Error::WrongWorkload { service, workload: workload.to_owned() })
}

/// Waits for Redis, as a process that starts beside it has to.
async fn answered(keyspace: &Keyspace) -> Result<(), Error> {
    let began = Instant::now();
    while let Err(error) = keyspace.ping().await {
        if !error.is_unavailable() || began.elapsed() > REDIS_WAIT {
            return Err(Error::Redis(error));
        }
        tracing::warn!(error = chain(&error), "Redis does not answer yet");
        sleep(REDIS_PAUSE).await;
    }
    Ok(())
}

/// The limits of all replicas, with this process's own while Redis is away. Its keys are made unreadable: they name people and addresses.
fn limits(keyspace: &Keyspace, key: &MasterKey, source: &Source) -> Arc<dyn limit::Limits> {
    let own = limit::InProcess::new(limit::CAPACITY, source.clone());
    Arc::new(limit::OnRedis::new(keyspace.clone(), &key.derive("limits"), own))
}

/// Whether a database that cannot be reached is at the root of it.
fn is_unavailable(error: &(dyn std::error::Error + 'static)) -> bool {
    matches!(error.downcast_ref(), Some(store::Error::Unavailable(_))) || error.source().is_some_and(is_unavailable)
}

/// An error with all that it came from, in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    text
}
