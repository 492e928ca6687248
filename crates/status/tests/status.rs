//! Reasons and problems through the public surface.

use std::collections::HashSet;
use std::error::Error;
use std::io;
use std::time::Duration;

use proptest::prelude::*;
use status::{DOMAIN, Problem, Reason, Violation};
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

fn reasons() -> Vec<Reason> {
    (1..1000).filter_map(|number| Reason::try_from(number).ok()).collect()
}

#[test]
fn every_reason_has_an_error_code_an_http_status_and_a_title_of_its_own() {
    let mut titles = HashSet::new();
    assert!(reasons().len() > 40);
    for reason in reasons() {
        assert!(!matches!(reason.code(), Code::Ok | Code::Unknown), "{reason:?}");
        assert!((400..600).contains(&reason.http_status()), "{reason:?}");
        assert!(reason.title().starts_with(char::is_uppercase) && !reason.title().ends_with('.'), "{reason:?}");
        assert!(titles.insert(reason.title()), "{reason:?}");
    }
}

#[test]
fn the_names_of_reasons_are_those_of_the_contract_and_round_trip() {
    for reason in reasons() {
        assert_eq!(Reason::from_name(reason.name()), Some(reason));
    }
    assert_eq!(Reason::EtagMismatch.name(), "ETAG_MISMATCH");
    assert_eq!(Reason::from_name("REASON_UNSPECIFIED"), None);
    assert_eq!(Reason::from_name("etag_mismatch"), None);
}

#[test]
fn reasons_mean_what_the_contract_says() {
    let meaning = |reason: Reason| (reason.code(), reason.http_status());
    assert_eq!(meaning(Reason::EtagMismatch), (Code::Aborted, 409));
    assert_eq!(meaning(Reason::PayloadTooLarge), (Code::ResourceExhausted, 413));
    assert_eq!(meaning(Reason::StateConflict), (Code::FailedPrecondition, 409));
    assert_eq!(meaning(Reason::TokenMissing), (Code::Unauthenticated, 401));
    assert_eq!(meaning(Reason::RateLimited), (Code::ResourceExhausted, 429));
    assert_eq!(meaning(Reason::Cancelled), (Code::Cancelled, 499));
    assert_eq!(meaning(Reason::Internal), (Code::Internal, 500));
}

#[test]
fn a_problem_without_a_message_has_its_reasons_title() {
    let problem = Problem::new(Reason::NotFound);
    assert_eq!(problem.text(), Reason::NotFound.title());
    assert_eq!(Status::from(problem).message(), Reason::NotFound.title());
}

#[test]
fn a_status_carries_the_details_that_google_rpc_defines() {
    let problem = Problem::new(Reason::InvalidFields)
        .violation("post.tags[3]", "must not be empty")
        .metadata("limit", "20")
        .retry_after(Duration::from_secs(3));
    let details = Status::from(problem).get_error_details();
    let info = details.error_info().unwrap();
    assert_eq!((info.reason.as_str(), info.domain.as_str()), ("INVALID_FIELDS", DOMAIN));
    assert_eq!(info.metadata["limit"], "20");
    let fields = &details.bad_request().unwrap().field_violations;
    assert_eq!((fields[0].field.as_str(), fields[0].description.as_str()), ("post.tags[3]", "must not be empty"));
    assert_eq!(details.retry_info().unwrap().retry_delay, Some(Duration::from_secs(3)));
}

#[test]
fn the_cause_is_kept_and_never_sent() {
    for reason in reasons() {
        let cause = io::Error::other("password=hunter2 at 10.0.0.7");
        let problem = Problem::new(reason).metadata("a", "b").because(cause);
        assert!(problem.cause().unwrap().to_string().contains("hunter2"));
        assert!(problem.source().is_some());
        assert!(!problem.to_string().contains("hunter2"));

        let status = Status::from(problem);
        let sent = status.clone().into_http::<()>();
        let headers: Vec<_> = sent.headers().values().map(|value| value.as_bytes().to_vec()).collect();
        for bytes in headers.iter().map(Vec::as_slice).chain([status.details(), status.message().as_bytes()]) {
            let text = String::from_utf8_lossy(bytes);
            assert!(!text.contains("hunter2") && !text.contains("10.0.0.7"), "{reason:?}: {text}");
        }
        assert!(status.source().is_none());
        assert!(!format!("{status:?} {status}").contains("hunter2"));
    }
}

