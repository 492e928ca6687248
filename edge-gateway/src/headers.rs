//! Which headers cross the edge. Default deny: a request's headers reach an RPC only where the contract declares them.

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};

use crate::{
    exchange::{Exchange, REQUEST_ID},
    transcode::Rpc,
};

/// The client's address for the service behind: it trusts it from the edge alone.
const CLIENT_ADDRESS: HeaderName = HeaderName::from_static("x-client-address");
/// How an RPC answers another status than 200 over HTTP.
const STATUS: HeaderName = HeaderName::from_static("x-http-code");
const PREFIX: &str = "x-http-";

/// Headers that concern one connection alone (RFC 9110, 7.6.1), besides those that `Connection` names.
const HOP_BY_HOP: [HeaderName; 8] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    header::PROXY_AUTHENTICATE,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

/// Headers that the mesh believes: only the edge and the mesh itself may set them.
fn is_internal(name: &HeaderName) -> bool {
    let name = name.as_str();
    name.starts_with(PREFIX)
        || name.starts_with("x-forwarded-")
        || name.starts_with("x-envoy-")
        || name.starts_with("grpc-")
        || matches!(
            name,
            "x-client-address"
                | "x-real-ip"
                | "forwarded"
                | "proxy-authorization"
                | "proxy"
                | "http2-settings"
                | "host"
        )
}

/// The metadata of a call: who asks, by which request, and the headers that the RPC declares, as `x-http-<name>`.
pub(crate) fn metadata(request: &HeaderMap, rpc: &Rpc, exchange: &Exchange) -> HeaderMap {
    let mut metadata = HeaderMap::new();
    for name in &rpc.http.request_headers {
        let Ok(prefixed) = HeaderName::try_from(format!("{PREFIX}{name}")) else { continue };
        for value in request.get_all(name) {
            metadata.append(prefixed.clone(), value.clone());
        }
    }
    introduce(&mut metadata, exchange);
    metadata
}

fn introduce(headers: &mut HeaderMap, exchange: &Exchange) {
    headers.insert(REQUEST_ID, exchange.id().clone());
    let address = HeaderValue::try_from(exchange.client().to_string()).expect("an address is visible ASCII");
    headers.insert(CLIENT_ADDRESS, address);
}

/// The headers of a passed-through request: the client's own, less what concerns its connection or what only the mesh may say.
pub(crate) fn forwarded(request: &HeaderMap, exchange: &Exchange) -> HeaderMap {
    let mut headers = end_to_end(request);
    let internal: Vec<HeaderName> = headers.keys().filter(|name| is_internal(name)).cloned().collect();
    for name in internal {
        headers.remove(name);
    }
    headers.remove(header::EXPECT);
    introduce(&mut headers, exchange);
    headers
}

/// The headers of a native gRPC call: those of the protocol, and the RPC's metadata.
pub(crate) fn grpc(request: &HeaderMap, rpc: &Rpc, exchange: &Exchange) -> HeaderMap {
    let mut headers = metadata(request, rpc, exchange);
    for name in ["content-type", "grpc-encoding", "grpc-accept-encoding"] {
        if let Some(value) = request.get(name) {
            headers.insert(name, value.clone());
        }
    }
    headers.insert(header::TE, HeaderValue::from_static("trailers"));
    headers
}

/// A copy without the headers that concern one connection alone.
pub(crate) fn end_to_end(headers: &HeaderMap) -> HeaderMap {
    let mut kept = headers.clone();
    for named in headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
    {
        kept.remove(named.trim());
    }
    for name in HOP_BY_HOP {
        kept.remove(name);
    }
    kept
}

/// What an RPC says about its HTTP answer: a status, where the contract declares it, and the declared headers.
pub(crate) fn declared(metadata: &HeaderMap, rpc: &Rpc) -> (StatusCode, HeaderMap) {
    let status = metadata
        .get(STATUS)
        .and_then(|code| StatusCode::from_bytes(code.as_bytes()).ok())
        .filter(|code| rpc.http.statuses.contains(code))
        .unwrap_or(StatusCode::OK);
    let mut headers = HeaderMap::new();
    for name in &rpc.http.response_headers {
        for value in metadata.get_all(format!("{PREFIX}{name}")) {
            headers.append(name.clone(), value.clone());
        }
    }
    (status, headers)
}

/// Takes out of a gRPC answer what is meant for the edge.
pub(crate) fn without_internal(headers: &mut HeaderMap) {
    let internal: Vec<HeaderName> = headers.keys().filter(|name| name.as_str().starts_with(PREFIX)).cloned().collect();
    for name in internal {
        headers.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_connection_names_goes_with_it() {
        let mut headers = HeaderMap::new();
        headers.insert(header::CONNECTION, HeaderValue::from_static("close, X-Secret-Hop"));
        headers.insert("x-secret-hop", HeaderValue::from_static("1"));
        headers.insert(header::TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
        headers.insert(header::ACCEPT, HeaderValue::from_static("*/*"));
        let kept = end_to_end(&headers);
        assert_eq!(kept.keys().collect::<Vec<_>>(), [&header::ACCEPT]);
    }

    #[test]
    fn headers_that_the_mesh_believes_are_recognised() {
        for name in [
            "x-http-code",
            "x-http-range",
            "x-forwarded-client-cert",
            "x-forwarded-for",
            "x-client-address",
            "grpc-timeout",
            "forwarded",
        ] {
            assert!(is_internal(&HeaderName::from_static(name)), "{name}");
        }
        for name in ["authorization", "content-type", "user-agent", "accept"] {
            assert!(!is_internal(&HeaderName::from_static(name)), "{name}");
        }
    }
}
