use std::collections::HashMap;
use std::sync::Arc;

use mesh::Endpoints;
use tokio::sync::watch;

/// Where the other services listen, by workload name. Clones share one map.
///
/// In a deployment it is filled from the settings before anything starts. In `guildhall dev` and in tests, where ports are
/// picked by the system, each service is entered once it is bound, and whoever needs it earlier waits.
#[derive(Clone)]
pub struct Services(Arc<watch::Sender<HashMap<String, Endpoints>>>);

impl Services {
    /// An empty map.
    pub fn new() -> Self {
        Self(Arc::new(watch::Sender::new(HashMap::new())))
    }

    /// Enters or replaces the endpoints of a workload.
    pub fn set(&self, workload: &str, endpoints: impl Into<Endpoints>) {
        let endpoints = endpoints.into();
        self.0.send_modify(|known| {
            known.insert(workload.to_owned(), endpoints);
        });
    }

    /// The endpoints of a workload, once they are known. It waits without limit: the caller bounds it.
    pub async fn endpoints(&self, workload: &str) -> Endpoints {
        let mut changes = self.0.subscribe();
        let known = changes.wait_for(|known| known.contains_key(workload)).await;
        known.expect("the sender lives in self")[workload].clone()
    }
}

impl Default for Services {
    fn default() -> Self {
        Self::new()
    }
}
