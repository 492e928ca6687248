use futures_util::{Stream, StreamExt, future, stream};
use status::{Problem, Reason};
use tokio_util::sync::CancellationToken;
use tonic::Status;

/// How a server is told to end: `drain` asks it to finish what it has and take nothing new, `kill` ends what is left.
#[derive(Debug, Clone, Default)]
pub struct Drain {
    /// Refuse new connections, send GOAWAY, go on with the calls in flight.
    pub drain: CancellationToken,
    /// End them.
    pub kill: CancellationToken,
}

/// Tells open streams that the process is about to end.
#[derive(Debug, Clone)]
pub struct Draining(pub(crate) CancellationToken);

impl Draining {
    /// Resolves when the drain starts.
    pub async fn started(&self) {
        self.0.cancelled().await;
    }

    /// Ends `messages` with UNAVAILABLE when the drain starts: without that one open watch holds the process until it is
    /// killed. Each message of a watch should carry its resume token, so that the client goes on elsewhere from there.
    pub fn watch<T, S>(&self, messages: S) -> impl Stream<Item = Result<T, Status>> + use<T, S>
    where
        S: Stream<Item = Result<T, Status>>,
    {
        let drain = self.0.clone();
        let goodbye = stream::once(future::lazy(move |_| {
            let moved = Problem::new(Reason::Unavailable).message("This server is about to end: resume the stream");
            drain.is_cancelled().then(|| Err(moved.into()))
        }));
        messages.take_until(self.0.clone().cancelled_owned()).chain(goodbye.filter_map(future::ready))
    }
}