#[test]
fn a_status_from_elsewhere_gets_a_reason_of_its_own_code() {
    for number in 1..=16 {
        let code = Code::from_i32(number);
        let problem = Problem::from(&Status::new(code, "text"));
        let expected = match code {
            Code::Unknown | Code::DataLoss => Code::Internal,
            // tonic says OUT_OF_RANGE of a message that is too large.
            Code::OutOfRange => Code::ResourceExhausted,
            code => code,
        };
        assert_eq!(problem.reason().code(), expected, "{code:?}");
    }
}

#[test]
fn text_from_elsewhere_that_may_tell_internals_becomes_the_cause() {
    for code in [Code::Internal, Code::Unknown, Code::DataLoss, Code::Unavailable] {
        let problem = Problem::from(&Status::new(code, "tcp connect error: 10.0.0.7:5432"));
        assert_eq!(problem.text(), problem.reason().title());
        assert!(problem.cause().unwrap().to_string().contains("10.0.0.7"));
        assert!(!Status::from(problem).message().contains("10.0.0.7"));
    }
    assert_eq!(Problem::from(&Status::not_found("no such thing")).text(), "no such thing");
}

#[test]
fn error_info_of_another_domain_and_reasons_of_a_newer_build_fall_back_to_the_code() {
    let status = |domain: &str, reason: &str| {
        let details = ErrorDetails::with_error_info(reason, domain, [("a".to_owned(), "b".to_owned())]);
        Status::with_error_details(Code::NotFound, "gone", details)
    };
    let foreign = Problem::from(&status("googleapis.com", "ETAG_MISMATCH"));
    assert_eq!((foreign.reason(), foreign.facts().len()), (Reason::NotFound, 0));
    let newer = Problem::from(&status(DOMAIN, "SOMETHING_NEW"));
    assert_eq!((newer.reason(), newer.text(), newer.facts()["a"].as_str()), (Reason::NotFound, "gone", "b"));
}

#[test]
fn details_that_are_no_protobuf_leave_the_code() {
    let status = Status::with_details(Code::Aborted, "text", vec![0xff; 7].into());
    assert_eq!(Problem::from(&status).reason(), Reason::EtagMismatch);
}

proptest! {
    #[test]
    fn a_problem_survives_the_way_over_the_wire(
        reason in proptest::sample::select(reasons()),
        message in proptest::option::of("[^\0]{1,40}"),
        violations in proptest::collection::vec((".{0,20}", ".{0,20}"), 0..4),
        facts in proptest::collection::btree_map("[a-z]{1,8}", ".{0,20}", 0..4),
        delay in proptest::option::of(0_u64..1_000_000),
    ) {
        let build = || {
            let list = violations.iter().cloned().map(|(field, description)| Violation { field, description }).collect();
            let mut problem = Problem::new(reason).violations(list);
            if let Some(message) = &message {
                problem = problem.message(message);
            }
            for (key, value) in &facts {
                problem = problem.metadata(key, value);
            }
            if let Some(delay) = delay {
                problem = problem.retry_after(Duration::from_millis(delay));
            }
            problem
        };
        let (sent, headers) = (build(), Status::from(build()).into_http::<()>());
        let read = Problem::from(&Status::from_header_map(headers.headers()).unwrap());
        prop_assert_eq!(read.reason(), sent.reason());
        prop_assert_eq!(read.text(), sent.text());
        prop_assert_eq!(read.violation_list(), sent.violation_list());
        prop_assert_eq!(read.facts(), sent.facts());
        prop_assert_eq!(read.retry_delay(), sent.retry_delay());
    }
}
