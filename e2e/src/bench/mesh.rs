//! What a call over the mesh costs: the services' own server and client against gRPC without TLS, and, in between, gRPC over mutual
//! TLS with the same SVIDs and nothing else of the mesh.

use std::future::ready;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use agent::Agent;
use anyhow::{Context as _, Result};
use chassis::{Builder, DrainSettings, MasterKey, Platform, ServerSettings, Services};
use contracts::auth::v1::profile_service_client::ProfileServiceClient;
use contracts::auth::v1::profile_service_server::{ProfileService, ProfileServiceServer};
use contracts::auth::v1::{BatchGetProfilesRequest, BatchGetProfilesResponse, Profile};
use events::EmbeddedBus;
use hyper_util::rt::TokioIo;
use ids::Source;
use mesh::token::{KeySet, Verifier};
use mesh::{Identity, IdentitySettings, SpiffeId, TrustDomain, Workload};
use spiffe::X509Source;
use spiffe_rustls::{TrustDomainPolicy, authorizer, mtls_client, mtls_server};
use store::Db;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, Command};
use tokio::sync::mpsc;
use tokio_rustls::{TlsAcceptor, TlsConnector};
use tokio_util::sync::CancellationToken;
use tonic::codegen::tokio_stream::wrappers::ReceiverStream;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Channel, Endpoint, Server};
use tonic::{Request, Response, Status};
use xtask::bench::Options;

use super::{Answer, Call, Contest, paces};

const TRUST_DOMAIN: &str = "guildhall.internal";
const NAMESPACE: &str = "guildhall";
/// Who calls, and who is called: the contract lets the one ask the other for profiles, in nobody's name.
const CLIENT: &str = "content";
const SERVER: &str = "auth";
/// Longer than a run.
const SVID_LIFETIME: Duration = Duration::from_hours(1);
const ALPN: [&[u8]; 1] = [b"h2"];
/// Whose profile is asked for.
const SOMEBODY: &str = "01a1fd3f-1472-7999-8a91-e684e60fd98f";
/// Between two looks at whether the server is ready.
const POLL: Duration = Duration::from_millis(10);
/// Of one caller in a turn.
const CALLS: u32 = 4000;
/// A connection takes as long as so many calls.
const CALLS_PER_CONNECTION: u32 = 20;

/// Where the three servers of one process listen.
#[derive(Clone, Copy)]
struct Servers {
    plaintext: SocketAddr,
    tls: SocketAddr,
    mesh: SocketAddr,
}

pub async fn run(options: &Options) -> Result<()> {
    let directory = tempfile::tempdir()?;
    let agent = Agent::start(agent::Settings {
        directory: directory.path().join("agent"),
        trust_domain: TRUST_DOMAIN.to_owned(),
        namespace: NAMESPACE.to_owned(),
        workloads: [CLIENT, SERVER].map(str::to_owned).to_vec(),
        svid_lifetime: SVID_LIFETIME,
        source: Source::system(),
    });
    let agent = agent.await.context("the agent does not start")?;
    let clients = Clients::start(&agent.endpoint(CLIENT)).await?;
    let here = Servers::start(&agent.endpoint(SERVER), directory.path()).await?;
    let (child, there) = Servers::start_process(&agent.endpoint(SERVER)).await?;

    let own = std::process::id();
    let other = child.id().context("the servers' process has ended")?;
    let calls = options.calls.unwrap_or(CALLS);
    let mut contests = Vec::new();
    for (place, servers, processes) in [
        ("in one process", here, vec![("both", own)]),
        ("between processes", there, vec![("client", own), ("server", other)]),
    ] {
        for (callers, calls, pace) in paces(calls) {
            let contenders = clients.kept(servers)?;
            contests.push(Contest {
                work: format!("{place}, {pace}"),
                callers,
                calls,
                contenders,
                processes: processes.clone(),
            });
        }
        contests.push(Contest {
            work: format!("{place}, each on a new connection"),
            callers: 1,
            calls: calls.div_ceil(CALLS_PER_CONNECTION),
            contenders: clients.fresh(servers),
            processes,
        });
    }
    println!("One small unary call whose handler does next to nothing; client and servers share the machine.");
    super::compare(&contests, options).await
}

/// The other process: serves until its input ends.
pub async fn serve(endpoint: &str) -> Result<()> {
    let directory = tempfile::tempdir()?;
    let Servers { plaintext, tls, mesh } = Servers::start(endpoint, directory.path()).await?;
    println!("{plaintext} {tls} {mesh}");
    tokio::io::stdin().read_to_end(&mut Vec::new()).await?;
    Ok(())
}

