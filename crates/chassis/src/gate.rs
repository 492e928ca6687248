use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// What a process waits for before it is ready: `/readyz` lists the gates that are not ready, and why.
///
/// A gate starts unready. Clones are the same gate.
#[derive(Clone)]
pub struct Gate {
    name: &'static str,
    gates: Gates,
}

impl Gate {
    /// What was waited for is there.
    pub fn ready(&self) {
        self.gates.close_or_open(self.name, None);
    }

    /// It is gone, or not there yet; the reason is shown to operators.
    pub fn unready(&self, reason: impl Into<String>) {
        self.gates.close_or_open(self.name, Some(reason.into()));
    }
}

/// All gates of one server.
#[derive(Clone, Default)]
pub(crate) struct Gates(Arc<watch::Sender<BTreeMap<&'static str, String>>>);

impl Gates {
    pub(crate) fn gate(&self, name: &'static str) -> Gate {
        let gate = Gate { name, gates: self.clone() };
        gate.unready("starting");
        gate
    }

    /// The gates that are not ready, and why.
    pub(crate) fn unready(&self) -> BTreeMap<&'static str, String> {
        self.0.borrow().clone()
    }

    /// Returns once every gate but the one of this name is ready.
    pub(crate) async fn all_ready_but(&self, last: &str) {
        // `self` holds the sender: the wait cannot fail.
        let _ = self.subscribe().wait_for(|unready| unready.keys().all(|name| *name == last)).await;
    }

    /// Follows whether every gate is ready.
    pub(crate) fn subscribe(&self) -> watch::Receiver<BTreeMap<&'static str, String>> {
        self.0.subscribe()
    }

    /// Tells operators whenever `service` becomes ready or stops being so, until `stop`.
    pub(crate) async fn report(self, service: &'static str, stop: CancellationToken) {
        let mut changes = self.subscribe();
        changes.mark_changed();
        let mut ready = false;
        while stop.run_until_cancelled(changes.changed()).await.is_some_and(|change| change.is_ok()) {
            let unready = changes.borrow_and_update().clone();
            match (ready, unready.is_empty()) {
                (false, true) => tracing::info!(service, "{service} is ready"),
                (true, false) => tracing::info!(service, ?unready, "{service} is not ready any more"),
                _ => {}
            }
            ready = unready.is_empty();
        }
    }

    fn close_or_open(&self, name: &'static str, unready: Option<String>) {
        self.0.send_if_modified(|gates| match unready {
            Some(reason) => gates.insert(name, reason.clone()) != Some(reason),
            None => gates.remove(name).is_some(),
        });
    }
}
