//! A deployment on one machine: an agent, and each service in processes of its own, on PostgreSQL and Redis of its own.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use mesh::{Identity, IdentitySettings};
use sqlx::{Connection as _, PgConnection};
use tempfile::TempDir;
use tokio::net::UnixStream;
use xtask::postgres;

use super::check::Databases;
use super::load::Admin;
use super::proxy::Proxy;
use crate::process::{self, Process};

pub const AUTH: &str = "auth";
pub const CONTENT: &str = "content";
pub const EDGE: &str = "edge-gateway";
pub const AGENT: &str = "agent";
/// The services that have processes, and the first port of each. An admin port is a thousand higher, a proxy's two thousand.
const SERVICES: [(&str, u16); 3] = [(AUTH, 8100), (CONTENT, 8200), (EDGE, 8000)];
const ADMIN_PORTS: u16 = 1000;
const PROXY_PORTS: u16 = 2000;
const SPARE_PORT: u16 = 8000;
/// What `guildhall dev` at the spare address calls itself.
const ISSUER: &str = "http://localhost:8000";
const TRUST_DOMAIN: &str = "guildhall.internal";
const NAMESPACE: &str = "guildhall";
const WORKLOADS: [&str; 4] = [AUTH, CONTENT, EDGE, "operator"];

/// What is deployed.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Processes of each service.
    pub replicas: usize,
    pub svid_lifetime: Duration,
    /// Whether there are proxies in front of PostgreSQL, of Redis and of each replica of auth and content.
    pub proxied: bool,
    /// Whether calls between services may be made again.
    pub retry: bool,
}

impl Default for Plan {
    fn default() -> Self {
        Self { replicas: 1, svid_lifetime: Duration::from_mins(10), proxied: false, retry: true }
    }
}

/// A running deployment. Dropped, all of it is killed.
pub struct Cluster {
    plan: Plan,
    processes: Vec<Process>,
    pub redis: keyspace::testing::Server,
    /// `None` while a thread of its own works on it.
    postgres: Option<postgres::Instance>,
    /// By what they are in front of: `postgres`, `redis`, or a process's name.
    proxies: Vec<(String, Proxy)>,
    /// Nobody else on this machine uses it, so that a port stays free while its process is away.
    address: IpAddr,
    program: PathBuf,
    home: TempDir,
}

impl Cluster {
    /// Starts everything and waits until all of it is ready. What the processes print is kept in `logs`.
    pub async fn start(program: &Path, plan: Plan, logs: Option<&Path>) -> Self {
        Self::start_with(program, plan, logs, |process| process).await
    }

    /// The same, with more in the environment of the processes.
    pub async fn start_with(
        program: &Path,
        plan: Plan,
        logs: Option<&Path>,
        configure: impl Fn(Process) -> Process,
    ) -> Self {
        let mut cluster = Self::prepare(program, plan, logs).await;
        cluster.processes = cluster.processes.into_iter().map(configure).collect();
        cluster.launch().await;
        cluster
    }

    /// Starts what the processes stand on, and makes empty databases, a master key and settings; none of them runs yet.
    pub async fn prepare(program: &Path, plan: Plan, logs: Option<&Path>) -> Self {
        let home = tempfile::tempdir().expect("a temporary directory");
        let postgres = tokio::task::spawn_blocking(postgres::Instance::start).await.expect("no panic");
        let mut cluster = Self {
            plan,
            processes: Vec::new(),
            redis: keyspace::testing::Server::start(&[]).await,
            postgres: Some(postgres.expect("PostgreSQL starts")),
            proxies: Vec::new(),
            address: address(),
            program: program.to_owned(),
            home,
        };
        if plan.proxied {
            cluster.start_proxies().await;
        }
        cluster.furnish().await;
        cluster.declare(logs);
        cluster
    }

    /// Starts all processes, and waits until they are ready.
    pub async fn launch(&mut self) {
        self.start_process(AGENT).await;
        // All at once, as an orchestrator starts them.
        self.processes.iter_mut().skip(1).for_each(Process::start);
        for name in self.names().into_iter().skip(1) {
            self.ready(&name).await;
        }
    }

    /// An address of this deployment's own at which nobody listens, for somebody who belongs to it.
    pub fn spare_address(&self) -> SocketAddr {
        SocketAddr::new(self.address, SPARE_PORT)
    }

    /// The key that seals what is secret in the databases.
    pub fn master_key(&self) -> PathBuf {
        self.home.path().join("master.key")
    }

    /// Where clients go, one address for each edge.
    pub fn edges(&self) -> Vec<String> {
        self.replicas(EDGE).map(|(_, address)| format!("http://{address}")).collect()
    }

    /// The first admin.
    pub fn admin(&self) -> Admin {
        Admin { email: "admin@example.org".to_owned(), password: crate::PASSWORD.to_owned() }
    }

    /// Every process, the agent first.
    pub fn names(&self) -> Vec<String> {
        self.processes.iter().map(|process| process.name().to_owned()).collect()
    }

    /// The processes of one service.
    pub fn names_of(&self, service: &str) -> Vec<String> {
        self.replicas(service).map(|(name, _)| name).collect()
    }

