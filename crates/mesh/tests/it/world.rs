use std::{
    future::Future,
    net::SocketAddr,
    sync::{Arc, LazyLock},
    time::Duration,
};

use agent::Agent;
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use futures_util::future::BoxFuture;
use ids::{ManualClock, SessionId, Source, SystemClock, SystemRandom, UserId};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use mesh::{
    Authorizer, Channel, Identity, IdentitySettings, Server,
    token::{Audience, Claims, KeySet, Verifier},
};
use rcgen::{KeyPair, PKCS_RSA_SHA256};
use status::{Problem, Reason};
use tempfile::TempDir;
use tokio::{net::TcpListener, task::JoinHandle};
use tokio_util::sync::CancellationToken;
use x509_parser::{prelude::FromDer, public_key::RSAPublicKey};

pub const ISSUER: &str = "https://guildhall.example";
pub const WORKLOADS: [&str; 5] = ["auth", "content", "edge-gateway", "operator", "comment"];

/// An agent, a clock for tokens, and whatever is booted on top.
pub struct World {
    pub agent: Agent,
    pub clock: Arc<ManualClock>,
    pub source: Source,
    pub verifier: Verifier,
    pub directory: TempDir,
}

/// A server that runs.
pub struct Running {
    pub address: SocketAddr,
    pub drain: CancellationToken,
    pub kill: CancellationToken,
    pub task: JoinHandle<Result<(), mesh::server::Error>>,
}

impl World {
    pub async fn start() -> Self {
        Self::with_svids_for(Duration::from_mins(10)).await
    }

    pub async fn with_svids_for(svid_lifetime: Duration) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let agent = agent(&directory, "guildhall.internal", "guildhall", svid_lifetime).await;
        Self::with_agent(agent, directory)
    }

    pub fn with_agent(agent: Agent, directory: TempDir) -> Self {
        let clock = Arc::new(ManualClock::new(ids::Clock::now(&SystemClock)));
        let source = Source::new(clock.clone(), Arc::new(SystemRandom));
        let keys = Arc::new(KeySet::from_jwks(&KEY.jwks("key-1")).unwrap());
        let verifier = Verifier::new(keys, ISSUER.into(), "guildhall".into(), source.clone());
        Self { agent, clock, source, verifier, directory }
    }

    pub async fn identity(&self, workload: &str) -> Identity {
        identity(&self.agent, workload).await
    }

    /// Serves as `workload` whatever `build` adds.
    pub async fn serve(&self, workload: &str, build: impl FnOnce(Server) -> Server) -> Running {
        self.serve_at(([127, 0, 0, 1], 0).into(), workload, build).await
    }

    /// Serves at an address of which the last server has gone.
    pub async fn serve_at(&self, address: SocketAddr, workload: &str, build: impl FnOnce(Server) -> Server) -> Running {
        let identity = self.identity(workload).await;
        let authorizer = Authorizer::new(identity.workload(), self.verifier.clone(), self.source.clone());
        let server = build(Server::new(identity, authorizer));
        let listener = TcpListener::bind(address).await.unwrap();
        let (drain, kill) = (CancellationToken::new(), CancellationToken::new());
        let address = listener.local_addr().unwrap();
        let task = tokio::spawn(server.serve(listener, drain.clone(), kill.clone()));
        Running { address, drain, kill, task }
    }

    pub async fn channel(&self, from: &str, to: &str, server: &Running) -> Channel {
        mesh::connect(&self.identity(from).await, to.parse().unwrap(), server.address.into())
    }

    /// A good token; `change` spoils it.
    pub fn token(&self, change: impl FnOnce(&mut Claims)) -> String {
        let mut claims = self.claims();
        change(&mut claims);
        sign(&header(), &claims)
    }

    pub fn claims(&self) -> Claims {
        let now = self.source.now().seconds();
        Claims {
            iss: ISSUER.into(),
            sub: self.source.id::<UserId>().to_string(),
            aud: Audience::One("guildhall".into()),
            exp: now + 600,
            iat: now,
            jti: self.source.id::<SessionId>().into(),
            sid: Some(self.source.id()),
            scope: "profile content.write".into(),
            roles: vec!["member".into()],
            tier: mesh::Tier::Free,
            client_id: "guildhall".into(),
            spiffe_id: String::new(),
            email_verified: true,
        }
    }
}

