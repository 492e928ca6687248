//! `/.well-known/oauth-authorization-server` (RFC 8414): what exists, and nothing else.

use std::sync::Arc;

use axum::{Json, extract::State, response::IntoResponse};
use contracts::Role;
use http::header::CACHE_CONTROL;
use serde_json::json;

use super::public;
use crate::{Auth, token::Scopes};

pub(super) async fn show(State(auth): State<Arc<Auth>>) -> impl IntoResponse {
    let issuer = &auth.issuer.name;
    let scopes = Scopes::of_login(Role::Admin, true).to_string();
    let metadata = json!({
        "issuer": issuer,
        "token_endpoint": format!("{issuer}/oauth2/token"),
        "jwks_uri": format!("{issuer}/oauth2/jwks"),
        "scopes_supported": scopes.split(' ').collect::<Vec<_>>(),
        // Required, and empty: there is no authorization endpoint.
        "response_types_supported": [],
        "grant_types_supported": ["refresh_token"],
        "token_endpoint_auth_methods_supported": ["none"],
    });
    ([(CACHE_CONTROL, public())], Json(metadata))
}