    /// The two databases, as an operator opens them.
    pub async fn databases(&self) -> Databases {
        Databases::postgres(&self.database(AUTH), &self.database(CONTENT)).await
    }

    /// The URL of a service's database, not by way of a proxy.
    pub fn database(&self, service: &str) -> String {
        let postgres = self.postgres.as_ref().expect("PostgreSQL is not being restarted");
        format!("{}/{service}", postgres.url().rsplit_once('/').expect("a URL with a database").0)
    }

    /// Where a service's own port is, not by way of a proxy.
    pub fn listens(&self, name: &str) -> SocketAddr {
        let all = SERVICES.iter().flat_map(|(service, _)| self.replicas(service));
        all.into_iter().find(|(replica, _)| replica == name).unwrap_or_else(|| panic!("there is no {name}")).1
    }

    /// Where a service's process tells of itself: its health and its metrics.
    pub fn admin_url(&self, name: &str) -> String {
        let mut admin = self.listens(name);
        admin.set_port(admin.port() + ADMIN_PORTS);
        format!("http://{admin}")
    }

    /// The identity of a workload, from the deployment's own agent.
    pub async fn identity(&self, workload: &str) -> Identity {
        let settings = IdentitySettings {
            endpoint: format!("unix:{}", self.socket(workload).display()),
            trust_domain: TRUST_DOMAIN.to_owned(),
            namespace: NAMESPACE.to_owned(),
        };
        Identity::connect(settings).await.expect("the agent gives an identity")
    }

    /// The proxy in front of `what`.
    pub fn proxy(&self, what: &str) -> &Proxy {
        let found = self.proxies.iter().find(|(name, _)| name == what);
        &found.unwrap_or_else(|| panic!("there is no proxy in front of {what}")).1
    }

    /// One process.
    pub fn process(&mut self, name: &str) -> &mut Process {
        let found = self.processes.iter_mut().find(|process| process.name() == name);
        found.unwrap_or_else(|| panic!("there is no {name}"))
    }

    /// Starts a process that does not run, and waits until it is ready.
    pub async fn start_process(&mut self, name: &str) {
        self.process(name).start();
        self.ready(name).await;
    }

    /// Fails if any process has ended by itself.
    pub fn expect_all_running(&mut self) {
        self.processes.iter_mut().for_each(Process::expect_running);
    }

    /// Ends PostgreSQL, in order or at once, and starts it again after a while.
    pub async fn restart_postgres(&mut self, ending: postgres::Ending, away: Duration) {
        let mut postgres = self.postgres.take().expect("PostgreSQL is not being restarted");
        postgres = blocking(postgres, move |postgres| postgres.stop(ending)).await;
        tokio::time::sleep(away).await;
        self.postgres = Some(blocking(postgres, postgres::Instance::restart).await);
    }

    async fn ready(&mut self, name: &str) {
        if name == AGENT {
            let sockets = WORKLOADS.map(|workload| self.socket(workload));
            let connected = async || {
                for socket in &sockets {
                    UnixStream::connect(socket).await.ok()?;
                }
                Some(())
            };
            self.process(name).until(connected).await;
        } else {
            let url = format!("{}/readyz", self.admin_url(name));
            self.process(name).until(async || reqwest::get(&url).await.ok()?.error_for_status().ok()).await;
        }
    }

    /// The names and addresses of a service's processes.
    fn replicas(&self, service: &str) -> impl Iterator<Item = (String, SocketAddr)> + use<> {
        let (service, port) =
            SERVICES.into_iter().find(|(name, _)| *name == service).expect("a service that has processes");
        let address = self.address;
        (1..)
            .take(self.plan.replicas)
            .map(move |number: u16| (format!("{service}-{number}"), SocketAddr::new(address, port + number)))
    }

    /// The Workload API's socket of a workload.
    pub fn socket(&self, workload: &str) -> PathBuf {
        self.home.path().join("agent").join(format!("{workload}.sock"))
    }

    async fn start_proxies(&mut self) {
        let postgres = self.postgres.as_ref().expect("it runs").url().to_owned();
        let databases = [("postgres", postgres, 5432), ("redis", self.redis.url(), 6379)];
        for (name, url, port) in databases {
            let url = reqwest::Url::parse(&url).expect("a URL");
            let target = format!("{}:{}", url.host_str().expect("a host"), url.port().expect("a port"));
            let target = target.parse().expect("an address");
            self.proxies.push((name.to_owned(), Proxy::start(SocketAddr::new(self.address, port), target).await));
        }
        for (name, target) in self.replicas(AUTH).chain(self.replicas(CONTENT)) {
            let mut near = target;
            near.set_port(target.port() + PROXY_PORTS);
            self.proxies.push((name, Proxy::start(near, target).await));
        }
    }

