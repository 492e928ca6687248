use std::{
    sync::{Arc, OnceLock},
    task::{Context, Poll},
    time::Duration,
};

use contracts::PASSTHROUGHS;
use futures_util::{TryFutureExt, future::BoxFuture};
use http::{Request, Response, Uri, header::AUTHORIZATION, request::Parts, uri::PathAndQuery};
use http_body::Body as _;
use http_body_util::BodyExt;
use ids::Source;
use metrics::{Counter, Label};
use status::{Problem, Reason};
use telemetry::{ClientLayer, Observed};
use tokio::time::{Instant, sleep, timeout_at};
use tonic::{Code, Status, body::Body};
use tower::{Layer, Service};

use crate::{
    Endpoints, Identity, Resolver, SystemResolver, Workload,
    connection::{Connection, Dialler},
    endpoints::{Follower, Following},
    layer::{
        balance::{AllOut, Balance, Call, Pick},
        breaker::Verdict,
        cut_off::cut_off,
        deadline,
        replay::{Attempt, Replay},
        retry::{Failure, Kind, Retry, cannot_be_served},
    },
};

/// How a channel behaves.
#[derive(Clone)]
pub struct Settings {
    /// Whether a request that a server may have looked at, or was too busy for, may be sent again. One that has only met an
    /// address where nobody listens, or a connection that was about to end, goes on in any case.
    pub retry: bool,
    /// How long a name among the endpoints is not asked again, unless an endpoint fails.
    pub lookup_interval: Duration,
    /// Looks names up.
    pub resolver: Arc<dyn Resolver>,
    /// The dice of balancing and of back-off.
    pub source: Source,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            retry: true,
            lookup_interval: Duration::from_secs(5),
            resolver: Arc::new(SystemResolver),
            source: Source::system(),
        }
    }
}

/// Calls to one service: the transport of its generated clients. Cheap to clone; clones share one connection to each
/// endpoint.
///
/// It connects at the first call, and again before the SVIDs of a connection expire.
#[derive(Clone)]
pub struct Channel(Observed<Transport>);

#[derive(Clone)]
struct Transport(Arc<Client>);

struct Client {
    retry: Retry,
    balance: Arc<Balance<Connection>>,
    all_out: Counter,
    /// Until it starts at the first call, since it needs a runtime.
    following: OnceLock<Option<Follower>>,
    follow: Box<dyn Fn() -> Option<Follower> + Send + Sync>,
}

/// Calls `server`, which listens at `endpoints`. Each must show exactly that workload's SPIFFE ID. Nothing is dialled yet.
pub fn connect(identity: &Identity, server: Workload, endpoints: Endpoints) -> Channel {
    connect_with(identity, server, endpoints, &Settings::default())
}

/// Calls `server` as the settings say.
///
/// From the outside in, each for a reason:
/// 1. A span and measurements per call: what the caller sees, retries and all.
/// 2. The deadline, so that nothing below takes longer, retries included.
/// 3. Retries: each attempt is balanced anew, so that it meets another endpoint.
/// 4. Balancing over the endpoints whose breakers let a call through. A breaker is an endpoint's own: one that is broken
///    must not cost the calls that the others can serve. If all are out the call is refused at once, and told when to come
///    back: it waits in no queue, since that is what breaks the callers too.
/// 5. The connection.
pub fn connect_with(identity: &Identity, server: Workload, endpoints: Endpoints, settings: &Settings) -> Channel {
    let labels = [Label::new("service", identity.workload().to_string()), Label::new("server", server.to_string())];
    let observed = ClientLayer::new(identity.workload().as_str(), server.as_str());
    let retry = Retry::new(&labels, settings.source.clone(), settings.retry);
    let dialler = Arc::new(Dialler::new(identity, server));
    let connect = move |address: &Arc<str>| Connection::new(Arc::clone(&dialler), Arc::clone(address));
    let balance = Arc::new(Balance::new(&labels, settings.source.clone(), connect));
    balance.set(&endpoints.fixed());

    let all_out = metrics::counter!("guildhall_mesh_all_endpoints_out_total", labels.iter());
    let failures = metrics::counter!("guildhall_mesh_lookup_failures_total", labels.iter());
    for counter in [&all_out, &failures] {
        counter.increment(0);
    }
    let (found, resolver, every) = (Arc::clone(&balance), Arc::clone(&settings.resolver), settings.lookup_interval);
    let follow = Box::new(move || {
        let following = Following {
            endpoints: endpoints.clone(),
            resolver: Arc::clone(&resolver),
            every,
            failures: failures.clone(),
        };
        let balance = Arc::clone(&found);
        Follower::start(following, move |endpoints| balance.set(endpoints))
    });
    let client = Client { retry, balance, all_out, following: OnceLock::new(), follow };
    Channel(observed.layer(Transport(Arc::new(client))))
}

