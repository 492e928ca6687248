//! Which pages of other origins may call the API (the Fetch standard's CORS protocol).

use http::{HeaderName, HeaderValue, Method, header, request::Parts};
use tower_http::cors::{AllowHeaders, AllowOrigin, CorsLayer};

use crate::{config::Cors, deadline::REQUEST_TIMEOUT, exchange::REQUEST_ID, limit};

pub(crate) fn layer(settings: &Cors) -> CorsLayer {
    let Cors { origins, loopback, max_age } = settings.clone();
    let allowed = move |origin: &HeaderValue, _: &Parts| {
        origin
            .to_str()
            .is_ok_and(|origin| origins.iter().any(|allowed| allowed == origin) || (loopback && is_loopback(origin)))
    };
    CorsLayer::new()
        .allow_origin(AllowOrigin::predicate(allowed))
        .allow_methods([Method::GET, Method::HEAD, Method::POST, Method::PUT, Method::PATCH, Method::DELETE])
        // Tokens travel in a header that a page sets, never in cookies: a page may send what headers it likes.
        .allow_headers(AllowHeaders::mirror_request())
        .expose_headers([
            header::ETAG,
            header::LOCATION,
            header::RETRY_AFTER,
            header::ALLOW,
            header::WWW_AUTHENTICATE,
            header::CONTENT_RANGE,
            limit::POLICY,
            limit::LEVEL,
            REQUEST_ID,
            REQUEST_TIMEOUT,
            HeaderName::from_static("grpc-status"),
            HeaderName::from_static("grpc-message"),
            HeaderName::from_static("grpc-status-details-bin"),
        ])
        .max_age(max_age)
}

fn is_loopback(origin: &str) -> bool {
    let Some(host) = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://")) else { return false };
    let host = match host.rsplit_once(':') {
        Some((name, port)) if !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    matches!(host, "localhost" | "127.0.0.1" | "[::1]")
}

#[cfg(test)]
mod tests {
    use super::is_loopback;

    #[test]
    fn only_origins_on_this_machine_are_loopback() {
        for origin in ["http://localhost", "http://localhost:5173", "https://127.0.0.1:8443", "http://[::1]:3000"] {
            assert!(is_loopback(origin), "{origin}");
        }
        for origin in [
            "http://localhost.example.org",
            "http://localhost:80.example.org",
            "null",
            "http://127.0.0.1.example.org",
            "file://localhost",
        ] {
            assert!(!is_loopback(origin), "{origin}");
        }
    }
}
