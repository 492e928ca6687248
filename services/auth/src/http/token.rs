//! `/oauth2/token` (RFC 6749, 6): refresh tokens of the public client `guildhall`.

use std::sync::Arc;

use axum::{
    Form, Json,
    extract::{State, rejection::FormRejection},
    response::{IntoResponse, Response},
};
use http::{
    HeaderMap, StatusCode,
    header::{AUTHORIZATION, CACHE_CONTROL, RETRY_AFTER, WWW_AUTHENTICATE},
};
use serde::Serialize;
use serde_json::json;
use status::{Problem, Reason};

use crate::{
    Auth,
    code::Secret,
    session::Redemption,
    store as tables,
    token::{CLIENT, Issued, Scopes},
};

/// A request in its domain's terms.
struct Refresh {
    token: Secret,
    /// Fewer scopes than the session has.
    scopes: Option<Scopes>,
}

#[derive(Serialize)]
struct Tokens {
    access_token: String,
    token_type: &'static str,
    expires_in: u64,
    refresh_token: String,
    scope: String,
}

/// Why there is no token (RFC 6749, 5.2).
pub(super) enum Refusal {
    InvalidRequest(&'static str),
    InvalidClient,
    InvalidGrant,
    UnsupportedGrantType,
    InvalidScope,
    /// Not the client's fault.
    Failed(Problem),
}

impl<E: Into<Problem>> From<E> for Refusal {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}

pub(super) async fn grant(
    State(auth): State<Arc<Auth>>,
    headers: HeaderMap,
    form: Result<Form<Vec<(String, String)>>, FormRejection>,
) -> Result<Response, Refusal> {
    let Form(parameters) = form.map_err(|_| Refusal::InvalidRequest("the body is no form"))?;
    let Refresh { token, scopes } = read(parameters, &headers)?;
    let (issued, successor) = refresh(&auth, &token, scopes).await?;
    let tokens = Tokens {
        access_token: issued.token,
        token_type: "Bearer",
        expires_in: issued.expires_in.as_secs(),
        refresh_token: successor.expose().to_owned(),
        scope: issued.scope,
    };
    Ok(([(CACHE_CONTROL, "no-store")], Json(tokens)).into_response())
}

/// Reads the form. Parameters that are not known or have no value are ignored, one that comes twice is refused (RFC 6749, 3.2).
fn read(parameters: Vec<(String, String)>, headers: &HeaderMap) -> Result<Refresh, Refusal> {
    let (mut grant_type, mut client, mut token, mut scope) = (None, None, None, None);
    for (name, value) in parameters.into_iter().filter(|(_, value)| !value.is_empty()) {
        let place = match name.as_str() {
            "grant_type" => &mut grant_type,
            "client_id" => &mut client,
            "refresh_token" => &mut token,
            "scope" => &mut scope,
            // The client is public: whoever brings a secret is another.
            "client_secret" | "client_assertion" => return Err(Refusal::InvalidClient),
            _ => continue,
        };
        if place.replace(value).is_some() {
            return Err(Refusal::InvalidRequest("a parameter comes twice"));
        }
    }
    if headers.contains_key(AUTHORIZATION) || client.as_deref().is_some_and(|client| client != CLIENT) {
        return Err(Refusal::InvalidClient);
    }
    match grant_type.as_deref() {
        Some("refresh_token") => {}
        Some(_) => return Err(Refusal::UnsupportedGrantType),
        None => return Err(Refusal::InvalidRequest("grant_type is missing")),
    }
    if client.is_none() {
        return Err(Refusal::InvalidRequest("client_id is missing"));
    }
    let scopes = scope.map(|text| Scopes::parse(&text)).transpose().map_err(|_| Refusal::InvalidScope)?;
    let token = token.ok_or(Refusal::InvalidRequest("refresh_token is missing"))?;
    Ok(Refresh { token: Secret::presented(token), scopes })
}

/// Uses a refresh token, and gives its successor with an access token. Under the account's lock, so that of several uses at once one
/// rotates, and the others get what that one made.
async fn refresh(auth: &Auth, token: &Secret, requested: Option<Scopes>) -> Result<(Issued, Secret), Refusal> {
    let hash = token.hash();
    let owner = {
        let mut conn = auth.db.read().await?;
        tables::session::owner_of(&mut conn, &hash).await?
    };
    let (user, session) = owner.ok_or(Refusal::InvalidGrant)?;
    let successor = token.successor(&auth.refresh_key);

    let mut tx = auth.db.begin().await?;
    let account = tables::account::lock(&mut tx, user).await?.ok_or(Refusal::InvalidGrant)?;
    let mut session = tables::session::find(&mut tx, session).await?.ok_or(Refusal::InvalidGrant)?;
    let known = tables::session::refresh(&mut tx, &hash).await?.ok_or(Refusal::InvalidGrant)?;
    let known_successor = tables::session::refresh(&mut tx, &successor.hash()).await?;
    let now = auth.source.now();

    let allowed = auth.issuer.scopes(&account);
    let redemption = session.redeem(known, known_successor, auth.sessions, now);
    let scopes = match (redemption, requested) {
        (Redemption::Rotate | Redemption::Repeat, Some(scopes)) if !scopes.is_subset(&allowed) => {
            return Err(Refusal::InvalidScope);
        }
        (_, scopes) => scopes.unwrap_or(allowed),
    };
    match redemption {
        Redemption::Over => return Err(Refusal::InvalidGrant),
        Redemption::Reuse => {
            tables::session::save(&mut tx, &session).await?;
            auth.announcer.revoked(&mut tx, &account, Some(session.id), now).await?;
            tx.commit().await?;
            tracing::warn!(user.id = %user, session.id = %session.id, "A refresh token was used again: its session was ended");
            return Err(Refusal::InvalidGrant);
        }
        Redemption::Repeat => {}
        Redemption::Rotate => {
            tables::session::use_refresh(&mut tx, &hash, now).await?;
            tables::session::add_refresh(&mut tx, session.id, &successor.hash(), now).await?;
            tables::session::save(&mut tx, &session).await?;
        }
    }
    let draft = auth.issuer.for_user(&account, session.id, &scopes);
    tx.commit().await?;
    Ok((auth.issuer.sign(draft)?, successor))
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let mut headers = HeaderMap::new();
        headers.insert(CACHE_CONTROL, http::HeaderValue::from_static("no-store"));
        let (status, error, description) = match self {
            Self::InvalidRequest(description) => (StatusCode::BAD_REQUEST, "invalid_request", description),
            Self::InvalidClient => {
                headers.insert(WWW_AUTHENTICATE, http::HeaderValue::from_static("Basic realm=\"guildhall\""));
                (
                    StatusCode::UNAUTHORIZED,
                    "invalid_client",
                    "the client is not known, or did not authenticate as it must",
                )
            }
            Self::InvalidGrant => {
                (StatusCode::BAD_REQUEST, "invalid_grant", "the refresh token is wrong, used or expired")
            }
            Self::UnsupportedGrantType => {
                (StatusCode::BAD_REQUEST, "unsupported_grant_type", "only refresh_token is supported")
            }
            Self::InvalidScope => {
                (StatusCode::BAD_REQUEST, "invalid_scope", "a scope is malformed, or wider than the session's")
            }
            Self::Failed(problem) => {
                if let Some(delay) = problem.retry_delay() {
                    headers.insert(RETRY_AFTER, delay.as_secs().max(1).into());
                }
                // The conversion logs the cause, as it does for every RPC.
                let reason = problem.reason();
                let _ = tonic::Status::from(problem);
                match reason {
                    Reason::Unavailable | Reason::DeadlineExceeded => {
                        (StatusCode::SERVICE_UNAVAILABLE, "temporarily_unavailable", "try again later")
                    }
                    _ => (StatusCode::INTERNAL_SERVER_ERROR, "server_error", "something went wrong on our side"),
                }
            }
        };
        (status, headers, Json(json!({"error": error, "error_description": description}))).into_response()
    }
}
