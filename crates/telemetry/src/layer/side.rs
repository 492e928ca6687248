use std::collections::HashMap;
use std::sync::{Arc, OnceLock, PoisonError, RwLock};
use std::time::Duration;

use metrics::{Gauge, Histogram, Label};
use tonic::Code;

/// The end of a call at which it is observed. Clones measure as one.
#[derive(Debug, Clone)]
pub(super) struct Side(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    service: Arc<str>,
    /// Whom it calls; a server knows no name of who calls it.
    server: Option<Arc<str>>,
    /// As many as the contracts have, at most.
    rpcs: RwLock<HashMap<&'static str, Arc<Rpc>>>,
}

/// An RPC at one end. It keeps its metrics, so that only its first call, and the first of each code, looks them up by name and labels.
#[derive(Debug)]
pub(super) struct Rpc {
    path: &'static str,
    labels: Vec<Label>,
    seconds_name: &'static str,
    in_flight: Gauge,
    /// By the code of the status.
    seconds: [OnceLock<Histogram>; CODES],
}

/// How many codes gRPC has: `OK` is 0 and `UNAUTHENTICATED` the last.
const CODES: usize = Code::Unauthenticated as usize + 1;

impl Side {
    pub(super) fn server(service: &str) -> Self {
        Self::new(service, None)
    }

    pub(super) fn client(service: &str, server: &str) -> Self {
        Self::new(service, Some(server.into()))
    }

    fn new(service: &str, server: Option<Arc<str>>) -> Self {
        Self(Arc::new(Inner { service: service.into(), server, rpcs: RwLock::default() }))
    }

    /// Whose end it is.
    pub(super) fn service(&self) -> &Arc<str> {
        &self.0.service
    }

    /// The other end, where it is known.
    pub(super) fn peer(&self) -> Option<&str> {
        self.0.server.as_deref()
    }

    pub(super) fn is_server(&self) -> bool {
        self.0.server.is_none()
    }

    /// The kind of a span, as OpenTelemetry names it.
    pub(super) fn kind(&self) -> &'static str {
        if self.is_server() { "server" } else { "client" }
    }

    /// What every metric of this end is labelled with.
    pub(super) fn labels(&self, method: &'static str) -> Vec<Label> {
        let mut labels = vec![Label::new("service", Arc::clone(&self.0.service))];
        labels.extend(self.0.server.as_ref().map(|server| Label::new("server", Arc::clone(server))));
        labels.push(Label::from_static_parts("method", method));
        labels
    }

    pub(super) fn rpc(&self, path: &'static str) -> Arc<Rpc> {
        let rpcs = self.0.rpcs.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = rpcs.get(path) {
            return Arc::clone(known);
        }
        drop(rpcs);
        let mut rpcs = self.0.rpcs.write().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(rpcs.entry(path).or_insert_with(|| Arc::new(Rpc::new(self, path))))
    }
}

impl Rpc {
    fn new(side: &Side, path: &'static str) -> Self {
        let (in_flight_name, seconds_name) = if side.is_server() {
            ("guildhall_rpc_server_in_flight", "guildhall_rpc_server_seconds")
        } else {
            ("guildhall_rpc_client_in_flight", "guildhall_rpc_client_seconds")
        };
        let labels = side.labels(path);
        let in_flight = metrics::gauge!(in_flight_name, labels.iter());
        Self { path, labels, seconds_name, in_flight, seconds: [const { OnceLock::new() }; CODES] }
    }

    /// As it stands in an HTTP/2 request.
    pub(super) fn path(&self) -> &'static str {
        self.path
    }

    pub(super) fn in_flight(&self) -> &Gauge {
        &self.in_flight
    }

    /// A call took so long, until it ended with `code`.
    pub(super) fn took(&self, elapsed: Duration, code: Code, name: &'static str) {
        let seconds = self.seconds[code as usize].get_or_init(|| {
            let mut labels = self.labels.clone();
            labels.push(Label::from_static_parts("code", name));
            metrics::histogram!(self.seconds_name, labels)
        });
        seconds.record(elapsed);
    }
}
