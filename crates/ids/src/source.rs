use std::fmt;
use std::sync::Arc;

use uuid::Builder;

use crate::{Clock, Random, SystemClock, SystemRandom, Timestamp, TypedId};

/// Where time, randomness and ids come from. Cheap to clone.
#[derive(Clone)]
pub struct Source {
    clock: Arc<dyn Clock>,
    random: Arc<dyn Random>,
}

impl Source {
    /// The machine's clock and the operating system's generator.
    pub fn system() -> Self {
        Self::new(Arc::new(SystemClock), Arc::new(SystemRandom))
    }

    /// A source over the given clock and generator.
    pub fn new(clock: Arc<dyn Clock>, random: Arc<dyn Random>) -> Self {
        Self { clock, random }
    }

    /// The present moment.
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Overwrites `bytes` with random ones, fit for secrets.
    pub fn fill(&self, bytes: &mut [u8]) {
        self.random.fill(bytes);
    }

    /// `N` random bytes, fit for secrets.
    pub fn bytes<const N: usize>(&self) -> [u8; N] {
        let mut bytes = [0; N];
        self.fill(&mut bytes);
        bytes
    }

    /// A new id: a UUIDv7 (RFC 9562, section 5.7) of the present moment, so that ids sort by the time of their making.
    ///
    /// Microseconds below the millisecond fill `rand_a` as the RFC's method 3 allows; 62 bits are random.
    pub fn id<T: TypedId>(&self) -> T {
        let micros = self.now().micros().max(0).unsigned_abs();
        let mut bytes: [u8; 10] = self.bytes();
        // 1000 microseconds spread over the 4096 values of rand_a.
        let fraction = (micros % 1000) * 4096 / 1000;
        bytes[..2].copy_from_slice(&fraction.to_be_bytes()[6..]);
        T::from(Builder::from_unix_timestamp_millis(micros / 1000, &bytes).into_uuid())
    }
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Source")
    }
}
