//! Access tokens that must not be accepted, made of good ones.

use std::time::Duration;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{RSA_PKCS1_SHA256, RsaKeyPair};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chassis::MasterKey;
use serde_json::Value;

use crate::Guildhall;

/// The token's claims under a signature that is not theirs.
pub fn forged(token: &str) -> String {
    let (signed, signature) = token.rsplit_once('.').expect("a JWT");
    format!("{signed}.{}", signature.chars().rev().collect::<String>())
}

/// The token as auth would have signed it so long ago. A token lives for ten minutes, which no test waits for: this one is
/// signed with auth's own key.
pub async fn aged(guildhall: &Guildhall, token: &str, age: Duration) -> String {
    let (header, rest) = token.split_once('.').expect("a JWT");
    let (claims, _) = rest.split_once('.').expect("a JWT");
    let mut claims = decoded(claims);
    for time in ["iat", "exp"] {
        let seconds = claims[time].as_u64().expect("a time");
        claims[time] = (seconds - age.as_secs()).into();
    }
    let signed = format!("{header}.{}", URL_SAFE_NO_PAD.encode(claims.to_string()));
    let key = signing_key(guildhall, decoded(header)["kid"].as_str().expect("a key's id")).await;
    let mut signature = vec![0; key.public_modulus_len()];
    key.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), signed.as_bytes(), &mut signature).expect("the key signs");
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
}

fn decoded(part: &str) -> Value {
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).expect("base64url")).expect("JSON")
}

/// The only signing key of a new installation, whose seal opens for its id alone.
async fn signing_key(guildhall: &Guildhall, id: &str) -> RsaKeyPair {
    let mut auth = guildhall.database("auth").await;
    let sealed: Vec<u8> =
        sqlx::query_scalar("SELECT sealed FROM signing_keys").fetch_one(&mut auth).await.expect("a signing key");
    let master = MasterKey::from_file(&guildhall.data().join("master.key")).expect("the master key");
    let seal = UnboundKey::new(&AES_256_GCM, &master.derive("auth.signing-keys")).expect("32 bytes");
    let (nonce, ciphertext) = sealed.split_first_chunk::<NONCE_LEN>().expect("a nonce");
    let (nonce, mut private) = (Nonce::assume_unique_for_key(*nonce), ciphertext.to_vec());
    let private = LessSafeKey::new(seal)
        .open_in_place(nonce, Aad::from(format!("signing key {id}")), &mut private)
        .expect("the seal opens");
    RsaKeyPair::from_pkcs8(private).expect("an RSA key")
}
