use std::sync::{Arc, LazyLock};
use std::time::Duration;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{KeyPair, RSA_PKCS1_SHA256, RsaKeyPair};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use contracts::Role;
use ids::{SessionId, Source, UserId};
use mesh::Tier;
use mesh::token::{Audience, Claims, KeySet};
use serde_json::{Value, json};

/// The issuer of the test mesh's tokens.
pub const ISSUER: &str = "https://guildhall.test";
/// For whom access tokens are: the platform.
pub const AUDIENCE: &str = "guildhall";

/// The signer of every test mesh in this process: making an RSA key takes a while.
static SHARED: LazyLock<Signer> = LazyLock::new(Signer::generate);

/// What a token says. Start from [`TokenSpec::member`] and change what the test is about.
#[derive(Debug, Clone)]
pub struct TokenSpec {
    /// Whose token it is.
    pub user: UserId,
    /// The login that it comes from.
    pub session: Option<SessionId>,
    /// The scopes, separated by spaces.
    pub scope: String,
    /// The highest role.
    pub role: Role,
    /// The tier.
    pub tier: Tier,
    /// Whether the e-mail address is verified.
    pub email_verified: bool,
    /// How long it is valid.
    pub lifetime: Duration,
}

impl TokenSpec {
    /// What a member gets at a first-party login.
    pub fn member(user: UserId) -> Self {
        Self {
            user,
            session: None,
            scope: "profile content.write comment.write media.write sig.write".to_owned(),
            role: Role::Member,
            tier: Tier::Free,
            email_verified: true,
            lifetime: Duration::from_mins(10),
        }
    }

    /// The claims of this token, issued now.
    pub fn claims(&self, source: &Source) -> Claims {
        let now = source.now();
        Claims {
            iss: ISSUER.to_owned(),
            sub: self.user.to_string(),
            aud: Audience::One(AUDIENCE.to_owned()),
            exp: (now + self.lifetime).seconds(),
            iat: now.seconds(),
            jti: source.id::<ids::EventId>().into(),
            sid: self.session,
            scope: self.scope.clone(),
            roles: vec![self.role.as_str().to_owned()],
            tier: self.tier,
            client_id: AUDIENCE.to_owned(),
            spiffe_id: format!("spiffe://{}/user/{}", crate::mesh::TRUST_DOMAIN, self.user),
            email_verified: self.email_verified,
        }
    }
}

/// Signs tokens with an RSA key of 2048 bits.
pub struct Signer {
    key: RsaKeyPair,
    kid: &'static str,
}

impl Signer {
    /// A signer with a key that nobody knows: its tokens are foreign to every mesh.
    pub fn generate() -> Self {
        Self { key: RsaKeyPair::generate(KeySize::Rsa2048).expect("an RSA key"), kid: "test" }
    }

    /// The signer that the test meshes of this process trust.
    pub fn shared() -> &'static Self {
        &SHARED
    }

    /// Signs claims as an access token (RFC 9068).
    pub fn sign(&self, claims: &Claims) -> String {
        let claims = serde_json::to_value(claims).expect("claims are JSON");
        self.sign_raw(&json!({ "typ": "at+jwt", "alg": "RS256", "kid": self.kid }), &claims)
    }

    /// Signs any header and claims, to forge what no issuer would: RS256, whatever the header says.
    pub fn sign_raw(&self, header: &Value, claims: &Value) -> String {
        let [header, claims] = [header, claims].map(|part| URL_SAFE_NO_PAD.encode(part.to_string()));
        let message = format!("{header}.{claims}");
        let mut signature = vec![0; self.key.public_modulus_len()];
        self.key
            .sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), message.as_bytes(), &mut signature)
            .expect("the key signs");
        format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    /// The JWKS document (RFC 7517) with its public key.
    pub fn jwks(&self) -> String {
        let public = self.key.public_key();
        let [n, e] = [public.modulus(), public.exponent()]
            .map(|number| URL_SAFE_NO_PAD.encode(number.big_endian_without_leading_zero()));
        json!({ "keys": [{ "kty": "RSA", "use": "sig", "alg": "RS256", "kid": self.kid, "n": n, "e": e }] }).to_string()
    }

    /// The matching verification keys.
    pub fn keys(&self) -> Arc<KeySet> {
        Arc::new(KeySet::from_jwks(self.jwks().as_bytes()).expect("our own JWKS"))
    }
}
