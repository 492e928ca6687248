//! One request and its answer, as every part of the edge sees them.

use std::{
    net::{IpAddr, SocketAddr},
    sync::{Arc, OnceLock},
};

use http::{HeaderMap, HeaderName, HeaderValue, header};
use ids::{Source, UserId};

use crate::config::Config;

pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// The other end of the connection. The listener puts it into each request's extensions.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Peer {
    pub(crate) address: SocketAddr,
    pub(crate) tls: bool,
}

/// What is known about one request from its arrival to the last byte of its answer. In the request's extensions.
#[derive(Clone, Debug)]
pub(crate) struct Exchange(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    id: HeaderValue,
    client: IpAddr,
    if_match: bool,
    route: OnceLock<String>,
    user: OnceLock<UserId>,
}

impl Exchange {
    pub(crate) fn begin(headers: &HeaderMap, peer: Peer, config: &Config, source: &Source) -> Self {
        Self(Arc::new(Inner {
            id: request_id(headers, source),
            client: client_address(headers, peer.address.ip(), config),
            if_match: headers.contains_key(header::IF_MATCH),
            route: OnceLock::new(),
            user: OnceLock::new(),
        }))
    }

    /// The client's own id for this request when it is sane, else one made here.
    pub(crate) fn id(&self) -> &HeaderValue {
        &self.0.id
    }

    pub(crate) fn id_text(&self) -> &str {
        self.0.id.to_str().unwrap_or_default()
    }

    /// The address of the client itself, behind the trusted proxies.
    pub(crate) fn client(&self) -> IpAddr {
        self.0.client
    }

    pub(crate) fn has_if_match(&self) -> bool {
        self.0.if_match
    }

    /// The template of the route; `-` where none was found.
    pub(crate) fn route(&self) -> &str {
        self.0.route.get().map_or("-", String::as_str)
    }

    /// Set once: by the first that knows.
    pub(crate) fn routed(&self, template: &str) {
        self.0.route.get_or_init(|| template.to_owned());
    }

    pub(crate) fn user(&self) -> Option<UserId> {
        self.0.user.get().copied()
    }

    pub(crate) fn identified(&self, user: UserId) {
        self.0.user.get_or_init(|| user);
    }
}

/// An id goes into logs and other services' headers: only short ones of plain characters are taken over.
fn request_id(headers: &HeaderMap, source: &Source) -> HeaderValue {
    let sane = |id: &&HeaderValue| {
        let id = id.as_bytes();
        (1..=128).contains(&id.len()) && id.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-_.:".contains(byte))
    };
    if let Some(id) = headers.get(REQUEST_ID).filter(sane) {
        return id.clone();
    }
    let id = format!("{:032x}", u128::from_be_bytes(source.bytes()));
    HeaderValue::try_from(id).expect("hexadecimal digits are visible ASCII")
}

/// The rightmost address that no trusted proxy has: what stands left of it is only said by the client.
fn client_address(headers: &HeaderMap, peer: IpAddr, config: &Config) -> IpAddr {
    let mut client = peer.to_canonical();
    let lines: Vec<&str> = headers.get_all(FORWARDED_FOR).iter().filter_map(|line| line.to_str().ok()).collect();
    let mut hops = lines.iter().rev().flat_map(|line| line.rsplit(','));
    while config.trusts(client) {
        let Some(hop) = hops.next().and_then(|hop| hop.trim().parse::<IpAddr>().ok()) else { break };
        client = hop.to_canonical();
    }
    client
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use ids::{ManualClock, SeededRandom, Timestamp};

    use super::*;

    fn exchange(peer: &str, lines: &[(&'static str, &str)]) -> Exchange {
        let mut config = crate::tests::config();
        config.trusted_proxies =
            vec!["10.0.0.0/8".parse().expect("a network"), "2001:db8:1::/48".parse().expect("a network")];
        let headers = lines
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_str(value).expect("a value")))
            .fold(HeaderMap::new(), |mut headers, (name, value)| {
                headers.append(name, value);
                headers
            });
        let source = Source::new(Arc::new(ManualClock::new(Timestamp::EPOCH)), Arc::new(SeededRandom::new(1)));
        let peer = Peer { address: SocketAddr::new(peer.parse().expect("an address"), 1), tls: false };
        Exchange::begin(&headers, peer, &config, &source)
    }

    fn client(peer: &str, forwarded: &[&str]) -> String {
        let lines: Vec<_> = forwarded.iter().map(|value| ("x-forwarded-for", *value)).collect();
        exchange(peer, &lines).client().to_string()
    }

    #[test]
    fn forwarded_addresses_of_a_stranger_are_not_believed() {
        assert_eq!(client("192.0.2.9", &["198.51.100.1"]), "192.0.2.9");
    }

    #[test]
    fn the_client_is_the_rightmost_address_that_is_no_trusted_proxy() {
        assert_eq!(client("10.0.0.1", &["203.0.113.5, 198.51.100.1, 10.0.0.2"]), "198.51.100.1");
        assert_eq!(client("10.0.0.1", &["203.0.113.5", "198.51.100.1"]), "198.51.100.1");
        assert_eq!(client("::ffff:10.0.0.1", &["::ffff:198.51.100.1"]), "198.51.100.1");
        assert_eq!(client("2001:db8:1::1", &["2001:db8:2::1"]), "2001:db8:2::1");
    }

    #[test]
    fn an_address_that_cannot_be_read_ends_the_search_at_the_proxy_that_sent_it() {
        assert_eq!(client("10.0.0.1", &["198.51.100.1, unknown"]), "10.0.0.1");
        assert_eq!(client("10.0.0.1", &[]), "10.0.0.1");
    }

    #[test]
    fn a_sane_request_id_is_kept_and_another_replaced() {
        let id = |value| exchange("192.0.2.1", &[("x-request-id", value)]).id_text().to_owned();
        assert_eq!(id("order-7.a:b_C"), "order-7.a:b_C");
        for odd in ["", "two words", "<script>", &"x".repeat(129)] {
            let made = id(odd);
            assert_eq!(made.len(), 32);
            assert!(made.bytes().all(|byte| byte.is_ascii_hexdigit()));
        }
    }
}