pub async fn agent(directory: &TempDir, trust_domain: &str, namespace: &str, svid_lifetime: Duration) -> Agent {
    let settings = agent::Settings {
        directory: directory.path().join("agent"),
        trust_domain: trust_domain.into(),
        namespace: namespace.into(),
        workloads: WORKLOADS.map(str::to_owned).to_vec(),
        svid_lifetime,
        source: Source::system(),
    };
    Agent::start(settings).await.unwrap()
}

pub async fn identity(agent: &Agent, workload: &str) -> Identity {
    identity_in(agent, workload, "guildhall.internal").await
}

pub async fn identity_in(agent: &Agent, workload: &str, trust_domain: &str) -> Identity {
    let settings = IdentitySettings {
        endpoint: agent.endpoint(workload),
        trust_domain: trust_domain.into(),
        namespace: "guildhall".into(),
    };
    Identity::connect(settings).await.unwrap()
}

/// A signing key, RSA of 2048 bits; made once per test run.
pub struct TestKey {
    pub private: EncodingKey,
    /// RSAPublicKey, DER.
    pub public: Vec<u8>,
}

pub static KEY: LazyLock<TestKey> = LazyLock::new(TestKey::generate);
pub static OTHER_KEY: LazyLock<TestKey> = LazyLock::new(TestKey::generate);

impl TestKey {
    fn generate() -> Self {
        let key = KeyPair::generate_for(&PKCS_RSA_SHA256).unwrap();
        Self {
            private: EncodingKey::from_rsa_pem(key.serialize_pem().as_bytes()).unwrap(),
            public: key.public_key_raw().to_vec(),
        }
    }

    pub fn jwks(&self, kid: &str) -> Vec<u8> {
        let (_, key) = RSAPublicKey::from_der(&self.public).unwrap();
        let text = |number: &[u8]| BASE64_URL_SAFE_NO_PAD.encode(number.strip_prefix(&[0]).unwrap_or(number));
        let key = serde_json::json!({
            "kty": "RSA", "use": "sig", "alg": "RS256", "kid": kid, "n": text(key.modulus), "e": text(key.exponent),
        });
        serde_json::json!({ "keys": [key] }).to_string().into_bytes()
    }
}

pub fn header() -> Header {
    let mut header = Header::new(Algorithm::RS256);
    header.typ = Some("at+jwt".into());
    header.kid = Some("key-1".into());
    header
}

pub fn sign(header: &Header, claims: &Claims) -> String {
    jsonwebtoken::encode(header, claims, &KEY.private).unwrap()
}

/// A request in a person's name.
pub fn with_token<T>(message: T, token: &str) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
    request
}

/// Why the call was refused.
pub fn reason<T: std::fmt::Debug>(answer: Result<T, tonic::Status>) -> Reason {
    Problem::from(&answer.unwrap_err()).reason()
}

/// Far longer than anything here takes on a busy machine.
const SOON: Duration = Duration::from_mins(1);

/// Waits for what must happen soon.
pub async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(SOON, what).await.unwrap_or_else(|_| panic!("it did not happen within {SOON:?}"))
}

/// Keys that are counted when they are looked for.
pub struct CountedKeys(pub KeySet, pub std::sync::atomic::AtomicUsize);

impl mesh::token::Keys for CountedKeys {
    fn find(&self, kid: &str) -> Option<Arc<jsonwebtoken::DecodingKey>> {
        self.1.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        self.0.find(kid)
    }

    fn refresh(&self) -> BoxFuture<'_, ()> {
        Box::pin(std::future::ready(()))
    }
}
