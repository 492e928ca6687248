//! The OAuth endpoints: what the contract passes through to this service, as RFC 6749, RFC 7517 and RFC 8414 want it.

mod jwks;
mod metadata;
mod token;

use std::sync::Arc;

use axum::{
    Router,
    extract::DefaultBodyLimit,
    routing::{get, post},
};

use crate::Auth;

/// For how long a copy of the JWKS or of the metadata is good, in seconds. A key is published longer than this before it signs.
pub(crate) const MAX_AGE: u32 = 300;

/// The largest token request.
const BODY_LIMIT: usize = 16 * 1024;

/// The paths of the contract's passthroughs.
pub fn router(auth: Arc<Auth>) -> Router {
    Router::new()
        .route("/oauth2/jwks", get(jwks::show))
        .route("/.well-known/oauth-authorization-server", get(metadata::show))
        .route("/oauth2/token", post(token::grant))
        .layer(DefaultBodyLimit::max(BODY_LIMIT))
        .with_state(auth)
}

/// `Cache-Control` of what everybody may know.
fn public() -> String {
    format!("public, max-age={MAX_AGE}")
}
