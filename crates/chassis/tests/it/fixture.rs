use std::ops::Deref;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use chassis::{Builder, ServerSettings};
use contracts::auth::v1::profile_service_client::ProfileServiceClient;
use contracts::auth::v1::profile_service_server::{ProfileService, ProfileServiceServer};
use contracts::auth::v1::{BatchGetProfilesRequest, BatchGetProfilesResponse};
use mesh::Channel;
use store::Db;
use testkit::{Backend, Mesh, TestDb};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tonic::{Request, Response, Status};

/// Answers every call, but panics on the id [`PANIC`] and waits for [`Fake::release`] on [`WAIT`].
#[derive(Clone)]
pub struct Fake(Arc<Inner>);

struct Inner {
    entered: Semaphore,
    released: Semaphore,
    log: Mutex<Vec<&'static str>>,
    databases: Mutex<Vec<TestDb>>,
}

pub const FINE: &str = "00000000-0000-7000-8000-000000000001";
pub const PANIC: &str = "00000000-0000-7000-8000-000000000002";
pub const WAIT: &str = "00000000-0000-7000-8000-000000000003";

impl Fake {
    pub fn new() -> Self {
        let (entered, released) = (Semaphore::new(0), Semaphore::new(0));
        Self(Arc::new(Inner { entered, released, log: Mutex::default(), databases: Mutex::default() }))
    }

    /// A service called `auth` that is made of this fake, with an outbox: revocations are replayed from there.
    pub async fn builder(&self, mesh: &Mesh, settings: ServerSettings) -> Builder {
        let db = mesh.database(Backend::Sqlite, &[]).await;
        let builder = Builder::new("auth", settings, &mesh.platform("auth").await)
            .verifier(mesh.verifier())
            .grpc(ProfileServiceServer::new(self.clone()))
            .database(db.clone());
        self.0.databases.lock().unwrap().push(db);
        builder
    }

    /// The database of the last service.
    pub fn database(&self) -> Db {
        self.0.databases.lock().unwrap().last().expect("a service").deref().clone()
    }

    /// Waits until a call is inside.
    pub async fn entered(&self) {
        self.0.entered.acquire().await.unwrap().forget();
    }

    /// Lets one waiting call answer.
    pub fn release(&self) {
        self.0.released.add_permits(1);
    }

    pub fn note(&self, what: &'static str) {
        self.0.log.lock().unwrap().push(what);
    }

    pub fn notes(&self) -> Vec<&'static str> {
        self.0.log.lock().unwrap().clone()
    }
}

#[tonic::async_trait]
impl ProfileService for Fake {
    async fn batch_get_profiles(
        &self,
        request: Request<BatchGetProfilesRequest>,
    ) -> Result<Response<BatchGetProfilesResponse>, Status> {
        match request.get_ref().user_ids[0].as_str() {
            PANIC => panic!("the secret inside"),
            WAIT => {
                self.0.entered.add_permits(1);
                self.0.released.acquire().await.unwrap().forget();
                self.note("call");
            }
            _ => {}
        }
        Ok(Response::new(BatchGetProfilesResponse::default()))
    }
}

pub async fn client(mesh: &Mesh) -> ProfileServiceClient<Channel> {
    ProfileServiceClient::new(mesh.channel("content", "auth").await)
}

pub fn ask(id: &str) -> BatchGetProfilesRequest {
    BatchGetProfilesRequest { user_ids: vec![id.to_owned()] }
}

/// What must happen soon.
pub async fn soon<F: Future>(what: &str, work: F) -> F::Output {
    timeout(Duration::from_secs(15), work).await.unwrap_or_else(|_| panic!("{what} did not happen"))
}
