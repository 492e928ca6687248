use std::pin::Pin;

use futures_util::Stream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};
use tonic_health::ServingStatus;
use tonic_health::pb::health_server::{Health, HealthServer};
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};
use tonic_health::server::{HealthReporter, HealthService};

use crate::Draining;
use crate::gate::Gates;

/// `grpc.health.v1`, whose watches end when the drain starts as all others do.
pub(crate) struct DrainingHealth {
    inner: HealthService,
    draining: Draining,
}

#[tonic::async_trait]
impl Health for DrainingHealth {
    async fn check(&self, request: Request<HealthCheckRequest>) -> Result<Response<HealthCheckResponse>, Status> {
        self.inner.check(request).await
    }

    type WatchStream = Pin<Box<dyn Stream<Item = Result<HealthCheckResponse, Status>> + Send>>;

    async fn watch(&self, request: Request<HealthCheckRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let changes = self.inner.watch(request).await?.into_inner();
        Ok(Response::new(Box::pin(self.draining.watch(changes))))
    }
}

/// The health service of a server, and what keeps its answers the same as `/readyz`.
pub(crate) struct Reporter {
    statuses: HealthReporter,
    services: Vec<&'static str>,
    gates: Gates,
}

impl Reporter {
    pub(crate) fn new(mut services: Vec<&'static str>, gates: Gates) -> Self {
        // The empty name is the server as a whole.
        services.push("");
        Self { statuses: HealthReporter::new(), services, gates }
    }

    pub(crate) fn server(&self, draining: Draining) -> HealthServer<DrainingHealth> {
        let inner = HealthService::from_health_reporter(self.statuses.clone());
        HealthServer::new(DrainingHealth { inner, draining })
    }

    /// Reports the present readiness; before this is called once, no service is known.
    pub(crate) async fn report(&self) {
        let status = if self.gates.unready().is_empty() { ServingStatus::Serving } else { ServingStatus::NotServing };
        for service in &self.services {
            self.statuses.set_service_status(service, status).await;
        }
    }

    pub(crate) async fn run(self, stop: CancellationToken) {
        let mut changes = self.gates.subscribe();
        loop {
            self.report().await;
            let next = stop.run_until_cancelled(changes.changed()).await;
            if next.is_none_or(|change| change.is_err()) {
                return;
            }
        }
    }
}