impl Service<Request<Body>> for Channel {
    type Response = Response<Body>;
    type Error = Status;
    type Future = BoxFuture<'static, Result<Response<Body>, Status>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Status>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        Box::pin(self.0.call(request).map_ok(|answer| answer.map(Body::new)))
    }
}

impl Service<Request<Body>> for Transport {
    type Response = Response<Body>;
    type Error = Status;
    type Future = BoxFuture<'static, Result<Response<Body>, Status>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Status>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let client = Arc::clone(&self.0);
        Box::pin(async move { client.call(request).await.map_err(Status::from) })
    }
}

impl Client {
    async fn call(&self, mut request: Request<Body>) -> Result<Response<Body>, Problem> {
        let path = request.uri().path().to_owned();
        if !carries_token(&path) {
            request.headers_mut().remove(AUTHORIZATION);
        }
        let deadline = deadline::stamp(&path, request.headers_mut())?;
        let Some(deadline) = deadline else { return self.send(request, None).await };
        match timeout_at(deadline, self.send(request, Some(deadline))).await {
            Ok(answer) => Ok(cut_off(answer?, deadline::at(deadline)).map(Body::new)),
            Err(_) => Err(Problem::new(Reason::DeadlineExceeded)),
        }
    }

    /// Sends it until there is an answer, or nothing to gain.
    async fn send(&self, request: Request<Body>, deadline: Option<Instant>) -> Result<Response<Body>, Problem> {
        self.found().await;
        let call = Call {
            repeatable: self.retry.is_repeatable(&request),
            streaming: deadline::is_streaming(request.uri().path()),
        };
        let mut sends = self.retry.begin(call.repeatable);
        let (parts, body) = request.into_parts();
        let body = Replay::new(body);
        let mut tried = Vec::new();
        let mut last = None;
        loop {
            let mut parts = parts.clone();
            if let Some(deadline) = deadline {
                deadline::restamp(deadline, &mut parts.headers)?;
            }
            let outcome = self.attempt(parts, &body, call, &mut tried).await;
            match sends.again(&outcome, body.is_kept(), deadline, Instant::now()) {
                Some(pause) => {
                    last = Some(outcome);
                    sleep(pause).await;
                }
                None if is_all_out(&outcome) => {
                    self.all_out.increment(1);
                    // What an endpoint said says more than that none is left.
                    return last.unwrap_or(outcome).map_err(|failure| failure.problem);
                }
                None => return outcome.map_err(|failure| failure.problem),
            }
        }
    }

    async fn attempt(
        &self,
        mut parts: Parts,
        body: &Replay,
        call: Call,
        tried: &mut Vec<Arc<str>>,
    ) -> Result<Response<Body>, Failure> {
        let mut pick = self.balance.pick(call, tried).map_err(|AllOut(wait)| Failure {
            kind: Kind::AllOut,
            problem: Problem::new(Reason::Unavailable).retry_after(wait).because("no endpoint can be asked"),
        })?;
        let endpoint = Arc::clone(&pick.endpoint);
        tried.push(Arc::clone(&endpoint.address));
        parts.uri = uri(&endpoint.address, &parts.uri);
        let probe = pick.probe;
        // All that is known about the connection to an endpoint that was out is that it did not serve.
        let (number, mut sender) = match endpoint.connection.sender(pick.probe).await {
            Ok(connection) => connection,
            Err(error) => {
                pick.end(match &*error {
                    error if error.is_absence() => Verdict::Absent,
                    error if error.is_ours() => Verdict::Nothing,
                    _ => Verdict::Fails,
                });
                self.look_up_again();
                let others = self.balance.has_other(tried);
                // It was out, still is, and so are the others.
                let kind = if probe && !others { Kind::AllOut } else { Kind::Unreached { others } };
                return Err(Failure { kind, problem: cannot_be_served(error) });
            }
        };
        pick.sent();
        let attempt = body.attempt().expect("the first is always possible, a later one only if the body is kept");
        let waits = waits_for_body(parts.uri.path(), &attempt);
        let request = Request::from_parts(parts, Body::new(attempt));
        match sender.send_request(request).await {
            Ok(answer) => {
                let verdict = judge(&answer, &pick);
                pick.end(verdict);
                Ok(answer.map(|body| Body::new(body.map_err(broken))))
            }
            Err(error) => {
                let read = body.is_read();
                let (kind, verdict) = classify(&error, waits && !read, read);
                pick.end(verdict);
                if kind == Kind::TurnedAway {
                    endpoint.connection.discard(number);
                }
                self.look_up_again();
                Err(Failure { kind, problem: cannot_be_served(error) })
            }
        }
    }

