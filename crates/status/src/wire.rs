//! Problems as `google.rpc.Status` details, and back.

use std::collections::HashMap;
use std::error::Error;

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, FieldViolation, StatusExt};

use crate::{Problem, Reason, Violation};

/// The `domain` of every `google.rpc.ErrorInfo` that Guildhall sends.
pub const DOMAIN: &str = "guildhall";

/// Logs the cause, and sends everything else.
impl From<Problem> for Status {
    fn from(problem: Problem) -> Self {
        log_cause(&problem);
        let mut details = ErrorDetails::new();
        details.set_error_info(
            problem.reason().name(),
            DOMAIN,
            problem.facts().clone().into_iter().collect::<HashMap<_, _>>(),
        );
        if !problem.violation_list().is_empty() {
            let fields = problem.violation_list().iter();
            details.set_bad_request(
                fields.map(|field| FieldViolation::new(&field.field, &field.description)).collect::<Vec<_>>(),
            );
        }
        if let Some(delay) = problem.retry_delay() {
            details.set_retry_info(Some(delay));
        }
        Self::with_error_details(problem.reason().code(), problem.text(), details)
    }
}

/// Reads the details back. A status that is not one of ours gets the reason nearest to its code; where its text may tell
/// internals, that becomes the cause and the reason's title takes its place.
impl From<&Status> for Problem {
    fn from(status: &Status) -> Self {
        let details = status.check_error_details().unwrap_or_default();
        let ours = details.error_info().filter(|info| info.domain == DOMAIN);
        let reason = ours.and_then(|info| Reason::from_name(&info.reason));
        let mut problem = Self::new(reason.unwrap_or_else(|| Reason::of_code(status.code())));

        if ours.is_none() && may_tell_internals(status.code()) {
            return problem.because(status.clone());
        }
        if !status.message().is_empty() && status.message() != problem.reason().title() {
            problem = problem.message(status.message());
        }
        for (key, value) in ours.into_iter().flat_map(|info| &info.metadata) {
            problem = problem.metadata(key, value);
        }
        if let Some(delay) = details.retry_info().and_then(|info| info.retry_delay) {
            problem = problem.retry_after(delay);
        }
        let fields = details.bad_request().map_or(&[][..], |request| &request.field_violations);
        problem.violations(
            fields
                .iter()
                .map(|field| Violation { field: field.field.clone(), description: field.description.clone() })
                .collect(),
        )
    }
}

fn may_tell_internals(code: Code) -> bool {
    matches!(code, Code::Ok | Code::Unknown | Code::Internal | Code::DataLoss | Code::Unavailable)
}

fn log_cause(problem: &Problem) {
    let Some(cause) = problem.cause() else { return };
    let reason = problem.reason().name();
    let cause = chain(cause);
    match problem.reason().code() {
        Code::Internal => tracing::error!(problem.reason = reason, problem.cause = cause, "A call failed: {cause}"),
        Code::Unavailable => {
            tracing::warn!(problem.reason = reason, problem.cause = cause, "A call could not be served: {cause}");
        }
        _ => tracing::debug!(problem.reason = reason, problem.cause = cause, "A call was refused: {cause}"),
    }
}

/// An error with its sources, outermost first.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        text = format!("{text}: {source}");
        next = source.source();
    }
    text
}
