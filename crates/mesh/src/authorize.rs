//! Decides, before a handler sees a call, whether its workload and its person may make it. Default is deny.

use std::{sync::Arc, time::Duration};

use axum::{
    body::Body,
    extract::{Request, State},
    middleware::Next,
    response::Response,
};
use contracts::{Method, PASSTHROUGHS, Passthrough};
use http::{HeaderMap, header::AUTHORIZATION, request::Parts};
use ids::Source;
use status::{Problem, Reason};

use crate::{Caller, Peer, User, Workload, layer::cut_off::cut_off, server::refusal, token::Verifier};

/// The one workload that speaks for clients from outside.
const EDGE: &str = "edge-gateway";
/// The client's address for brute-force limits, as the edge saw it. From anybody else it is hearsay.
const CLIENT_ADDRESS: &str = "x-client-address";
/// How soon an open stream notices that its token no longer counts.
const RECHECK: Duration = Duration::from_secs(1);

/// What no contract annotates: services of gRPC itself, by prefix, and the workloads that may call them.
const BUILT_IN: [(&str, &[&str]); 3] = [
    ("/grpc.health.v1.Health/", &["*"]),
    ("/grpc.reflection.v1.ServerReflection/", &[EDGE, "operator"]),
    ("/grpc.reflection.v1alpha.ServerReflection/", &[EDGE, "operator"]),
];

/// Compares each call with its access rule. Cheap to clone.
#[derive(Clone)]
pub struct Authorizer {
    workload: Arc<str>,
    verifier: Verifier,
    source: Source,
}

/// What a path stands for.
enum Target {
    Method(&'static Method),
    Passthrough(&'static Passthrough),
    BuiltIn(&'static [&'static str]),
    Unknown,
}

impl Authorizer {
    /// For the service that runs as `workload`: another service's RPCs do not exist there.
    pub fn new(workload: &Workload, verifier: Verifier, source: Source) -> Self {
        Self { workload: workload.as_str().into(), verifier, source }
    }

    /// The layer: a call that may not be made gets its refusal, another one goes on with its [`Caller`].
    pub(crate) async fn layer(State(this): State<Self>, request: Request, next: Next) -> Response {
        let (mut parts, body) = request.into_parts();
        let caller = match this.judge(&parts).await {
            Ok(caller) => caller,
            Err(problem) => {
                if problem.reason() == Reason::WorkloadNotAllowed {
                    let cause = problem.cause().map(tracing::field::display);
                    tracing::warn!(rpc.path = parts.uri.path(), mesh.refused = cause, "A workload was refused");
                }
                return refusal(&parts.headers, problem);
            }
        };
        if caller.workload.as_str() != EDGE {
            parts.headers.remove(CLIENT_ADDRESS);
        }
        let streams =
            contracts::method(parts.uri.path()).is_some_and(|rpc| rpc.client_streaming || rpc.server_streaming);
        let user = caller.user.clone().filter(|_| streams);
        let headers = parts.headers.clone();
        parts.extensions.insert(caller);
        let request = Request::from_parts(parts, body);

        let Some(user) = user else { return next.run(request).await };
        tokio::select! {
            answer = next.run(request) => cut_off(answer, this.end_of(user)).map(Body::new),
            problem = this.clone().end_of(user.clone()) => refusal(&headers, problem),
        }
    }

    async fn judge(&self, request: &Parts) -> Result<Caller, Problem> {
        let peer = request.extensions.get::<Peer>();
        let peer = peer.ok_or_else(|| Problem::new(Reason::Internal).because("the connection has no peer"))?;
        let workload = peer.workload.clone().ok_or_else(|| stranger(&peer.id))?;
        let target = self.target(request);
        if !target.workloads().iter().any(|allowed| *allowed == "*" || *allowed == workload.as_str()) {
            return Err(stranger(&peer.id));
        }
        let user = match target {
            Target::Method(method) => self.user(method, &request.headers).await?,
            Target::Passthrough(_) | Target::BuiltIn(_) => None,
            Target::Unknown => return Err(Problem::new(Reason::RouteNotFound)),
        };
        Ok(Caller { workload, user })
    }

