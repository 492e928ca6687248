use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use futures_util::future::BoxFuture;
use http_body_util::{BodyExt, Limited};
use jsonwebtoken::{
    DecodingKey,
    jwk::{AlgorithmParameters, Jwk, KeyAlgorithm, PublicKeyUse},
};
use tokio::{
    sync::{Mutex, watch},
    time::{Instant, timeout},
};
use tokio_util::sync::CancellationToken;
use tonic::body::Body;
use tower::ServiceExt;

use crate::Channel;

const PATH: &str = "/oauth2/jwks";
/// How old the set may get.
const REFRESH: Duration = Duration::from_mins(1);
/// How often the set is fetched at most, however many unknown keys are named.
const AT_MOST: Duration = Duration::from_secs(5);
/// How soon a first set is asked for again.
const RETRY: Duration = Duration::from_millis(100);
const FETCH: Duration = Duration::from_secs(5);
const MAX_DOCUMENT: usize = 256 * 1024;

/// Where the keys are found that access tokens are verified with.
pub trait Keys: Send + Sync + 'static {
    /// The key of exactly that name.
    fn find(&self, kid: &str) -> Option<Arc<DecodingKey>>;

    /// Looks for new keys, because a token names one that is not known. Anybody can cause this, so the implementation
    /// bounds how often it does anything.
    fn refresh(&self) -> BoxFuture<'_, ()>;

    /// Whether a key that is not found is none. Where there are no keys yet, or no news of them, nobody can say that a token
    /// is bad: its bearer must be told to come back, and not to log in again.
    fn is_current(&self) -> bool {
        true
    }
}

/// A fixed set of RSA keys.
#[derive(Clone, Default)]
pub struct KeySet(HashMap<String, Arc<DecodingKey>>);

/// The document holds no usable key.
#[derive(Debug, thiserror::Error)]
pub enum NotAKeySet {
    #[error("the document is no JWK set")]
    Json(#[from] serde_json::Error),
    #[error("the JWK set has no RSA key for RS256 signatures")]
    Empty,
}

impl KeySet {
    /// The RSA signing keys of a JWK set (RFC 7517). Keys of other kinds are left out, as section 5 asks for.
    pub fn from_jwks(document: &[u8]) -> Result<Self, NotAKeySet> {
        #[derive(serde::Deserialize)]
        struct Document {
            keys: Vec<serde_json::Value>,
        }
        let document: Document = serde_json::from_slice(document)?;
        let keys: HashMap<_, _> = document.keys.into_iter().filter_map(signing_key).collect();
        if keys.is_empty() { Err(NotAKeySet::Empty) } else { Ok(Self(keys)) }
    }
}

fn signing_key(jwk: serde_json::Value) -> Option<(String, Arc<DecodingKey>)> {
    let jwk: Jwk = serde_json::from_value(jwk).ok()?;
    let rsa = matches!(jwk.algorithm, AlgorithmParameters::RSA(_));
    let signs = jwk.common.public_key_use.as_ref().is_none_or(|used| *used == PublicKeyUse::Signature);
    let rs256 = jwk.common.key_algorithm.is_none_or(|algorithm| algorithm == KeyAlgorithm::RS256);
    if !(rsa && signs && rs256) {
        return None;
    }
    let key = DecodingKey::from_jwk(&jwk).ok()?;
    Some((jwk.common.key_id?, Arc::new(key)))
}

impl Keys for KeySet {
    fn find(&self, kid: &str) -> Option<Arc<DecodingKey>> {
        self.0.get(kid).cloned()
    }

    fn refresh(&self) -> BoxFuture<'_, ()> {
        Box::pin(std::future::ready(()))
    }
}

/// The auth service's keys, fetched over the mesh. The last good set is kept while auth cannot be reached.
pub struct RemoteKeys {
    auth: Channel,
    keys: ArcSwap<KeySet>,
    present: watch::Sender<bool>,
    /// Whether the last fetch succeeded.
    current: AtomicBool,
    last: Mutex<Option<Instant>>,
}

/// Why no set was fetched.
#[derive(Debug, thiserror::Error)]
enum FetchError {
    #[error("auth cannot be reached")]
    Call(#[from] tonic::Status),
    #[error("auth answered {0}")]
    Status(http::StatusCode),
    #[error("the answer broke off, or is too long")]
    Body(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("auth took too long")]
    Timeout(#[from] tokio::time::error::Elapsed),
    #[error(transparent)]
    Document(#[from] NotAKeySet),
}

impl RemoteKeys {
    /// Keys from the end of this channel. There are none until [`Self::run`] has fetched them.
    pub fn new(auth: Channel) -> Arc<Self> {
        Arc::new(Self {
            auth,
            keys: ArcSwap::default(),
            present: watch::Sender::new(false),
            current: AtomicBool::new(false),
            last: Mutex::default(),
        })
    }

    /// Fetches until there is a set, and then every 60 s, until `drain`.
    pub async fn run(self: Arc<Self>, drain: CancellationToken) {
        drain
            .run_until_cancelled(async {
                loop {
                    *self.last.lock().await = Some(Instant::now());
                    self.fetch_and_keep().await;
                    tokio::time::sleep(if self.is_ready() { REFRESH } else { RETRY }).await;
                }
            })
            .await;
    }

    /// Resolves once there is a set; a process without one is not ready.
    pub async fn ready(&self) {
        let mut present = self.present.subscribe();
        // The sender lives as long as `self`.
        let _ = present.wait_for(|present| *present).await;
    }

    /// Whether there is a set.
    pub fn is_ready(&self) -> bool {
        *self.present.borrow()
    }

    async fn fetch_and_keep(&self) {
        let fetched = self.fetch().await;
        let current = fetched.is_ok();
        match fetched {
            Ok(keys) => {
                self.keys.store(Arc::new(keys));
                self.present.send_replace(true);
            }
            Err(error) => tracing::warn!(
                error = &error as &dyn std::error::Error,
                "The signing keys could not be fetched; the last set is kept"
            ),
        }
        self.current.store(current, Ordering::Relaxed);
    }

    async fn fetch(&self) -> Result<KeySet, FetchError> {
        let mut request = http::Request::new(Body::empty());
        *request.uri_mut() = http::Uri::from_static(PATH);
        let fetch = async {
            let answer = self.auth.clone().oneshot(request).await?;
            if answer.status() != http::StatusCode::OK {
                return Err(FetchError::Status(answer.status()));
            }
            let body = Limited::new(answer.into_body(), MAX_DOCUMENT).collect().await.map_err(FetchError::Body)?;
            Ok(KeySet::from_jwks(&body.to_bytes())?)
        };
        timeout(FETCH, fetch).await?
    }
}

impl Keys for RemoteKeys {
    fn find(&self, kid: &str) -> Option<Arc<DecodingKey>> {
        self.keys.load().find(kid)
    }

    fn refresh(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {
            // Whoever comes while a fetch is under way waits for its outcome.
            let mut last = self.last.lock().await;
            if last.is_some_and(|last| last.elapsed() < AT_MOST) {
                return;
            }
            *last = Some(Instant::now());
            self.fetch_and_keep().await;
        })
    }

    fn is_current(&self) -> bool {
        self.current.load(Ordering::Relaxed)
    }
}
