use std::sync::Arc;

use events::{Bus, EmbeddedBus};
use ids::Source;
use keyspace::Keyspace;
use limit::Limits;
use mesh::{Channel, Identity, Workload};

use crate::{MasterKey, Services};

/// What a service gets from the process that it runs in.
#[derive(Clone)]
pub struct Platform {
    /// Time, randomness and ids.
    pub source: Source,
    /// Who this service is on the mesh.
    pub identity: Identity,
    /// Where its events go and come from.
    pub bus: Arc<dyn Bus>,
    /// How much is let through, shared by replicas where there is a Redis.
    pub limits: Arc<dyn Limits>,
    /// The Redis that replicas share, if there is one.
    pub keyspace: Option<Keyspace>,
    /// From which it derives its secrets.
    pub key: MasterKey,
    /// What its admin port shows.
    pub metrics: telemetry::Metrics,
    /// Where the others are.
    pub services: Services,
    /// How they are called.
    pub mesh: mesh::Settings,
    /// The bus once more where it runs in this process: [`Builder::database`](crate::Builder::database) attaches outboxes to it.
    pub embedded: Option<Arc<EmbeddedBus>>,
}

impl Platform {
    /// A channel to another service, once it is known where that is. It connects at the first call.
    pub async fn connect(&self, server: &Workload) -> Channel {
        let endpoints = self.services.endpoints(server.as_str()).await;
        mesh::connect_with(&self.identity, server.clone(), endpoints, &self.mesh)
    }
}