    fn target(&self, request: &Parts) -> Target {
        let path = request.uri.path();
        let ours = |owner: &str| owner.is_empty() || owner == &*self.workload;
        if let Some(method) = contracts::method(path) {
            return if ours(method.owner) { Target::Method(method) } else { Target::Unknown };
        }
        let verb = request.method.as_str();
        let passthrough = PASSTHROUGHS
            .iter()
            .find(|passthrough| passthrough.path == path && ours(passthrough.owner) && passthrough.allows(verb));
        let built_in = BUILT_IN.iter().find(|(prefix, _)| path.starts_with(prefix));
        match (passthrough, built_in) {
            (Some(passthrough), _) => Target::Passthrough(passthrough),
            (None, Some((_, workloads))) => Target::BuiltIn(workloads),
            (None, None) => Target::Unknown,
        }
    }

    /// The person, if the method wants one looked at, and the gates that they must pass.
    async fn user(&self, method: &Method, headers: &HeaderMap) -> Result<Option<User>, Problem> {
        let needed = match method.access.user {
            contracts::User::WorkloadOnly => return Ok(None),
            contracts::User::Anonymous => false,
            contracts::User::Authenticated => true,
        };
        let Some(token) = bearer(headers)? else {
            return if needed { Err(Problem::new(Reason::TokenMissing)) } else { Ok(None) };
        };
        let user = self.verifier.verify(token).await?;
        admit(method, &user)?;
        Ok(Some(user))
    }

    /// Resolves when the person's token no longer counts.
    async fn end_of(self, user: User) -> Problem {
        loop {
            let left = user.expires.since(self.source.now());
            tokio::time::sleep(left.clamp(RECHECK / 10, RECHECK)).await;
            if let Err(problem) = self.verifier.recheck(&user) {
                return problem;
            }
        }
    }
}

impl Target {
    fn workloads(&self) -> &'static [&'static str] {
        match self {
            Self::Method(method) => method.access.workloads,
            Self::Passthrough(passthrough) => passthrough.workloads,
            Self::BuiltIn(workloads) => workloads,
            // Every workload may learn that there is nothing.
            Self::Unknown => &["*"],
        }
    }
}

fn stranger(id: &spiffe::SpiffeId) -> Problem {
    Problem::new(Reason::WorkloadNotAllowed).because(format!("called by {id}"))
}

/// Scopes, then the role.
fn admit(method: &Method, user: &User) -> Result<(), Problem> {
    let missing = method.access.scopes.iter().find(|scope| !user.scopes.iter().any(|has| has == *scope));
    if let Some(scope) = missing {
        // Until then, a login gets no scope to write with: say what helps.
        let reason = if user.email_verified { Reason::ScopeMissing } else { Reason::EmailNotVerified };
        return Err(Problem::new(reason).metadata("scope", *scope));
    }
    match method.access.role {
        Some(role) if user.role < role => Err(Problem::new(Reason::RoleMissing).metadata("role", role.as_str())),
        _ => Ok(()),
    }
}

/// The bearer token (RFC 6750, section 2.1). Anything else in `authorization`, or two of it, is refused.
fn bearer(headers: &HeaderMap) -> Result<Option<&str>, Problem> {
    let refused = || Problem::new(Reason::TokenInvalid).message("`authorization` is not one bearer token");
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let Some(value) = values.next() else { return Ok(None) };
    let text = value.to_str().map_err(|_| refused())?;
    let (scheme, token) = text.split_once(' ').ok_or_else(refused)?;
    if values.next().is_some() || !scheme.eq_ignore_ascii_case("bearer") {
        return Err(refused());
    }
    Ok(Some(token.trim()))
}
