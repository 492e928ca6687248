//! Remembers a request's body while it is sent, so that the request can be sent again.

use std::{
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use status::{Problem, Reason};
use tonic::Status;

/// The longest body that is remembered, in bytes.
const LIMIT: usize = 64 * 1024;

/// A body that can be sent more than once, as long as no more than 64 KiB of it were sent before.
pub(crate) struct Replay(Arc<Mutex<State>>);

/// The body as one attempt sends it. A later attempt takes it over.
pub(crate) struct Attempt {
    state: Arc<Mutex<State>>,
    number: usize,
    /// How many parts it has sent.
    sent: usize,
}

struct State {
    body: tonic::body::Body,
    /// What was read from the body so far; `None` once it was too much.
    parts: Option<Vec<Part>>,
    size: usize,
    ended: bool,
    /// The number of the attempt that may read.
    attempt: usize,
    /// Whether it has.
    read: bool,
}

#[derive(Clone)]
enum Part {
    Data(Bytes),
    Trailers(HeaderMap),
}

impl Replay {
    pub(crate) fn new(body: tonic::body::Body) -> Self {
        let state = State { body, parts: Some(Vec::new()), size: 0, ended: false, attempt: 0, read: false };
        Self(Arc::new(Mutex::new(state)))
    }

    /// Whether the body can be sent again.
    pub(crate) fn is_kept(&self) -> bool {
        lock(&self.0).parts.is_some()
    }

    /// Whether anything was read of the present attempt. Before that its server has the request's head at most.
    pub(crate) fn is_read(&self) -> bool {
        lock(&self.0).read
    }

    /// The whole body from its beginning; `None` when it is not remembered any more.
    pub(crate) fn attempt(&self) -> Option<Attempt> {
        let mut state = lock(&self.0);
        state.parts.as_ref()?;
        state.attempt += 1;
        state.read = false;
        Some(Attempt { state: Arc::clone(&self.0), number: state.attempt, sent: 0 })
    }
}

impl State {
    fn remember(&mut self, part: &Part) {
        if let Part::Data(data) = part {
            self.size += data.len();
        }
        if self.size > LIMIT {
            self.parts = None;
        }
        if let Some(parts) = &mut self.parts {
            parts.push(part.clone());
        }
    }
}

impl Body for Attempt {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
        let mut state = lock(&this.state);
        if state.attempt != this.number {
            let problem = Problem::new(Reason::Unavailable).because("the request was taken over by another attempt");
            return Poll::Ready(Some(Err(problem.into())));
        }
        state.read = true;
        if let Some(part) = state.parts.as_ref().and_then(|parts| parts.get(this.sent)) {
            this.sent += 1;
            return Poll::Ready(Some(Ok(part.clone().into())));
        }
        if state.ended {
            return Poll::Ready(None);
        }
        let frame = match ready!(Pin::new(&mut state.body).poll_frame(cx)) {
            Some(Ok(frame)) => frame,
            Some(Err(error)) => {
                // The caller has broken off: there is nothing whole to send.
                state.parts = None;
                return Poll::Ready(Some(Err(error)));
            }
            None => {
                state.ended = true;
                return Poll::Ready(None);
            }
        };
        let Some(part) = Part::of(frame) else { return Poll::Ready(None) };
        state.remember(&part);
        this.sent += 1;
        Poll::Ready(Some(Ok(part.into())))
    }

    fn is_end_stream(&self) -> bool {
        let state = lock(&self.state);
        let caught_up = state.parts.as_ref().is_none_or(|parts| self.sent >= parts.len());
        caught_up && (state.ended || state.body.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        let state = lock(&self.state);
        if state.size == 0 { state.body.size_hint() } else { SizeHint::default() }
    }
}

impl Part {
    /// There are no other kinds of frames.
    fn of(frame: Frame<Bytes>) -> Option<Self> {
        match frame.into_data() {
            Ok(data) => Some(Self::Data(data)),
            Err(frame) => frame.into_trailers().ok().map(Self::Trailers),
        }
    }
}

impl From<Part> for Frame<Bytes> {
    fn from(part: Part) -> Self {
        match part {
            Part::Data(data) => Self::data(data),
            Part::Trailers(trailers) => Self::trailers(trailers),
        }
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use futures_util::{FutureExt, stream};
    use http_body_util::{BodyExt, StreamBody};
    use proptest::prelude::*;

    use super::*;

    fn body(parts: Vec<Vec<u8>>) -> tonic::body::Body {
        let frames = parts.into_iter().map(|part| Ok::<_, Status>(Frame::data(Bytes::from(part))));
        tonic::body::Body::new(StreamBody::new(stream::iter(frames)))
    }

    fn read(attempt: Attempt) -> Vec<u8> {
        attempt.collect().now_or_never().unwrap().unwrap().to_bytes().to_vec()
    }

    proptest! {
        #[test]
        fn every_attempt_sends_the_same_however_far_the_last_one_came(
            parts in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..50), 0..20),
            progress in prop::collection::vec(0_usize..25, 0..4),
        ) {
            let replay = Replay::new(body(parts.clone()));
            for frames in progress {
                let mut attempt = replay.attempt().unwrap();
                for _ in 0..frames {
                    attempt.frame().now_or_never().unwrap();
                }
            }
            prop_assert_eq!(read(replay.attempt().unwrap()), parts.concat());
        }
    }

    #[test]
    fn a_long_body_is_sent_whole_but_once() {
        let long = vec![vec![7; LIMIT / 2]; 5];
        let replay = Replay::new(body(long.clone()));
        assert_eq!(read(replay.attempt().unwrap()), long.concat());
        assert!(replay.attempt().is_none());
    }

    #[test]
    fn a_body_that_its_caller_broke_off_is_not_sent_again() {
        let frames = [Ok(Frame::data(Bytes::from_static(b"half"))), Err(Status::cancelled("gone"))];
        let replay = Replay::new(tonic::body::Body::new(StreamBody::new(stream::iter(frames))));
        assert!(replay.attempt().unwrap().collect().now_or_never().unwrap().is_err());
        assert!(!replay.is_kept());
    }

    #[test]
    fn an_attempt_that_was_superseded_sends_nothing_more() {
        let replay = Replay::new(body(vec![vec![1], vec![2]]));
        let mut first = replay.attempt().unwrap();
        first.frame().now_or_never().unwrap();
        let second = replay.attempt().unwrap();
        assert!(first.frame().now_or_never().unwrap().unwrap().is_err());
        assert_eq!(read(second), [1, 2]);
    }

    #[test]
    fn each_attempt_is_known_to_be_unread_until_it_is_read() {
        let replay = Replay::new(body(vec![vec![1]]));
        for _ in 0..2 {
            let mut attempt = replay.attempt().unwrap();
            assert!(!replay.is_read() && !attempt.is_end_stream());
            attempt.frame().now_or_never().unwrap();
            assert!(replay.is_read());
        }
    }

    #[test]
    fn an_empty_body_is_known_to_be_empty() {
        let replay = Replay::new(tonic::body::Body::empty());
        assert!(replay.attempt().unwrap().is_end_stream());
    }
}
