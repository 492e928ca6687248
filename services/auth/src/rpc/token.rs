//! `TokenService`.

use std::sync::Arc;

use contracts::auth::v1::{
    ExchangeSvidRequest, ExchangeSvidResponse, IntrospectRequest, IntrospectResponse,
    token_service_server::TokenService,
};
use mesh::{
    Workload,
    token::{Audience, Claims},
};
use serde::Deserialize;
use status::{Problem, Reason};
use tonic::{Request, Response, Status};

use crate::Auth;

/// Tokens, for other workloads.
pub struct Tokens(pub Arc<Auth>);

#[tonic::async_trait]
impl TokenService for Tokens {
    async fn introspect(&self, request: Request<IntrospectRequest>) -> Result<Response<IntrospectResponse>, Status> {
        Ok(Response::new(introspect(&self.0, &request.into_inner().token).await?))
    }

    async fn exchange_svid(
        &self,
        request: Request<ExchangeSvidRequest>,
    ) -> Result<Response<ExchangeSvidResponse>, Status> {
        Ok(Response::new(exchange_svid(&self.0, &request.into_inner().jwt_svid)?))
    }
}

/// RFC 7662, 2.2: of a token that is not good now, nothing is told but that.
async fn introspect(auth: &Auth, token: &str) -> Result<IntrospectResponse, Problem> {
    match auth.verifier.claims(token).await {
        Ok(claims) => Ok(active(Claims::clone(&claims))),
        Err(problem) if problem.reason().http_status() == 401 => Ok(IntrospectResponse::default()),
        Err(problem) => Err(problem),
    }
}

fn active(claims: Claims) -> IntrospectResponse {
    IntrospectResponse {
        active: true,
        scope: claims.scope,
        client_id: claims.client_id,
        sub: claims.sub,
        aud: match claims.aud {
            Audience::One(audience) => vec![audience],
            Audience::Many(audiences) => audiences,
        },
        iss: claims.iss,
        jti: claims.jti.to_string(),
        sid: claims.sid.map(|session| session.to_string()).unwrap_or_default(),
        exp: Some(prost_types::Timestamp { seconds: claims.exp, nanos: 0 }),
        iat: Some(prost_types::Timestamp { seconds: claims.iat, nanos: 0 }),
        token_type: "Bearer".to_owned(),
        roles: claims.roles,
        tier: claims.tier.as_str().to_owned(),
        spiffe_id: claims.spiffe_id,
    }
}

/// A JWT-SVID is taken if it was made for us alone: one for several audiences could be replayed by another of them.
fn exchange_svid(auth: &Auth, jwt_svid: &str) -> Result<ExchangeSvidResponse, Problem> {
    #[derive(Deserialize)]
    struct Meant {
        aud: Audience,
    }
    let invalid = || Problem::new(Reason::SvidInvalid);
    let id = auth.identity.verify_jwt_svid(jwt_svid, &auth.issuer.name).map_err(|error| invalid().because(error))?;
    let workload = Workload::of(&id, auth.identity.namespace()).ok_or_else(invalid)?;
    let Meant { aud } =
        jsonwebtoken::dangerous::insecure_decode_claims(jwt_svid).map_err(|error| invalid().because(error))?;
    let for_us_alone = match &aud {
        Audience::One(audience) => *audience == auth.issuer.name,
        Audience::Many(audiences) => matches!(audiences.as_slice(), [audience] if *audience == auth.issuer.name),
    };
    if !for_us_alone {
        return Err(invalid());
    }
    let scopes = auth.workload_scopes.get(workload.as_str()).cloned().unwrap_or_default();
    let issued = auth.issuer.sign(auth.issuer.for_workload(&id, &scopes))?;
    Ok(ExchangeSvidResponse {
        access_token: issued.token,
        expires_in: i32::try_from(issued.expires_in.as_secs()).unwrap_or(i32::MAX),
        token_type: "Bearer".to_owned(),
    })
}
