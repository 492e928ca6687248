//! Deadlines: a call's remaining time travels with it in `grpc-timeout`, less what was spent, and what is late is dropped.

use std::{future::Future, time::Duration};

use axum::{body::Body, extract::Request, middleware::Next, response::Response};
use http::{HeaderMap, HeaderValue};
use status::{Problem, Reason};
use tokio::time::{Instant, sleep_until, timeout_at};

use super::cut_off::cut_off;
use crate::server::refusal;

const HEADER: &str = "grpc-timeout";
/// For a call that says nothing.
const DEFAULT: Duration = Duration::from_secs(15);
/// The longest that a single answer may take.
const CAP: Duration = Duration::from_mins(1);
/// The longest that a stream may ask for.
const LONGEST: Duration = Duration::from_hours(24);

tokio::task_local! {
    static DEADLINE: Instant;
}

/// What is left of the current call's time: zero when it is over, `None` outside of calls and in streams that state none.
pub fn remaining() -> Option<Duration> {
    current().map(|deadline| deadline.saturating_duration_since(Instant::now()))
}

/// Runs `work` as part of a call that must be over at `deadline`: calls to other services carry what is left of it.
pub async fn scope<F: Future>(deadline: Instant, work: F) -> F::Output {
    DEADLINE.scope(deadline, work).await
}

fn current() -> Option<Instant> {
    DEADLINE.try_with(|deadline| *deadline).ok()
}

/// Reads a `grpc-timeout`: 1 to 8 digits and a unit (gRPC over HTTP/2, "Timeout"). `None` when it is none.
pub fn parse(text: &str) -> Option<Duration> {
    let (unit, digits) = text.as_bytes().split_last()?;
    if digits.is_empty() || digits.len() > 8 || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let amount = digits.iter().fold(0, |amount, digit| amount * 10 + u64::from(digit - b'0'));
    match unit {
        b'H' => Some(Duration::from_secs(amount * 3600)),
        b'M' => Some(Duration::from_secs(amount * 60)),
        b'S' => Some(Duration::from_secs(amount)),
        b'm' => Some(Duration::from_millis(amount)),
        b'u' => Some(Duration::from_micros(amount)),
        b'n' => Some(Duration::from_nanos(amount)),
        _ => None,
    }
}

/// Writes a `grpc-timeout` in the finest unit that fits 8 digits, rounded down: never more time than there is.
pub fn format(timeout: Duration) -> String {
    let seconds = u128::from(timeout.as_secs());
    let units = [
        (timeout.as_nanos(), 'n'),
        (timeout.as_micros(), 'u'),
        (timeout.as_millis(), 'm'),
        (seconds, 'S'),
        (seconds / 60, 'M'),
    ];
    match units.into_iter().find(|(amount, _)| *amount < 100_000_000) {
        Some((amount, unit)) => format!("{amount}{unit}"),
        None => format!("{}H", (seconds / 3600).min(99_999_999)),
    }
}

/// The server's side: the handler runs with the call's deadline, and is dropped when it passes.
///
/// A single answer has 15 s when the client says nothing, and never more than 60 s. A stream has what the client says: it
/// may be meant to stay open.
pub(crate) async fn serve(request: Request, next: Next) -> Response {
    let streaming = is_streaming(request.uri().path());
    let deadline = match stated(request.headers()) {
        Ok(None) if streaming => return next.run(request).await,
        Ok(Some(timeout)) if streaming => Instant::now() + timeout,
        Ok(timeout) => Instant::now() + timeout.unwrap_or(DEFAULT).min(CAP),
        Err(problem) => return refusal(request.headers(), problem),
    };
    let headers = request.headers().clone();
    match timeout_at(deadline, scope(deadline, next.run(request))).await {
        Ok(answer) => cut_off(answer, at(deadline)).map(Body::new),
        Err(_) => refusal(&headers, Problem::new(Reason::DeadlineExceeded)),
    }
}

/// The client's side: when a request to `path` must be over, and the header that says so to the server.
///
/// `None` for a stream without a deadline.
pub(crate) fn stamp(path: &str, headers: &mut HeaderMap) -> Result<Option<Instant>, Problem> {
    let stated = stated(headers)?.map(|timeout| Instant::now() + timeout);
    let default = (!is_streaming(path)).then(|| Instant::now() + DEFAULT);
    let earliest = [stated, current()].into_iter().flatten().min().or(default);
    if let Some(deadline) = earliest {
        restamp(deadline, headers)?;
    }
    Ok(earliest)
}

/// Writes what is left until `deadline`.
pub(crate) fn restamp(deadline: Instant, headers: &mut HeaderMap) -> Result<(), Problem> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() {
        return Err(Problem::new(Reason::DeadlineExceeded));
    }
    let header = HeaderValue::try_from(format(left)).expect("digits and a letter");
    headers.insert(HEADER, header);
    Ok(())
}

/// Resolves when the time is over.
pub(crate) async fn at(deadline: Instant) -> Problem {
    sleep_until(deadline).await;
    Problem::new(Reason::DeadlineExceeded)
}

fn stated(headers: &HeaderMap) -> Result<Option<Duration>, Problem> {
    let Some(value) = headers.get(HEADER) else { return Ok(None) };
    let timeout = value.to_str().ok().and_then(parse).map(|timeout| timeout.min(LONGEST));
    timeout.map(Some).ok_or_else(|| Problem::new(Reason::MalformedRequest).message("grpc-timeout is not a time"))
}

pub(crate) fn is_streaming(path: &str) -> bool {
    contracts::method(path).is_some_and(|method| method.client_streaming || method.server_streaming)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_timeout_is_read_back_never_longer_and_hardly_shorter(
            seconds in prop_oneof![0_u64..200, 0..u64::from(u32::MAX), 0_u64..300_000_000_000],
            nanos in 0_u32..1_000_000_000,
        ) {
            let timeout = Duration::new(seconds, nanos);
            let text = format(timeout);
            prop_assert!(text.len() <= 9);
            let read = parse(&text).unwrap();
            prop_assert!(read <= timeout);
            // A unit is at most 1000 of the finer one, which did not fit 8 digits: 5 of them are always filled.
            let lost = timeout.saturating_sub(read);
            prop_assert!(lost < Duration::from_hours(1));
            prop_assert!(lost.as_nanos() * 100_000 <= timeout.as_nanos());
        }

        #[test]
        fn any_text_is_a_timeout_or_refused(text in ".*") {
            if let Some(timeout) = parse(&text) {
                prop_assert!(text.len() <= 9 && timeout <= Duration::from_hours(99_999_999));
            }
        }
    }

    #[test]
    fn the_units_are_those_of_grpc() {
        let cases = [("1H", 3_600_000), ("2M", 120_000), ("3S", 3000), ("4m", 4), ("99999999m", 99_999_999)];
        for (text, millis) in cases {
            assert_eq!(parse(text), Some(Duration::from_millis(millis)), "{text}");
        }
        assert_eq!(parse("5u"), Some(Duration::from_micros(5)));
        assert_eq!(parse("6n"), Some(Duration::from_nanos(6)));
        for text in ["", "S", "1", "1s", "-1S", "+1S", "1.5S", "123456789S", " 1S", "1 S", "１S"] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