impl Servers {
    async fn start(endpoint: &str, directory: &Path) -> Result<Self> {
        let settings = telemetry::Settings {
            format: telemetry::Format::Json,
            filter: "warn".to_owned(),
            otlp_endpoint: None,
            service_name: SERVER.to_owned(),
        };
        let metrics = telemetry::init(&settings)?.metrics();
        let identity = identity(endpoint).await?;
        Ok(Self {
            plaintext: serve_plaintext().await?,
            tls: serve_tls(source(endpoint).await?).await?,
            mesh: serve_on_mesh(identity, metrics, directory).await?,
        })
    }

    /// This program once more, as the other process. It ends with the child, or when the child is dropped.
    async fn start_process(endpoint: &str) -> Result<(Child, Self)> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["serve", endpoint]).stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().context("the servers' process does not start")?;
        let output = child.stdout.take().context("it has no output")?;
        let line = BufReader::new(output).lines().next_line().await?.context("the servers' process has ended")?;
        let addresses: Vec<SocketAddr> =
            line.split(' ').map(str::parse).collect::<Result<_, _>>().context("it prints where it listens")?;
        let [plaintext, tls, mesh] = addresses[..] else { anyhow::bail!("it prints where it listens: {line}") };
        Ok((child, Self { plaintext, tls, mesh }))
    }
}

/// What anybody would write.
async fn serve_plaintext() -> Result<SocketAddr> {
    let listener = listener().await?;
    let address = listener.local_addr()?;
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    tokio::spawn(Server::builder().add_service(ProfileServiceServer::new(Profiles)).serve_with_incoming(incoming));
    Ok(address)
}

/// The same over mutual TLS, which admits the trust domain.
async fn serve_tls(source: X509Source) -> Result<SocketAddr> {
    let trust_domain = TrustDomain::new(TRUST_DOMAIN)?;
    let config = mtls_server(source)
        .authorize(authorizer::trust_domains([trust_domain.clone()])?)
        .trust_domain_policy(TrustDomainPolicy::LocalOnly(trust_domain))
        .with_alpn_protocols(ALPN)
        .build()?;
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = listener().await?;
    let address = listener.local_addr()?;
    let (accepted, incoming) = mpsc::channel(1);
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            let (acceptor, accepted) = (acceptor.clone(), accepted.clone());
            tokio::spawn(async move {
                tcp.set_nodelay(true)?;
                // Without the server's end nobody waits for it.
                let _ = accepted.send(acceptor.accept(tcp).await).await;
                std::io::Result::Ok(())
            });
        }
    });
    let incoming = ReceiverStream::new(incoming);
    tokio::spawn(Server::builder().add_service(ProfileServiceServer::new(Profiles)).serve_with_incoming(incoming));
    Ok(address)
}

/// As auth is served, with all that the chassis puts around it. It is ready once it has read from its own outbox that no token was
/// revoked.
async fn serve_on_mesh(identity: Identity, metrics: telemetry::Metrics, directory: &Path) -> Result<SocketAddr> {
    let db = Db::open(store::Settings::new(format!("sqlite:{}", directory.join("auth.db").display()))).await?;
    db.migrate(&[&store::MIGRATIONS, &events::MIGRATIONS]).await?;
    let source = Source::system();
    let bus = Arc::new(EmbeddedBus::new(source.clone()));
    let platform = Platform {
        identity,
        bus: bus.clone(),
        limits: Arc::new(limit::InProcess::new(limit::CAPACITY, source.clone())),
        keyspace: None,
        key: MasterKey::from_hex(&"5e".repeat(32))?,
        metrics,
        services: Services::new(),
        mesh: mesh::Settings::default(),
        embedded: Some(bus),
        source: source.clone(),
    };
    let any = (Ipv4Addr::LOCALHOST, 0).into();
    let drain = DrainSettings { unready: Duration::ZERO, grace: Duration::ZERO };
    let settings = ServerSettings { listen: any, admin_listen: any, drain, max_calls: 1024 };
    // Nobody calls in a person's name here, so there are no keys.
    let verifier = Verifier::new(Arc::new(KeySet::default()), "nobody".to_owned(), "nobody".to_owned(), source);
    let bound = Builder::new(SERVER, settings, &platform)
        .verifier(verifier)
        .grpc(ProfileServiceServer::new(Profiles))
        .database(db)
        .bind()
        .await?;
    let address = bound.address();
    let ready = format!("http://{}/readyz", bound.admin_address());
    let serving = tokio::spawn(bound.serve(CancellationToken::new()));
    while !reqwest::get(&ready).await.is_ok_and(|answer| answer.status().is_success()) {
        anyhow::ensure!(!serving.is_finished(), "the server on the mesh has ended before it was ready");
        tokio::time::sleep(POLL).await;
    }
    Ok(address)
}

async fn listener() -> Result<TcpListener> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?)
}

/// Answers with a profile that it does not look for.
struct Profiles;

#[tonic::async_trait]
impl ProfileService for Profiles {
    async fn batch_get_profiles(
        &self,
        request: Request<BatchGetProfilesRequest>,
    ) -> Result<Response<BatchGetProfilesResponse>, Status> {
        let profile = |id| Profile { id, display_name: "Ada".to_owned(), ..Profile::default() };
        let profiles = request.into_inner().user_ids.into_iter().map(profile).collect();
        Ok(Response::new(BatchGetProfilesResponse { profiles }))
    }
}

