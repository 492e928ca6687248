//! `/oauth2/jwks` (RFC 7517).

use std::sync::Arc;

use axum::{
    extract::State,
    response::{IntoResponse, Response},
};
use http::{
    StatusCode,
    header::{CACHE_CONTROL, CONTENT_TYPE},
};

use super::public;
use crate::Auth;

/// Every key whose tokens may be valid, and those that sign soon.
pub(super) async fn show(State(auth): State<Arc<Auth>>) -> Response {
    let headers = [(CONTENT_TYPE, "application/jwk-set+json".to_owned()), (CACHE_CONTROL, public())];
    match auth.issuer.keys.jwks() {
        Some(jwks) => (headers, jwks.to_string()).into_response(),
        None => StatusCode::SERVICE_UNAVAILABLE.into_response(),
    }
}
