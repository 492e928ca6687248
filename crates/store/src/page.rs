//! Page tokens: cursors that a client carries and cannot change.

use aws_lc_rs::{constant_time, hmac};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Serialize;
use serde::de::DeserializeOwned;
use status::{Problem, Reason};

/// Rows on a page where the request does not say.
pub const DEFAULT_SIZE: usize = 20;
/// Rows on a page at most.
pub const MAX_SIZE: usize = 100;
/// Of HMAC-SHA-256, 16 bytes are kept: truncation to half is the least that RFC 2104 section 5 advises.
const TAG: usize = 16;

/// Rows on a page: what the request asks for, [`DEFAULT_SIZE`] for 0, [`MAX_SIZE`] for more than that.
pub fn size(requested: i32) -> usize {
    match usize::try_from(requested) {
        Ok(0) | Err(_) => DEFAULT_SIZE,
        Ok(size) => size.min(MAX_SIZE),
    }
}

/// Issues and reads page tokens. A token holds the cursor, in clear, and an HMAC-SHA-256 of cursor and scope. The scope names the
/// method and everything that chooses the rows (filters, order), so that a token serves only the query that issued it.
#[derive(Clone)]
pub struct Tokens {
    key: hmac::Key,
}

impl Tokens {
    /// All replicas of a service need the same key.
    pub fn new(key: [u8; 32]) -> Self {
        Self { key: hmac::Key::new(hmac::HMAC_SHA256, &key) }
    }

    /// The token after `cursor`.
    pub fn issue<C: Serialize>(&self, scope: &str, cursor: &C) -> String {
        let mut token = serde_json::to_vec(cursor).expect("a cursor is a plain struct of ids, times and texts");
        let tag = self.tag(scope, &token);
        token.extend_from_slice(&tag);
        URL_SAFE_NO_PAD.encode(token)
    }

    /// The cursor in `token`; none for the first page, whose token is empty. `PAGE_TOKEN_INVALID` for a token that was changed or belongs to another scope.
    pub fn read<C: DeserializeOwned>(&self, scope: &str, token: &str) -> Result<Option<C>, Problem> {
        if token.is_empty() {
            return Ok(None);
        }
        self.cursor(scope, token).map(Some).ok_or_else(|| Problem::new(Reason::PageTokenInvalid))
    }

    fn cursor<C: DeserializeOwned>(&self, scope: &str, token: &str) -> Option<C> {
        let bytes = URL_SAFE_NO_PAD.decode(token).ok()?;
        let (cursor, tag) = bytes.split_last_chunk::<TAG>()?;
        constant_time::verify_slices_are_equal(&self.tag(scope, cursor), tag).ok()?;
        serde_json::from_slice(cursor).ok()
    }

    fn tag(&self, scope: &str, cursor: &[u8]) -> [u8; TAG] {
        let mut context = hmac::Context::with_key(&self.key);
        context.update(&(scope.len() as u64).to_be_bytes());
        context.update(scope.as_bytes());
        context.update(cursor);
        let mut tag = [0; TAG];
        tag.copy_from_slice(&context.sign().as_ref()[..TAG]);
        tag
    }
}
