//! Clients must take what they are sent. Without that, answers wait in memory for as long as a client likes. [`Stall`] watches a
//! connection, [`paced`] one answer: a client of HTTP/2 can leave one where it is and keep its connection lively.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use axum::body::{Body, Bytes};
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::mpsc,
    time::{Instant, Sleep, timeout},
};

/// Fails with [`io::ErrorKind::TimedOut`] once a write has made no progress for the given time.
pub(crate) struct Stall<S> {
    stream: S,
    patience: Duration,
    timer: Pin<Box<Sleep>>,
    waiting: bool,
}

impl<S> Stall<S> {
    pub(crate) fn new(stream: S, patience: Duration) -> Self {
        Self { stream, patience, timer: Box::pin(tokio::time::sleep(patience)), waiting: false }
    }

    fn watch<T>(&mut self, written: Poll<io::Result<T>>, context: &mut Context<'_>) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.waiting = false;
            return written;
        }
        if !self.waiting {
            self.waiting = true;
            self.timer.as_mut().reset(Instant::now() + self.patience);
        }
        std::task::ready!(self.timer.as_mut().poll(context));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Stall<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Stall<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.watch(written, context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, bytes);
        self.watch(written, context)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(context);
        self.watch(flushed, context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let shut = Pin::new(&mut self.stream).poll_shutdown(context);
        self.watch(shut, context)
    }
}

/// The most bytes of an answer that are handed over at once. HTTP/2 keeps what it has until its client makes room.
const PART: usize = 64 * 1024;

/// Hands an answer over part by part, and drops what is left of it, and so the call behind it, once its client has not taken one
/// for `patience`. An answer of one part is not worth it.
pub(crate) fn paced<B>(body: B, patience: Duration) -> Body
where
    B: http_body::Body<Data = Bytes, Error = axum::Error> + Send + Unpin + 'static,
{
    let size = body.size_hint();
    if size.upper().is_some_and(|most| most <= PART as u64) {
        return Body::new(body);
    }
    let (give, parts) = mpsc::channel(1);
    tokio::spawn(hand_over(body, give, patience));
    Body::new(Paced { parts, size })
}

/// A part of an answer; none where it has ended.
type Part = Option<Result<Frame<Bytes>, axum::Error>>;

async fn hand_over<B>(mut body: B, give: mpsc::Sender<Part>, patience: Duration)
where
    B: http_body::Body<Data = Bytes, Error = axum::Error> + Send + Unpin + 'static,
{
    let take = async |part| timeout(patience, give.send(part)).await.is_ok_and(|taken| taken.is_ok());
    loop {
        let frame = tokio::select! {
            biased;
            () = give.closed() => return,
            frame = body.frame() => frame,
        };
        let taken = match frame.map(|frame| frame.map(Frame::into_data)) {
            Some(Ok(Ok(mut data))) if data.len() > PART => loop {
                // Copies: a slice would keep all of the answer in memory.
                let part = Bytes::copy_from_slice(&data.split_to(data.len().min(PART)));
                if !take(Some(Ok(Frame::data(part)))).await {
                    break false;
                }
                if data.is_empty() {
                    break true;
                }
            },
            Some(Ok(Ok(data))) => take(Some(Ok(Frame::data(data)))).await,
            Some(Ok(Err(trailers))) => take(Some(Ok(trailers))).await,
            Some(Err(error)) => take(Some(Err(error))).await,
            None => {
                // What the body holds is held until the last part has gone.
                let _ = take(None).await && timeout(patience, give.closed()).await.is_ok();
                return;
            }
        };
        if !taken {
            return;
        }
    }
}

/// The receiving end of [`hand_over`].
struct Paced {
    parts: mpsc::Receiver<Part>,
    /// Of the whole answer.
    size: SizeHint,
}

impl http_body::Body for Paced {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let part = std::task::ready!(self.parts.poll_recv(context));
        // Without an end it was given up, and must not pass for whole.
        Poll::Ready(part.unwrap_or_else(|| Some(Err(axum::Error::new(io::Error::from(io::ErrorKind::TimedOut))))))
    }

    fn size_hint(&self) -> SizeHint {
        self.size
    }
}
