use std::sync::Arc;

use events::{Bus, DeadLetters, Delivery, Handler, Subscription};

use crate::bound::Error;
use crate::gate::Gates;
use crate::task::Task;

/// A subscription that has yet to start.
pub(crate) struct Consumer {
    pub(crate) subscription: Subscription,
    pub(crate) handler: Arc<dyn Handler>,
    pub(crate) dead_letters: DeadLetters,
}

impl Consumer {
    /// Subscribes, and gives the work that keeps the subscription until it is told to stop. A broadcast holds a gate until it
    /// has caught up with what was published before.
    pub(crate) async fn start(self, bus: &dyn Bus, gates: &Gates) -> Result<Task, Error> {
        let Self { subscription, handler, dead_letters } = self;
        let name = subscription.consumer;
        let gate = matches!(subscription.delivery, Delivery::Broadcast { .. }).then(|| gates.gate(name));
        let running = bus.subscribe(subscription, handler, dead_letters).await;
        let running = running.map_err(|source| Error::Subscribe { consumer: name, source })?;
        Ok(Task::new(name, |stop| async move {
            if let Some(gate) = gate {
                gate.unready("replaying");
                if stop.run_until_cancelled(running.caught_up()).await.is_some() {
                    gate.ready();
                }
            }
            stop.cancelled().await;
            running.stop().await;
        }))
    }
}