    /// Makes the databases, the master key and the settings that all processes share.
    async fn furnish(&self) {
        let mut admin =
            PgConnection::connect(self.postgres.as_ref().expect("it runs").url()).await.expect("it answers");
        for service in [AUTH, CONTENT] {
            let create = sqlx::AssertSqlSafe(format!("CREATE DATABASE {service}"));
            sqlx::raw_sql(create).execute(&mut admin).await.expect("a new database");
        }
        let key = process::command(&self.program).arg("key").arg(self.master_key()).output().await;
        assert!(key.expect("the program runs").status.success(), "no master key was made");
        std::fs::write(self.settings_file(), self.settings()).expect("a file");
    }

    fn settings_file(&self) -> PathBuf {
        self.home.path().join("guildhall.toml")
    }

    fn settings(&self) -> String {
        let proxied = self.plan.proxied;
        let addresses = |service| {
            let reached = |(name, address): (String, SocketAddr)| {
                let address = if proxied { self.proxy(&name).address() } else { address };
                address.to_string()
            };
            format!("{:?}", self.replicas(service).map(reached).collect::<Vec<_>>())
        };
        let database = |service| {
            if proxied {
                format!("postgres://postgres@{}/{service}", self.proxy("postgres").address())
            } else {
                self.database(service)
            }
        };
        let redis = if proxied { format!("redis://{}", self.proxy("redis").address()) } else { self.redis.url() };
        let Admin { email, password } = self.admin();
        format!(
            r#"
[platform]
master_key_file = "{home}/master.key"
log = "info,spiffe=warn"
log_format = "json"
identity = {{ trust_domain = "{TRUST_DOMAIN}", namespace = "{NAMESPACE}" }}
redis = {{ urls = ["{redis}"] }}
services = {{ auth = {auths}, content = {contents} }}
mesh = {{ retry = {retry} }}

[auth]
issuer = "{issuer}"
require_verified_email = false
first_admin = "{email}"
first_admin_password = "{password}"
attempts = {{ factor = 1000 }}
mail = {{ transport = "directory", directory = "{home}/mail" }}
signing_keys = {{ check_every = "1s" }}
database = {{ url = "{auth}" }}
server = {{ drain = {{ unready = "500ms", grace = "10s" }} }}

[content]
issuer = "{issuer}"
site_url = "{issuer}"
database = {{ url = "{content}" }}
server = {{ drain = {{ unready = "500ms", grace = "10s" }} }}

[edge-gateway]
issuer = "{issuer}"
limit = {{ factor = 1000.0 }}
server = {{ drain = {{ unready = "500ms", grace = "10s" }} }}
"#,
            home = self.home.path().display(),
            issuer = ISSUER,
            auths = addresses(AUTH),
            contents = addresses(CONTENT),
            retry = self.plan.retry,
            auth = database(AUTH),
            content = database(CONTENT),
        )
    }

    fn declare(&mut self, logs: Option<&Path>) {
        let mut agent = vec![AGENT.to_owned(), "--directory".to_owned()];
        agent.push(self.home.path().join("agent").display().to_string());
        agent.extend(["--trust-domain", TRUST_DOMAIN, "--namespace", NAMESPACE].map(str::to_owned));
        agent.extend(["--svid-lifetime".to_owned(), format!("{}ms", self.plan.svid_lifetime.as_millis())]);
        agent.extend(WORKLOADS.iter().flat_map(|workload| ["--workload".to_owned(), (*workload).to_owned()]));
        let mut processes = vec![Process::new(AGENT, &self.program, agent)];
        let settings = self.settings_file().display().to_string();
        for (service, _) in SERVICES {
            let arguments = ["serve", service, "--config", &settings].map(str::to_owned);
            let section = format!("GUILDHALL__{}__SERVER", service.to_uppercase().replace('-', "_"));
            for (name, address) in self.replicas(service) {
                let admin = SocketAddr::new(address.ip(), address.port() + ADMIN_PORTS);
                let process = Process::new(name, &self.program, arguments.clone())
                    .set(format!("{section}__LISTEN"), address.to_string())
                    .set(format!("{section}__ADMIN_LISTEN"), admin.to_string())
                    .set("SPIFFE_ENDPOINT_SOCKET", format!("unix:{}", self.socket(service).display()));
                processes.push(process);
            }
        }
        let kept = |process: Process| match logs {
            Some(directory) => {
                let path = directory.join(format!("{}.log", process.name()));
                process.stdout(path)
            }
            None => process,
        };
        self.processes = processes.into_iter().map(kept).collect();
    }
}

async fn blocking(
    mut postgres: postgres::Instance,
    work: impl FnOnce(&mut postgres::Instance) -> anyhow::Result<()> + Send + 'static,
) -> postgres::Instance {
    let worked = tokio::task::spawn_blocking(move || work(&mut postgres).map(|()| postgres)).await;
    worked.expect("no panic").expect("PostgreSQL does as it is told")
}

/// An address of loopback that no other cluster has: not of this process, and hardly of another one.
pub(super) fn address() -> IpAddr {
    static NEXT: AtomicU8 = AtomicU8::new(1);
    let [_, _, high, low] = std::process::id().to_be_bytes();
    Ipv4Addr::new(127, high.max(1), low, NEXT.fetch_add(1, Ordering::Relaxed)).into()
}
