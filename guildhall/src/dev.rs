//! `guildhall dev`: everything in one process, each service a real gRPC server with an identity of its own.

mod settings;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use agent::Agent;
use anyhow::{Context, Result, ensure};
use base64::Engine as _;
use chassis::{MasterKey, Platform, Services};
use clap::Args;
use events::EmbeddedBus;
use ids::Source;
use mesh::{Identity, IdentitySettings};
use telemetry::{Format, Telemetry};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::agent::{NAMESPACE, TRUST_DOMAIN, WORKLOADS};
use crate::dev_file::{Credential, DataDirectory, DevFile, Service};
use settings::Settings;

/// Short, so that rotation is an everyday event.
const SVID_LIFETIME: Duration = Duration::from_mins(10);
const ADMIN: &str = "admin@guildhall.localhost";
/// How long the start may take on a machine that is busy.
const READY: Duration = Duration::from_mins(1);
/// Socket addresses end at 107 bytes.
const LONGEST_SOCKET_DIRECTORY: usize = 80;

#[derive(Args)]
pub struct Options {
    /// Where the edge listens. Port 0 picks a free one.
    #[arg(long, env = "GUILDHALL_HTTP", value_name = "ADDRESS", default_value = "127.0.0.1:8080", value_parser = http_address)]
    http: SocketAddr,
    #[command(flatten)]
    data: DataDirectory,
    /// Settings of the services, a section for each. `GUILDHALL__<SERVICE>__<KEY>` in the environment wins over it.
    #[arg(long, env = "GUILDHALL_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// What is logged, such as `info,content=debug`.
    #[arg(long, env = "GUILDHALL_LOG", value_name = "FILTER", default_value = "info,spiffe=warn")]
    log: String,
    /// Where traces go, by OTLP over gRPC, such as `http://localhost:4317`.
    #[arg(long, env = "OTEL_EXPORTER_OTLP_ENDPOINT", value_name = "URL")]
    otlp_endpoint: Option<String>,
}

/// Also reads the form in which other commands take the same variable.
fn http_address(text: &str) -> Result<SocketAddr, String> {
    let address =
        text.strip_prefix("http://").unwrap_or(text).trim_end_matches('/').replace("localhost:", "127.0.0.1:");
    address.parse().map_err(|_| format!("`{text}` is no address and port, such as 127.0.0.1:8080"))
}

pub async fn run(options: Options) -> Result<()> {
    let began = Instant::now();
    let stop = chassis::drain_on_signal()?;
    let data = open_directory(&options.data.data_dir)?;
    let _lock = lock(&data)?;
    let telemetry = telemetry::init(&telemetry::Settings {
        format: Format::Auto,
        filter: options.log.clone(),
        otlp_endpoint: options.otlp_endpoint.clone(),
        service_name: "guildhall".to_owned(),
    })?;
    let result = Box::pin(serve(&options, &data, &telemetry, began, stop)).await;
    telemetry.shutdown();
    result
}

async fn serve(
    options: &Options,
    data: &Path,
    telemetry: &Telemetry,
    began: Instant,
    stop: CancellationToken,
) -> Result<()> {
    let source = Source::system();
    let key = master_key(data, &source)?;
    // Derived, so that a start that was cut short does not lose it.
    let first_password = derived_name(&key, "dev.first-admin");
    let settings = Settings::load(options.http, options.config.as_deref(), data, first_password)?;
    let agent = Agent::start(agent::Settings {
        directory: socket_directory(data, &key),
        trust_domain: TRUST_DOMAIN.to_owned(),
        namespace: NAMESPACE.to_owned(),
        workloads: WORKLOADS.map(str::to_owned).to_vec(),
        svid_lifetime: SVID_LIFETIME,
        source: source.clone(),
    })
    .await
    .context("the agent that hands out identities does not start")?;

    let bus = Arc::new(EmbeddedBus::new(source.clone()));
    let services = Services::new();
    let platform = async |workload: &str| -> Result<Platform> {
        let endpoint = agent.endpoint(workload);
        let identity =
            IdentitySettings { endpoint, trust_domain: TRUST_DOMAIN.to_owned(), namespace: NAMESPACE.to_owned() };
        Ok(Platform {
            source: source.clone(),
            identity: Identity::connect(identity).await.with_context(|| format!("{workload} gets no identity"))?,
            bus: bus.clone(),
            limits: Arc::new(limit::InProcess::new(limit::CAPACITY, source.clone())),
            keyspace: None,
            key: key.clone(),
            metrics: telemetry.metrics(),
            services: services.clone(),
            mesh: mesh::Settings::default(),
            embedded: Some(bus.clone()),
        })
    };
    let admin_password = settings.auth.first_admin_password.clone();
    // Each is entered as soon as it is bound: the others wait for its address while they start.
    let (auth, content, edge) = tokio::try_join!(
        async {
            let (bound, first_admin) = auth::build(settings.auth, platform("auth").await?).await.context("auth")?;
            services.set("auth", bound.address());
            anyhow::Ok((bound, first_admin))
        },
        async {
            let bound = content::build(settings.content, platform("content").await?).await.context("content")?;
            services.set("content", bound.address());
            anyhow::Ok(bound)
        },
        async {
            let platform = platform(edge_gateway::NAME).await?;
            edge_gateway::build(settings.edge_gateway, platform).await.context("edge-gateway")
        },
    )?;
    let (auth, first_admin) = auth;

    let http = format!("http://{}", edge.address());
    let service = |bound: &chassis::Bound| Service {
        grpc: bound.address().to_string(),
        admin: format!("http://{}", bound.admin_address()),
    };
    let dev = DevFile {
        http,
        http_admin: format!("http://{}", edge.admin_address()),
        pid: std::process::id(),
        trust_domain: TRUST_DOMAIN.to_owned(),
        services: BTreeMap::from([("auth".to_owned(), service(&auth)), ("content".to_owned(), service(&content))]),
        identities: WORKLOADS.iter().map(|workload| ((*workload).to_owned(), agent.endpoint(workload))).collect(),
        admin: Some(Credential { email: ADMIN.to_owned(), password: admin_password }),
    };

    // Before anything answers: whoever sees the port open may look here next.
    dev.write(data)?;

    // The edge goes first, so that nothing is refused behind it; a part that fails takes the others with it.
    let mut running = Running { failed: stop.clone(), parts: Vec::new() };
    running.start("edge-gateway", |drain| edge.serve(drain));
    running.start("content", |drain| content.serve(drain));
    running.start("auth", |drain| auth.serve(drain));
    let ready = tokio::select! {
        ready = all_ready(&dev) => ready,
        () = stop.cancelled() => Ok(()),
    };
    if ready.is_ok() && !stop.is_cancelled() {
        announce(&dev, data, first_admin.is_some(), began.elapsed());
        stop.cancelled().await;
    }
    let ended = running.stop().await;
    agent.shutdown().await;
    DevFile::remove(data);
    ready.and(ended)
}

