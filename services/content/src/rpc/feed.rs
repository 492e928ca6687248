//! `guildhall.content.v1.FeedService`.

use std::fmt::{self, Display};
use std::sync::Arc;
use std::time::Duration;

use cache::{Cache, Settings};
use contracts::google::api::HttpBody;
use keyspace::Keyspace;
use proto::feed_service_server::FeedService;
use tonic::{Request, Response, Status};

use super::{Content, blocking, proto};
use crate::error::Result;
use crate::feed::{self, Site};
use crate::store as tables;

/// How long a document is given out before it is made anew. Many readers ask at the same moment, on the hour. What one replica has
/// made, the others give out too where they share a Redis.
const TTL: Duration = Duration::from_secs(5);

/// How long Redis may take over a document before it is made here.
const PATIENCE: Duration = Duration::from_millis(250);

/// Bytes of Markdown and HTML that are read for a feed.
const BUDGET: i64 = 8_000_000;

/// Serves feeds and the sitemap.
pub struct Feeds {
    content: Arc<Content>,
    site: Arc<Site>,
    documents: Cache<Document, HttpBody>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Document {
    Atom,
    Rss,
    Sitemap,
}

impl Document {
    fn content_type(self) -> &'static str {
        match self {
            Self::Atom => "application/atom+xml; charset=utf-8",
            Self::Rss => "application/rss+xml; charset=utf-8",
            Self::Sitemap => "application/xml; charset=utf-8",
        }
    }
}

impl Display for Document {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Atom => "atom",
            Self::Rss => "rss",
            Self::Sitemap => "sitemap",
        })
    }
}

impl Feeds {
    /// Feeds of what is published, which lead to `site`.
    pub fn new(content: Arc<Content>, site: Site, keyspace: Option<Keyspace>) -> Self {
        let documents = Cache::new("feeds", Settings { capacity: 3, ttl: TTL });
        let documents = match keyspace {
            Some(keyspace) => documents.shared(keyspace, content.source.clone(), PATIENCE),
            None => documents,
        };
        Self { content, site: Arc::new(site), documents }
    }

    async fn document(&self, document: Document) -> Result<Response<HttpBody>, Status> {
        let made =
            self.documents.get_or_load(document, async { self.make(document).await.map_err(Status::from) }).await;
        made.map(Response::new).map_err(Arc::unwrap_or_clone)
    }

    async fn make(&self, document: Document) -> Result<HttpBody> {
        let db = &self.content.db;
        let site = Arc::clone(&self.site);
        let xml = match document {
            Document::Atom | Document::Rss => {
                let items = tables::feed::newest(&mut db.read().await?, feed::ENTRIES, BUDGET).await?;
                let write = if document == Document::Atom { feed::atom } else { feed::rss };
                blocking(move || write(&site, &items)).await?
            }
            Document::Sitemap => {
                let pages = tables::feed::pages(&mut db.read().await?, feed::PAGES).await?;
                blocking(move || feed::sitemap(&site, &pages)).await?
            }
        };
        Ok(HttpBody { content_type: document.content_type().to_owned(), data: xml.into(), extensions: Vec::new() })
    }
}

#[tonic::async_trait]
impl FeedService for Feeds {
    async fn get_atom_feed(&self, _request: Request<proto::GetAtomFeedRequest>) -> Result<Response<HttpBody>, Status> {
        self.document(Document::Atom).await
    }

    async fn get_rss_feed(&self, _request: Request<proto::GetRssFeedRequest>) -> Result<Response<HttpBody>, Status> {
        self.document(Document::Rss).await
    }

    async fn get_sitemap(&self, _request: Request<proto::GetSitemapRequest>) -> Result<Response<HttpBody>, Status> {
        self.document(Document::Sitemap).await
    }
}
