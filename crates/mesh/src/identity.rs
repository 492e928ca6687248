//! Who this process is: its SVIDs and the trust domain's bundles, kept fresh from the SPIFFE Workload API.

use std::{sync::Arc, time::Duration};

use ids::{Clock, SystemClock, Timestamp};
use spiffe::{JwtSource, JwtSvid, SpiffeId, TrustDomain, X509Source};
use tokio_util::task::AbortOnDropHandle;
use x509_parser::{certificate::X509Certificate, prelude::FromDer};

use crate::Workload;

/// How long the Workload API may take to give the first SVID.
const FIRST_SVID: Duration = Duration::from_secs(30);
/// How often the time that the SVID has left is measured.
const MEASURED: Duration = Duration::from_secs(1);

/// Where an identity comes from, and what it must be.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The Workload API's socket: `unix:/…`. In production the value of `SPIFFE_ENDPOINT_SOCKET`.
    pub endpoint: String,
    /// For instance `guildhall.internal`.
    pub trust_domain: String,
    /// For instance `guildhall`.
    pub namespace: String,
}

/// Why there is no identity, or no use of one.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The configured trust domain cannot be one.
    #[error("`{name}` is not a trust domain")]
    TrustDomain {
        name: String,
        #[source]
        source: spiffe::SpiffeIdError,
    },
    /// The Workload API gave no X.509-SVID.
    #[error("no X.509-SVID from {endpoint}")]
    X509 {
        endpoint: String,
        #[source]
        source: spiffe::x509_source::X509SourceError,
    },
    /// The Workload API gave no JWT bundle, or no JWT-SVID.
    #[error("no JWT-SVID or bundle from {endpoint}")]
    Jwt {
        endpoint: String,
        #[source]
        source: spiffe::jwt_source::JwtSourceError,
    },
    /// The Workload API did not answer in time.
    #[error("no SVID from {endpoint} within {} s", FIRST_SVID.as_secs())]
    Timeout { endpoint: String },
    /// The SVID is somebody else's.
    #[error("the SVID {id} names no workload of spiffe://{trust_domain}/ns/{namespace}")]
    Foreign { id: String, trust_domain: String, namespace: String },
    /// Somebody's JWT-SVID is not valid for that audience.
    #[error("the JWT-SVID is not valid")]
    JwtSvid(#[from] spiffe::JwtSvidError),
}

/// This process's identity: live sources of X.509-SVIDs and JWT-SVIDs from one Workload API socket. Cheap to clone.
#[derive(Clone)]
pub struct Identity(Arc<Inner>);

struct Inner {
    endpoint: String,
    namespace: String,
    workload: Workload,
    spiffe_id: SpiffeId,
    x509: X509Source,
    jwt: JwtSource,
    _measuring: AbortOnDropHandle<()>,
}

impl Identity {
    /// Waits for the first SVID and the bundles. They are renewed in the background from then on.
    pub async fn connect(settings: Settings) -> Result<Self, Error> {
        install_crypto();
        let Settings { endpoint, trust_domain, namespace } = settings;
        let trust_domain = TrustDomain::new(&trust_domain)
            .map_err(|source| Error::TrustDomain { name: trust_domain.clone(), source })?;
        // A leaf that the crate cannot use would otherwise keep it waiting for the next one.
        let (x509, jwt) = tokio::time::timeout(FIRST_SVID, sources(&endpoint))
            .await
            .map_err(|_| Error::Timeout { endpoint: endpoint.clone() })??;
        let spiffe_id =
            x509.svid().map_err(|source| Error::X509 { endpoint: endpoint.clone(), source })?.spiffe_id().clone();
        let workload = Some(&spiffe_id)
            .filter(|id| id.is_member_of(&trust_domain))
            .and_then(|id| Workload::of(id, &namespace))
            .ok_or_else(|| Error::Foreign {
                id: spiffe_id.to_string(),
                trust_domain: trust_domain.to_string(),
                namespace: namespace.clone(),
            })?;
        let measuring = AbortOnDropHandle::new(tokio::spawn(measure(workload.clone(), x509.clone())));
        Ok(Self(Arc::new(Inner { endpoint, namespace, workload, spiffe_id, x509, jwt, _measuring: measuring })))
    }

