use std::sync::Arc;

use events::{Bus, EmbeddedBus, Retry};
use ids::Source;
use store::Db;

async fn embedded(log: Db, source: Source, retry: Retry) -> Arc<dyn Bus> {
    let bus = EmbeddedBus::with_retry(source, retry);
    bus.attach("auth", log);
    Arc::new(bus)
}

events::conformance!(embedded);