/// The parts that serve, in the order in which they are drained.
struct Running {
    failed: CancellationToken,
    parts: Vec<Part>,
}

struct Part {
    name: &'static str,
    drain: CancellationToken,
    serving: JoinHandle<Result<(), chassis::Error>>,
}

impl Running {
    fn start<F>(&mut self, name: &'static str, serve: impl FnOnce(CancellationToken) -> F)
    where
        F: Future<Output = Result<(), chassis::Error>> + Send + 'static,
    {
        let drain = CancellationToken::new();
        let (serving, failed) = (serve(drain.clone()), self.failed.clone());
        let serving = tokio::spawn(async move {
            let ended = serving.await;
            failed.cancel();
            ended
        });
        self.parts.push(Part { name, drain, serving });
    }

    async fn stop(self) -> Result<()> {
        let mut result = Ok(());
        for Part { name, drain, serving } in self.parts {
            drain.cancel();
            let ended = serving.await.context("it panicked").and_then(|ended| Ok(ended?));
            result = result.and(ended.with_context(|| format!("{name} did not end well")));
        }
        result
    }
}

/// Creates the directory, or takes one that is there; others have no business in it.
fn open_directory(path: &Path) -> Result<PathBuf> {
    let context = || format!("cannot use the data directory {}", path.display());
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path).with_context(context)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o700)).with_context(context)?;
    path.canonicalize().with_context(context)
}

/// Makes sure that nobody else works in the directory. The lock ends with the process, however it ends.
fn lock(data: &Path) -> Result<File> {
    let path = data.join("lock");
    let file = File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
    file.try_lock().with_context(|| {
        format!(
            "another `guildhall dev` runs on {}: end it, or choose another directory with --data-dir DIR",
            data.display()
        )
    })?;
    Ok(file)
}

fn master_key(data: &Path, source: &Source) -> Result<MasterKey> {
    let path = data.join("master.key");
    let key = if path.exists() { MasterKey::from_file(&path) } else { MasterKey::create(&path, source) };
    key.context("the key that seals what is secret")
}

/// Where the agent's sockets lie: beside the data, unless that path is too long for a socket's address.
fn socket_directory(data: &Path, key: &MasterKey) -> PathBuf {
    let beside = data.join("agent");
    if beside.as_os_str().len() <= LONGEST_SOCKET_DIRECTORY {
        return beside;
    }
    std::env::temp_dir().join(format!("guildhall-{}", &derived_name(key, "dev.sockets")[..16]))
}

/// A text that belongs to this data directory alone and cannot be guessed.
fn derived_name(key: &MasterKey, purpose: &str) -> String {
    base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(&key.derive(purpose)[..18])
}

/// Waits until every part says that it is ready, keys included.
async fn all_ready(dev: &DevFile) -> Result<()> {
    let client = reqwest::Client::new();
    let waiting = async {
        for admin in dev.services.values().map(|service| &service.admin).chain([&dev.http_admin]) {
            while !is_ready(&client, admin).await {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
    };
    let waited = tokio::time::timeout(READY, waiting).await;
    ensure!(waited.is_ok(), "not everything is ready after {} s: see the log above", READY.as_secs());
    Ok(())
}

async fn is_ready(client: &reqwest::Client, admin: &str) -> bool {
    let answer = client.get(format!("{admin}/readyz")).timeout(Duration::from_secs(1)).send().await;
    answer.is_ok_and(|answer| answer.status().is_success())
}

fn announce(dev: &DevFile, data: &Path, first_start: bool, took: Duration) {
    let http = &dev.http;
    println!("\nGuildhall is ready at {http}  (in {} ms)\n", took.as_millis());
    println!("  {:<14} {http}/docs", "API");
    for (name, service) in &dev.services {
        println!("  {name:<14} {} (gRPC, mutual TLS), health and metrics at {}", service.grpc, service.admin);
    }
    println!("  {:<14} health and metrics at {}", "edge-gateway", dev.http_admin);
    println!("  {:<14} {} (addresses in dev.json, mails in mail/)", "data", data.display());
    match &dev.admin {
        Some(admin) if first_start => println!("  {:<14} {}  password {}", "admin", admin.email, admin.password),
        Some(admin) => println!("  {:<14} {} (its first password is in dev.json)", "admin", admin.email),
        None => {}
    }
    println!("\n  curl {http}/api/v1/posts\n");
}