/// Those who call.
struct Clients {
    identity: Identity,
    x509: X509Source,
    server: Workload,
    server_id: SpiffeId,
}

impl Clients {
    async fn start(endpoint: &str) -> Result<Self> {
        let identity = identity(endpoint).await?;
        let server: Workload = SERVER.parse()?;
        let server_id = server.spiffe_id(identity.trust_domain(), identity.namespace());
        Ok(Self {
            x509: source(endpoint).await?,
            server_id: server_id.context("the server has a SPIFFE ID")?,
            server,
            identity,
        })
    }

    /// Each on the connection of its first call.
    fn kept(&self, servers: Servers) -> Result<Vec<(&'static str, Call)>> {
        let plaintext = plaintext(servers.plaintext);
        let tls = tls(&self.x509, &self.server_id, servers.tls)?;
        let mesh = mesh::connect(&self.identity, self.server.clone(), servers.mesh.into());
        Ok(named(
            Arc::new(move || profile(ProfileServiceClient::new(plaintext.clone()))),
            Arc::new(move || profile(ProfileServiceClient::new(tls.clone()))),
            Arc::new(move || profile(ProfileServiceClient::new(mesh.clone()))),
        ))
    }

    /// Each call on a connection of its own.
    fn fresh(&self, servers: Servers) -> Vec<(&'static str, Call)> {
        let Self { identity, x509, server, server_id } = self;
        let (identity, x509, server, server_id) = (identity.clone(), x509.clone(), server.clone(), server_id.clone());
        named(
            Arc::new(move || profile(ProfileServiceClient::new(plaintext(servers.plaintext)))),
            Arc::new(move || match tls(&x509, &server_id, servers.tls) {
                Ok(channel) => profile(ProfileServiceClient::new(channel)),
                Err(error) => Box::pin(ready(Err(error))),
            }),
            Arc::new(move || {
                let channel = mesh::connect(&identity, server.clone(), servers.mesh.into());
                profile(ProfileServiceClient::new(channel))
            }),
        )
    }
}

fn named(plaintext: Call, tls: Call, mesh: Call) -> Vec<(&'static str, Call)> {
    vec![("plaintext", plaintext), ("mutual TLS alone", tls), ("mesh", mesh)]
}

fn plaintext(server: SocketAddr) -> Channel {
    let endpoint = Endpoint::from_shared(format!("http://{server}")).expect("an address makes a URL");
    endpoint.connect_lazy()
}

/// tonic's own channel over mutual TLS, which accepts the one server.
fn tls(x509: &X509Source, server: &SpiffeId, address: SocketAddr) -> Result<Channel> {
    let config = mtls_client(x509.clone())
        .authorize(authorizer::exact([server.clone()])?)
        .trust_domain_policy(TrustDomainPolicy::LocalOnly(server.trust_domain().clone()))
        .with_alpn_protocols(ALPN)
        .build()?;
    let connector = TlsConnector::from(Arc::new(config));
    let connect = tower::service_fn(move |_| {
        let connector = connector.clone();
        async move {
            let tcp = TcpStream::connect(address).await?;
            tcp.set_nodelay(true)?;
            let name = SERVER.try_into().map_err(std::io::Error::other)?;
            Ok::<_, std::io::Error>(TokioIo::new(connector.connect(name, tcp).await?))
        }
    });
    Ok(Endpoint::from_static("http://auth").connect_with_connector_lazy(connect))
}

fn profile<T>(mut client: ProfileServiceClient<T>) -> Answer
where
    T: tonic::client::GrpcService<tonic::body::Body, Future: Send> + Send + 'static,
    T::Error: Into<tonic::codegen::StdError>,
    T::ResponseBody: tonic::codegen::Body<Data = bytes::Bytes> + Send + 'static,
    <T::ResponseBody as tonic::codegen::Body>::Error: Into<tonic::codegen::StdError> + Send,
{
    Box::pin(async move {
        let request = BatchGetProfilesRequest { user_ids: vec![SOMEBODY.to_owned()] };
        let answer = client.batch_get_profiles(request).await?.into_inner();
        anyhow::ensure!(answer.profiles.len() == 1, "{} profiles", answer.profiles.len());
        Ok(())
    })
}

async fn identity(endpoint: &str) -> Result<Identity> {
    let settings = IdentitySettings {
        endpoint: endpoint.to_owned(),
        trust_domain: TRUST_DOMAIN.to_owned(),
        namespace: NAMESPACE.to_owned(),
    };
    Identity::connect(settings).await.context("the agent gives an identity")
}

async fn source(endpoint: &str) -> Result<X509Source> {
    X509Source::builder().endpoint(endpoint).build().await.context("the agent gives an SVID")
}