    /// This process's name.
    pub fn workload(&self) -> &Workload {
        &self.0.workload
    }

    /// This process's SPIFFE ID.
    pub fn spiffe_id(&self) -> &SpiffeId {
        &self.0.spiffe_id
    }

    /// The only trust domain that counts.
    pub fn trust_domain(&self) -> &TrustDomain {
        self.0.spiffe_id.trust_domain()
    }

    /// The only namespace whose workloads count.
    pub fn namespace(&self) -> &str {
        &self.0.namespace
    }

    /// A new JWT-SVID of this workload for one audience.
    pub async fn jwt_svid(&self, audience: &str) -> Result<String, Error> {
        let svid = self.0.jwt.fetch_jwt_svid([audience]).await;
        svid.map(|svid| svid.token().to_owned())
            .map_err(|source| Error::Jwt { endpoint: self.0.endpoint.clone(), source })
    }

    /// Whose JWT-SVID it is. It must be signed by this trust domain, meant for `audience`, and not expired.
    pub fn verify_jwt_svid(&self, token: &str, audience: &str) -> Result<SpiffeId, Error> {
        let svid = JwtSvid::parse_and_validate(token, &self.0.jwt, &[audience])?;
        let id = svid.spiffe_id();
        if id.is_member_of(self.trust_domain()) {
            return Ok(id.clone());
        }
        Err(Error::Foreign {
            id: id.to_string(),
            trust_domain: self.trust_domain().to_string(),
            namespace: self.namespace().to_owned(),
        })
    }

    /// When the present X.509-SVID expires; `None` while there is none.
    pub fn leaf_expiry(&self) -> Option<Timestamp> {
        leaf_expiry(&self.0.x509)
    }

    /// Stops renewing. Connections that stand are not affected.
    pub async fn shutdown(&self) {
        self.0.x509.shutdown().await;
        self.0.jwt.shutdown().await;
    }

    pub(crate) fn x509(&self) -> X509Source {
        self.0.x509.clone()
    }
}

fn leaf_expiry(x509: &X509Source) -> Option<Timestamp> {
    expiry(x509.svid().ok()?.leaf().as_bytes())
}

/// Shows how long the SVID is still good, by the machine's clock, on which certificates are judged. One that nobody renews
/// is seen to run out.
async fn measure(workload: Workload, x509: X509Source) {
    let left = metrics::gauge!("guildhall_mesh_svid_expiry_seconds", "service" => workload.to_string());
    loop {
        left.set(leaf_expiry(&x509).map_or(Duration::ZERO, |expires| expires.since(SystemClock.now())).as_secs_f64());
        tokio::time::sleep(MEASURED).await;
    }
}

/// The end of a certificate's validity; `None` when it is no certificate.
///
/// The second that it names belongs to it (RFC 5280, section 4.1.2.5), and whoever verifies it judges so. Else a certificate
/// of two seconds that is renewed at half could be taken for expired just before the next one comes.
pub(crate) fn expiry(der: &[u8]) -> Option<Timestamp> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    Some(Timestamp::from_seconds(certificate.validity().not_after.timestamp() + 1))
}

async fn sources(endpoint: &str) -> Result<(X509Source, JwtSource), Error> {
    let x509 = async {
        let built = X509Source::builder().endpoint(endpoint).initial_sync_timeout(FIRST_SVID).build().await;
        built.map_err(|source| Error::X509 { endpoint: endpoint.to_owned(), source })
    };
    let jwt = async {
        let built = JwtSource::builder().endpoint(endpoint).initial_sync_timeout(FIRST_SVID).build().await;
        built.map_err(|source| Error::Jwt { endpoint: endpoint.to_owned(), source })
    };
    tokio::try_join!(x509, jwt)
}

/// The process's one crypto provider. An earlier one would have to be the same: only aws-lc-rs is compiled in.
fn install_crypto() {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, date_time_ymd};

    use super::*;

    #[test]
    fn a_certificate_is_good_for_the_whole_of_its_last_second() {
        let mut params = CertificateParams::default();
        params.not_after = date_time_ymd(2030, 1, 1);
        let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        assert_eq!(expiry(certificate.der()), Some(Timestamp::from_seconds(1_893_456_000 + 1)));
        assert_eq!(expiry(b"no certificate"), None);
    }
}
