//! Posts are searched.

use ids::Timestamp;
use serde::{Deserialize, Serialize};
use store::page;
use tonic::{Request, Response};

use super::super::{Content, PAGE_BUDGET, blocking, proto};
use crate::error::Result;
use crate::language::Language;
use crate::search::{Query, snippet};
use crate::store as tables;

/// Nobody reads further, and each further page costs more than the one before.
const MAX_RESULTS: i64 = 1_000;

/// Where a page ended.
#[derive(Serialize, Deserialize)]
struct Cursor {
    offset: i64,
    /// When the first page was asked for: what is published later does not move the pages behind it.
    as_of: Timestamp,
}

pub(super) async fn search(
    content: &Content,
    request: Request<proto::SearchPostsRequest>,
) -> Result<Response<proto::SearchPostsResponse>> {
    let message = request.into_inner();
    let query = Query::parse(&message.q);
    let language = Language::parse(&message.language);
    let scope = format!("SearchPosts {query:?} {language:?}");
    let first = Cursor { offset: 0, as_of: content.source.now() };
    let Cursor { offset, as_of } = content.tokens.read(&scope, &message.page_token)?.unwrap_or(first);
    if query.phrases.is_empty() {
        return Ok(Response::new(proto::SearchPostsResponse::default()));
    }
    let limit = i64::try_from(page::size(message.page_size)).unwrap_or(i64::MAX);
    let page = tables::search::Page { offset, limit, budget: PAGE_BUDGET, as_of };
    let found = tables::search::find(&mut content.db.read().await?, &query, language.as_ref(), page).await?;
    let offset = offset + i64::try_from(found.hits.len()).unwrap_or(i64::MAX);
    let next = (found.more && offset < MAX_RESULTS).then(|| content.tokens.issue(&scope, &Cursor { offset, as_of }));
    let hits = found.hits;
    let results = blocking(move || {
        let result = |hit: tables::search::Hit| proto::search_posts_response::Result {
            snippet: snippet(&hit.plain, &query),
            post: Some(hit.post.into()),
        };
        hits.into_iter().map(result).collect()
    });
    Ok(Response::new(proto::SearchPostsResponse { results: results.await?, next_page_token: next.unwrap_or_default() }))
}
