//! Who may come in: limits and the access token. The same for REST and for gRPC, before anything of the body is read.

use http::{HeaderMap, HeaderValue, header};
use mesh::User;
use status::{Problem, Reason};

use crate::{
    exchange::Exchange,
    gateway::Gateway,
    limit::{Grant, Refusal},
    problem::Failure,
    transcode::{self, Limit, Rpc},
};

/// A call that was let in.
pub(crate) struct Admitted {
    user: Option<User>,
    grant: Grant,
}

impl Admitted {
    pub(crate) fn user(&self) -> Option<&User> {
        self.user.as_ref()
    }

    /// Puts the user's token, unchanged, into the headers of the call upstream.
    pub(crate) fn introduce(&self, headers: &mut HeaderMap) {
        let Some(user) = &self.user else { return };
        let mut value = HeaderValue::try_from(format!("Bearer {}", user.token))
            .expect("a token that was verified came in a header");
        value.set_sensitive(true);
        headers.insert(header::AUTHORIZATION, value);
    }

    /// Tells the client how much it has left.
    pub(crate) fn write(&self, headers: &mut HeaderMap) {
        self.grant.write(headers);
    }
}

/// Checks the address's limit first, since it is cheaper than a signature, and the user's own once the user is known.
pub(crate) async fn admit(
    gateway: &Gateway,
    rpc: &Rpc,
    headers: &HeaderMap,
    exchange: &Exchange,
) -> Result<Admitted, Failure> {
    let by_address = address(gateway, rpc.limit, exchange).await?;
    let user = authenticate(gateway, rpc, headers).await.map_err(|problem| limited(problem.into(), by_address))?;
    let Some(user) = user else { return Ok(Admitted { user: None, grant: by_address }) };
    exchange.identified(user.id);
    let by_user = gateway.limiter.user(rpc.limit, user.id, user.tier).await?;
    Ok(Admitted { user: Some(user), grant: Grant::tighter(by_address, by_user) })
}

/// Takes the request out of what its address may ask.
pub(crate) async fn address(gateway: &Gateway, class: Limit, exchange: &Exchange) -> Result<Grant, Failure> {
    Ok(gateway.limiter.address(class, exchange.client()).await?)
}

impl From<Refusal> for Failure {
    fn from(Refusal { problem, grant }: Refusal) -> Self {
        limited(problem.into(), grant)
    }
}

fn limited(mut failure: Failure, grant: Grant) -> Failure {
    grant.write(failure.headers_mut());
    failure
}

async fn authenticate(gateway: &Gateway, rpc: &Rpc, headers: &HeaderMap) -> Result<Option<User>, Problem> {
    let access = rpc.access.as_ref().map_or(transcode::User::Authenticated, |access| access.user);
    if access == transcode::User::WorkloadOnly {
        return Ok(None);
    }
    match bearer(headers)? {
        Some(token) => gateway.verifier.verify(token).await.map(Some),
        None if access == transcode::User::Anonymous => Ok(None),
        None => Err(Reason::TokenMissing.into()),
    }
}

/// The token of the one `Authorization: Bearer` header (RFC 6750, 2.1). Another scheme is not "no token": it would pass for
/// an anonymous call.
fn bearer(headers: &HeaderMap) -> Result<Option<&str>, Problem> {
    let mut lines = headers.get_all(header::AUTHORIZATION).iter();
    let Some(line) = lines.next() else { return Ok(None) };
    let invalid =
        || Problem::new(Reason::TokenInvalid).message("Send one header `Authorization: Bearer <access token>`.");
    if lines.next().is_some() {
        return Err(invalid());
    }
    let (scheme, token) = line.to_str().ok().and_then(|line| line.split_once(' ')).ok_or_else(invalid)?;
    let token = token.trim_matches(' ');
    if !scheme.eq_ignore_ascii_case("bearer") || token.is_empty() {
        return Err(invalid());
    }
    Ok(Some(token))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(lines: &[&'static str]) -> Result<Option<String>, Reason> {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(header::AUTHORIZATION, HeaderValue::from_static(line));
        }
        bearer(&headers).map(|token| token.map(str::to_owned)).map_err(|problem| problem.reason())
    }

    #[test]
    fn a_bearer_token_is_found_whatever_the_case_of_its_scheme() {
        assert_eq!(token(&[]), Ok(None));
        assert_eq!(token(&["Bearer abc"]), Ok(Some("abc".into())));
        assert_eq!(token(&["bEARER  abc"]), Ok(Some("abc".into())));
    }

    #[test]
    fn an_authorization_that_is_no_bearer_token_is_refused() {
        for lines in [&["Basic YTpi"][..], &["Bearer"], &["Bearer "], &["abc"], &["Bearer a", "Bearer b"]] {
            assert_eq!(token(lines), Err(Reason::TokenInvalid), "{lines:?}");
        }
    }
}