    /// Returns at once but for the first calls to a name.
    async fn found(&self) {
        let follower = self.following.get_or_init(&self.follow);
        if let Some(follower) = follower.as_ref().filter(|_| self.balance.is_empty()) {
            follower.asked().await;
        }
    }

    fn look_up_again(&self) {
        if let Some(Some(follower)) = self.following.get() {
            follower.look_up_again();
        }
    }
}

/// A person's token goes on where the contract wants it looked at, and on paths that are passed through unread.
fn carries_token(path: &str) -> bool {
    match contracts::method(path) {
        Some(method) => method.access.user != contracts::User::WorkloadOnly,
        None => PASSTHROUGHS.iter().any(|passthrough| passthrough.path == path),
    }
}

fn uri(address: &str, uri: &Uri) -> Uri {
    let path = uri.path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
    let uri = Uri::builder().scheme("https").authority(address).path_and_query(path).build();
    uri.expect("an endpoint's address is an authority")
}

fn is_all_out<T>(outcome: &Result<T, Failure>) -> bool {
    matches!(outcome, Err(Failure { kind: Kind::AllOut, .. }))
}

/// What an answer says about the endpoint. Its head tells: what comes later was begun.
fn judge<B, C>(answer: &Response<B>, pick: &Pick<C>) -> Verdict {
    let fails = match answer.headers().get(Status::GRPC_STATUS).map(|code| Code::from_bytes(code.as_bytes())) {
        Some(Code::Unavailable) => true,
        Some(Code::DeadlineExceeded) => pick.is_patient(),
        Some(_) => false,
        None => matches!(answer.status().as_u16(), 502..=504),
    };
    if fails { Verdict::Fails } else { Verdict::Serves }
}

/// Whether a server does nothing about a request before it has more of it than the head: so it is with the methods of the
/// contract that take one message.
fn waits_for_body(path: &str, body: &Attempt) -> bool {
    !body.is_end_stream() && contracts::method(path).is_some_and(|method| !method.client_streaming)
}

/// How far the request got, and what that says about the endpoint. `held` says that its server has the head at most, and
/// waits for more; `read`, that hyper has begun to send the body.
///
/// The server has provably not looked at a request that is held, or that was still here when the connection ended. Nor has it
/// if it said with its GOAWAY that it would take no more (RFC 9113, section 6.8), or if it refused the stream (section 8.7).
/// Any other reset is about this request alone; often it is the caller who broke off.
///
/// That a request is held must be known because of hyper (1.12): when a GOAWAY comes just as it passes a request on, it gives
/// that up, by the name of the GOAWAY or of its own dispatch task, though the server may take it. It has not begun to read the
/// body then. So a GOAWAY proves something only where the body was read, or the request is held.
fn classify(error: &hyper::Error, held: bool, read: bool) -> (Kind, Verdict) {
    let h2 = std::error::Error::source(error).and_then(|source| source.downcast_ref::<h2::Error>());
    let reason = h2.and_then(h2::Error::reason);
    match h2 {
        Some(h2) if h2.is_reset() && h2.is_remote() && reason == Some(h2::Reason::REFUSED_STREAM) => {
            (Kind::Refused, Verdict::Fails)
        }
        Some(h2) if h2.is_reset() => (Kind::Broken, Verdict::Nothing),
        Some(h2) if h2.is_go_away() && h2.is_remote() && reason == Some(h2::Reason::NO_ERROR) => {
            (if held || read { Kind::TurnedAway } else { Kind::Broken }, Verdict::Nothing)
        }
        _ if error.is_canceled() => (Kind::TurnedAway, Verdict::Nothing),
        _ if held => (Kind::TurnedAway, Verdict::Fails),
        _ => (Kind::Broken, Verdict::Fails),
    }
}

/// An answer that breaks off was begun, so it is not known what has happened.
fn broken(error: hyper::Error) -> Status {
    cannot_be_served(error).into()
}
