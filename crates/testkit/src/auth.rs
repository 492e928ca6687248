use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::routing::get;
use chassis::Builder;
use contracts::Event;
use contracts::auth::v1::profile_service_server::{ProfileService, ProfileServiceServer};
use contracts::auth::v1::{BatchGetProfilesRequest, BatchGetProfilesResponse, Profile};
use events::{Outbox, Relay};
use store::testing::{Backend, TestDb};
use tonic::{Request, Response, Status};

use crate::{Mesh, Service, Signer, server_settings};

/// Stands in for auth where the real one would only be in the way: the keys of the test's tokens at `/oauth2/jwks`, the
/// profiles that the test fills in, and auth's events when the test says so.
pub struct StandIn {
    service: Service,
    profiles: Profiles,
    outbox: Outbox,
    db: TestDb,
}

impl StandIn {
    pub(crate) async fn serve(mesh: &Mesh) -> Self {
        let platform = mesh.platform("auth").await;
        let db = mesh.database(Backend::Sqlite, &[]).await;
        let profiles = Profiles::default();
        let jwks = || async { ([("content-type", "application/jwk-set+json")], Signer::shared().jwks()) };
        let bound = Builder::new("auth", server_settings(), &platform)
            .verifier(mesh.verifier())
            .grpc(ProfileServiceServer::new(profiles.clone()))
            .http(Router::new().route("/oauth2/jwks", get(jwks)))
            .database(db.clone())
            .relay(Relay::new(db.clone(), "auth", platform.bus.clone(), platform.source.clone()))
            .bind()
            .await
            .expect("the stand-in for auth binds");
        let outbox = Outbox::new("auth", platform.source);
        Self { service: mesh.serve(bound).await, profiles, outbox, db }
    }

    /// Enters or replaces a profile, by its id.
    pub fn profile(&self, profile: Profile) {
        self.profiles.lock().insert(profile.id.clone(), profile);
    }

    /// Publishes an event of auth. `version` grows with each event of one key.
    pub async fn publish<E: Event>(&self, version: i64, event: &E) {
        let mut tx = self.db.begin().await.expect("a transaction");
        self.outbox.append(&mut tx, version, event).await.expect("the event is appended");
        tx.commit().await.expect("the event is committed");
    }

    /// Waits until what was published has reached the bus.
    pub async fn settle(&self, mesh: &Mesh) {
        mesh.settle(&self.db).await;
    }

    /// The server, to stop it in the middle of a test.
    pub fn service(&self) -> &Service {
        &self.service
    }
}

#[derive(Clone, Default)]
struct Profiles(Arc<Mutex<HashMap<String, Profile>>>);

impl Profiles {
    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, Profile>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[tonic::async_trait]
impl ProfileService for Profiles {
    async fn batch_get_profiles(
        &self,
        request: Request<BatchGetProfilesRequest>,
    ) -> Result<Response<BatchGetProfilesResponse>, Status> {
        let known = self.lock();
        let profiles = request.get_ref().user_ids.iter().filter_map(|id| known.get(id).cloned()).collect();
        Ok(Response::new(BatchGetProfilesResponse { profiles }))
    }
}
