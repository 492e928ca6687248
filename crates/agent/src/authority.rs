use base64::{
    Engine,
    prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD},
};
use ids::{Source, Timestamp};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, jwk};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType,
};
use serde::{Deserialize, Serialize};
use std::time::Duration;

use crate::{Error, api};

/// How long a root is valid. It is replaced at half of that.
const LIFETIME: Duration = Duration::from_hours(30 * 24);
/// How far in the past validity starts, for clocks that disagree a little.
const BACKDATE: Duration = Duration::from_mins(1);

/// What signs a trust domain's SVIDs: a root certificate for X.509 and a key for JWTs, replaced together.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    jwt: EncodingKey,
    pub(crate) jwt_verifier: DecodingKey,
    stored: Stored,
}

/// An authority as it is kept on disk.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Stored {
    /// Names the root's subject and the JWT key.
    id: String,
    created: Timestamp,
    /// DER.
    #[serde(with = "base64_text")]
    root: Vec<u8>,
    /// PKCS#8.
    #[serde(with = "base64_text")]
    root_key: Vec<u8>,
    /// PKCS#8.
    #[serde(with = "base64_text")]
    jwt_key: Vec<u8>,
}

/// The claims of a JWT-SVID.
#[derive(Serialize)]
struct Claims<'a> {
    sub: &'a str,
    aud: &'a [String],
    iat: i64,
    exp: i64,
}

impl Authority {
    pub(crate) fn generate(trust_domain: &str, source: &Source) -> Result<Self, Error> {
        let id = format!("{:016x}", u64::from_be_bytes(source.bytes()));
        let created = source.now();
        let root_key = KeyPair::generate()?;
        let root = root_params(trust_domain, &id, created)?.self_signed(&root_key)?;
        let stored = Stored {
            root: root.der().to_vec(),
            root_key: root_key.serialize_der(),
            jwt_key: KeyPair::generate()?.serialize_der(),
            id,
            created,
        };
        Self::restore(trust_domain, stored)
    }

    pub(crate) fn restore(trust_domain: &str, stored: Stored) -> Result<Self, Error> {
        let root_key = KeyPair::try_from(stored.root_key.as_slice())?;
        let jwt_key = KeyPair::try_from(stored.jwt_key.as_slice())?;
        Ok(Self {
            issuer: Issuer::new(root_params(trust_domain, &stored.id, stored.created)?, root_key),
            jwt: EncodingKey::from_ec_der(&stored.jwt_key),
            jwt_verifier: DecodingKey::from_ec_der(jwt_key.public_key_raw()),
            stored,
        })
    }

    pub(crate) fn stored(&self) -> &Stored {
        &self.stored
    }

    /// The name of its JWT key.
    pub(crate) fn key_id(&self) -> &str {
        &self.stored.id
    }

    /// The root certificate, DER.
    pub(crate) fn root(&self) -> &[u8] {
        &self.stored.root
    }

    /// Whether it is time for a successor.
    pub(crate) fn is_ageing(&self, now: Timestamp) -> bool {
        now >= self.stored.created + LIFETIME / 2
    }

    /// Whether its root is still valid then.
    pub(crate) fn outlives(&self, then: Timestamp) -> bool {
        then < self.stored.created + LIFETIME
    }

    /// The JWT key's public half.
    pub(crate) fn jwk(&self) -> Result<serde_json::Value, Error> {
        let key = KeyPair::try_from(self.stored.jwt_key.as_slice())?;
        // An uncompressed point (SEC 1, 2.3.3): 0x04, then both coordinates.
        let (x, y) = key.public_key_raw()[1..].split_at(32);
        Ok(serde_json::json!({
            "kty": jwk::EllipticCurveKeyType::EC,
            "crv": jwk::EllipticCurve::P256,
            "use": "jwt-svid",
            "kid": self.stored.id,
            "x": BASE64_URL_SAFE_NO_PAD.encode(x),
            "y": BASE64_URL_SAFE_NO_PAD.encode(y),
        }))
    }

    /// Signs an X.509-SVID with a key of its own. The bundle is left to the caller.
    pub(crate) fn x509_svid(&self, id: &str, now: Timestamp, lifetime: Duration) -> Result<api::X509svid, Error> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.not_before = (now - BACKDATE).into();
        params.not_after = (now + lifetime).into();
        params.subject_alt_names = vec![SanType::URI(id.try_into()?)];
        // BasicConstraints CA:FALSE is there in words: some verifiers insist on it.
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.use_authority_key_identifier_extension = true;
        let leaf = params.signed_by(&key, &self.issuer)?;
        Ok(api::X509svid {
            spiffe_id: id.to_owned(),
            x509_svid: leaf.der().to_vec().into(),
            x509_svid_key: key.serialize_der().into(),
            ..api::X509svid::default()
        })
    }

    pub(crate) fn jwt_svid(
        &self,
        id: &str,
        audience: &[String],
        now: Timestamp,
        lifetime: Duration,
    ) -> Result<String, Error> {
        let mut header = Header::new(Algorithm::ES256);
        header.kid = Some(self.stored.id.clone());
        let claims = Claims { sub: id, aud: audience, iat: now.seconds(), exp: (now + lifetime).seconds() };
        Ok(jsonwebtoken::encode(&header, &claims, &self.jwt)?)
    }
}

/// Roots differ in subject and key identifier, so that a verifier with two of them finds the right one.
fn root_params(trust_domain: &str, id: &str, created: Timestamp) -> Result<CertificateParams, Error> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, "Guildhall dev agent");
    params.distinguished_name.push(DnType::CommonName, id);
    params.not_before = (created - BACKDATE).into();
    params.not_after = (created + LIFETIME).into();
    params.subject_alt_names = vec![SanType::URI(format!("spiffe://{trust_domain}").try_into()?)];
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

mod base64_text {
    use super::{BASE64_STANDARD, Engine};
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&BASE64_STANDARD.encode(bytes))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        let text = String::deserialize(deserializer)?;
        BASE64_STANDARD.decode(text).map_err(D::Error::custom)
    }
}
