use std::collections::HashMap;
use std::sync::Arc;

use mesh::Address;
use tokio::sync::watch;

/// Where the other services listen, by workload name. Clones share one map.
///
/// In a deployment it is filled from the settings before anything starts. In `guildhall dev` and in tests, where ports are
/// picked by the system, each service is entered once it is bound, and whoever needs it earlier waits.
#[derive(Clone)]
pub struct Services(Arc<watch::Sender<HashMap<String, Address>>>);

impl Services {
    /// An empty map.
    pub fn new() -> Self {
        Self(Arc::new(watch::Sender::new(HashMap::new())))
    }

    /// Enters or replaces the address of a workload.
    pub fn set(&self, workload: &str, address: impl Into<Address>) {
        let address = address.into();
        self.0.send_modify(|addresses| {
            addresses.insert(workload.to_owned(), address);
        });
    }

    /// The address of a workload, once it is known. It waits without limit: the caller bounds it.
    pub async fn address(&self, workload: &str) -> Address {
        let mut changes = self.0.subscribe();
        let known = changes.wait_for(|addresses| addresses.contains_key(workload)).await;
        known.expect("the sender lives in self")[workload].clone()
    }
}

impl Default for Services {
    fn default() -> Self {
        Self::new()
    }
}
