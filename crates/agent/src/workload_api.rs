use futures_util::{Stream, StreamExt, stream::BoxStream};
use jsonwebtoken::{Algorithm, Validation};
use prost_types::{ListValue, Struct, Value, value::Kind};
use std::{collections::HashMap, sync::Arc};
use tokio_stream::wrappers::WatchStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use crate::{
    api::{
        JwtBundlesRequest, JwtBundlesResponse, Jwtsvid, JwtsvidRequest, JwtsvidResponse, ValidateJwtsvidRequest,
        ValidateJwtsvidResponse, X509BundlesRequest, X509BundlesResponse, X509svidRequest, X509svidResponse,
        spiffe_workload_api_server::SpiffeWorkloadApi,
    },
    issuance::{Issuance, State},
};

/// How far a validator's clock may be behind the agent's, in seconds.
const LEEWAY: i64 = 5;

/// The Workload API as one workload sees it through its own socket.
pub(crate) struct WorkloadApi {
    pub(crate) workload: String,
    pub(crate) issuance: Arc<Issuance>,
    pub(crate) stop: CancellationToken,
}

/// Refuses a call that does not carry exactly one `workload.spiffe.io: true`: a request forged through a browser or a
/// proxy cannot (SPIFFE Workload Endpoint, section 3).
pub(crate) fn require_header(request: Request<()>) -> Result<Request<()>, Status> {
    let mut values = request.metadata().get_all("workload.spiffe.io").iter();
    match (values.next(), values.next()) {
        (Some(value), None) if value == "true" => Ok(request),
        _ => Err(Status::invalid_argument("exactly one header `workload.spiffe.io: true` is required")),
    }
}

impl WorkloadApi {
    /// The present state mapped to an answer, and each later one, until the agent stops.
    fn states<T: Send + 'static>(
        &self,
        answer: impl Fn(&State) -> T + Send + 'static,
    ) -> BoxStream<'static, Result<T, Status>> {
        self.updates().map(move |state| Ok(answer(&state))).boxed()
    }

    fn updates(&self) -> impl Stream<Item = Arc<State>> + use<> {
        WatchStream::new(self.issuance.subscribe()).take_until(self.stop.clone().cancelled_owned())
    }

    fn trust_domain_id(&self) -> String {
        format!("spiffe://{}", self.issuance.settings().trust_domain)
    }
}

#[tonic::async_trait]
impl SpiffeWorkloadApi for WorkloadApi {
    type FetchX509SVIDStream = BoxStream<'static, Result<X509svidResponse, Status>>;
    type FetchX509BundlesStream = BoxStream<'static, Result<X509BundlesResponse, Status>>;
    type FetchJWTBundlesStream = BoxStream<'static, Result<JwtBundlesResponse, Status>>;

    async fn fetch_x509svid(&self, _: Request<X509svidRequest>) -> Result<Response<Self::FetchX509SVIDStream>, Status> {
        let workload = self.workload.clone();
        Ok(Response::new(self.states(move |state| X509svidResponse {
            svids: state.svids.get(&workload).cloned().into_iter().collect(),
            ..X509svidResponse::default()
        })))
    }

    async fn fetch_x509_bundles(
        &self,
        _: Request<X509BundlesRequest>,
    ) -> Result<Response<Self::FetchX509BundlesStream>, Status> {
        let id = self.trust_domain_id();
        Ok(Response::new(self.states(move |state| X509BundlesResponse {
            crl: Vec::new(),
            bundles: HashMap::from([(id.clone(), state.bundle.clone())]),
        })))
    }

    async fn fetch_jwtsvid(&self, request: Request<JwtsvidRequest>) -> Result<Response<JwtsvidResponse>, Status> {
        let JwtsvidRequest { audience, spiffe_id } = request.into_inner();
        if audience.is_empty() || audience.iter().any(String::is_empty) {
            return Err(Status::invalid_argument("an audience is required"));
        }
        let own = self.issuance.spiffe_id(&self.workload);
        if !spiffe_id.is_empty() && spiffe_id != own {
            return Err(Status::permission_denied("that identity belongs to another workload"));
        }
        let signer = Arc::clone(&self.issuance.subscribe().borrow().signer);
        let svid = signer
            .jwt_svid(&own, &audience, self.issuance.source().now(), self.issuance.settings().svid_lifetime)
            .map_err(|error| {
                tracing::error!(error = &error as &dyn std::error::Error, "A JWT-SVID could not be signed");
                Status::internal("the JWT-SVID could not be signed")
            })?;
        Ok(Response::new(JwtsvidResponse { svids: vec![Jwtsvid { spiffe_id: own, svid, hint: String::new() }] }))
    }

    async fn fetch_jwt_bundles(
        &self,
        _: Request<JwtBundlesRequest>,
    ) -> Result<Response<Self::FetchJWTBundlesStream>, Status> {
        let id = self.trust_domain_id();
        Ok(Response::new(
            self.states(move |state| JwtBundlesResponse { bundles: HashMap::from([(id.clone(), state.jwks.clone())]) }),
        ))
    }

    async fn validate_jwtsvid(
        &self,
        request: Request<ValidateJwtsvidRequest>,
    ) -> Result<Response<ValidateJwtsvidResponse>, Status> {
        let ValidateJwtsvidRequest { audience, svid } = request.into_inner();
        if audience.is_empty() || svid.is_empty() {
            return Err(Status::invalid_argument("an audience and a JWT-SVID are required"));
        }
        let state = Arc::clone(&self.issuance.subscribe().borrow());
        let claims = self
            .validate(&state, &audience, &svid)
            .ok_or_else(|| Status::invalid_argument("the JWT-SVID is not valid for that audience"))?;
        let spiffe_id = claims["sub"].as_str().unwrap_or_default().to_owned();
        let claims = match proto_value(claims).kind {
            Some(Kind::StructValue(claims)) => Some(claims),
            _ => None,
        };
        Ok(Response::new(ValidateJwtsvidResponse { spiffe_id, claims }))
    }
}

impl WorkloadApi {
    fn validate(&self, state: &State, audience: &str, svid: &str) -> Option<serde_json::Value> {
        let kid = jsonwebtoken::decode_header(svid).ok()?.kid?;
        let authority = state.trusted.iter().find(|authority| authority.key_id() == kid)?;
        let mut rules = Validation::new(Algorithm::ES256);
        rules.set_audience(&[audience]);
        rules.set_required_spec_claims(&["sub", "aud", "exp"]);
        rules.validate_exp = false; // judged below, by the agent's own clock
        let claims = jsonwebtoken::decode::<serde_json::Value>(svid, &authority.jwt_verifier, &rules).ok()?.claims;
        let in_time = claims["exp"].as_i64()? + LEEWAY > self.issuance.source().now().seconds();
        let in_domain = claims["sub"].as_str()?.starts_with(&format!("{}/", self.trust_domain_id()));
        (in_time && in_domain).then_some(claims)
    }
}

fn proto_value(json: serde_json::Value) -> Value {
    use serde_json::Value as Json;
    let kind = match json {
        Json::Null => Kind::NullValue(0),
        Json::Bool(value) => Kind::BoolValue(value),
        Json::Number(value) => Kind::NumberValue(value.as_f64().unwrap_or_default()),
        Json::String(value) => Kind::StringValue(value),
        Json::Array(values) => Kind::ListValue(ListValue { values: values.into_iter().map(proto_value).collect() }),
        Json::Object(fields) => Kind::StructValue(Struct {
            fields: fields.into_iter().map(|(name, value)| (name, proto_value(value))).collect(),
        }),
    };
    Value { kind: Some(kind) }
}
