//! How a server's connection ends without taking from its client what it was sent last.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::oneshot,
    time::{Sleep, sleep},
};

/// How long a client may take to close its side.
const LINGER: Duration = Duration::from_secs(1);

/// A stream that is read to its end before it is dropped, and tells when something was read for the first time.
///
/// Who closes a socket while something comes in resets it (RFC 9293, section 3.6.1). A client that then writes sees the reset
/// first, and not the GOAWAY and the last answers that it has got before.
pub(crate) struct Parting<S> {
    stream: S,
    heard: Option<oneshot::Sender<()>>,
    patience: Duration,
    /// Once there is nothing more to say.
    linger: Option<Pin<Box<Sleep>>>,
}

impl<S> Parting<S> {
    /// The stream, and what ends when something was read from it, or when it is dropped.
    pub(crate) fn new(stream: S) -> (Self, oneshot::Receiver<()>) {
        Self::with_patience(stream, LINGER)
    }

    fn with_patience(stream: S, patience: Duration) -> (Self, oneshot::Receiver<()>) {
        let (heard, first_word) = oneshot::channel();
        (Self { stream, heard: Some(heard), patience, linger: None }, first_word)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Parting<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buffer))?;
        if buffer.filled().len() > before
            && let Some(heard) = self.heard.take()
        {
            // Nobody listens any more where the connection need not end.
            let _ = heard.send(());
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Parting<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.linger.is_none() {
            ready!(Pin::new(&mut self.stream).poll_shutdown(cx))?;
        }
        let this = &mut *self;
        let linger = this.linger.get_or_insert_with(|| Box::pin(sleep(this.patience)));
        let mut rest = [0; 4096];
        loop {
            if linger.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Ok(()));
            }
            let mut rest = ReadBuf::new(&mut rest);
            match ready!(Pin::new(&mut this.stream).poll_read(cx, &mut rest)) {
                Ok(()) if !rest.filled().is_empty() => {}
                // The client has closed its side too, in whichever way.
                Ok(()) | Err(_) => return Poll::Ready(Ok(())),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    #[tokio::test]
    async fn what_a_client_still_sends_is_taken_until_it_closes_or_takes_too_long() {
        let (for_ever, soon) = (Duration::from_hours(1), Duration::from_mins(1));
        for (closes, patience) in [(true, for_ever), (false, Duration::from_millis(10))] {
            let (mut client, server) = duplex(16);
            let (mut server, _) = Parting::with_patience(server, patience);
            let ending = tokio::spawn(async move {
                server.write_all(b"the last").await.unwrap();
                server.shutdown().await.unwrap();
            });
            client.write_all(&[0; 16]).await.unwrap();
            let mut said = Vec::new();
            client.read_to_end(&mut said).await.unwrap();
            assert_eq!(said, b"the last");
            if closes {
                client.write_all(&[0; 100]).await.unwrap();
                drop(client);
            }
            tokio::time::timeout(soon, ending).await.unwrap().unwrap();
        }
    }

    #[tokio::test]
    async fn the_first_word_is_told() {
        let (mut client, server) = duplex(16);
        let (mut server, mut heard) = Parting::new(server);
        heard.try_recv().unwrap_err();
        client.write_all(b"word").await.unwrap();
        server.read_exact(&mut [0; 4]).await.unwrap();
        heard.await.unwrap();
    }
}
