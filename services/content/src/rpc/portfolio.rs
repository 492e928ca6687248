//! `guildhall.content.v1.PortfolioService`.

mod entry;

use std::sync::Arc;

use ids::UserId;
use proto::portfolio_service_server::PortfolioService;
use tonic::{Request, Response, Status};

use super::{Content, id, person, prepare, proto};
use crate::error::{Error, InField, Result};
use crate::permit::{self, Viewer};
use crate::portfolio::{Link, Portfolio};
use crate::{mask, store as tables};

/// The fields that UpdatePortfolio can change.
const MUTABLE: [&str; 3] = ["headline", "markdown", "links"];

/// Serves portfolios and the resumes in them.
pub struct Portfolios(pub Arc<Content>);

#[tonic::async_trait]
impl PortfolioService for Portfolios {
    async fn get_portfolio(
        &self,
        request: Request<proto::GetPortfolioRequest>,
    ) -> Result<Response<proto::Portfolio>, Status> {
        Ok(get(&self.0, &request.into_inner()).await?)
    }

    async fn update_portfolio(
        &self,
        request: Request<proto::UpdatePortfolioRequest>,
    ) -> Result<Response<proto::Portfolio>, Status> {
        Ok(update(&self.0, request).await?)
    }

    async fn list_resume_entries(
        &self,
        request: Request<proto::ListResumeEntriesRequest>,
    ) -> Result<Response<proto::ListResumeEntriesResponse>, Status> {
        Ok(entry::list(&self.0, &request.into_inner()).await?)
    }

    async fn create_resume_entry(
        &self,
        request: Request<proto::CreateResumeEntryRequest>,
    ) -> Result<Response<proto::ResumeEntry>, Status> {
        Ok(entry::create(&self.0, request).await?)
    }

    async fn update_resume_entry(
        &self,
        request: Request<proto::UpdateResumeEntryRequest>,
    ) -> Result<Response<proto::ResumeEntry>, Status> {
        Ok(entry::update(&self.0, request).await?)
    }

    async fn delete_resume_entry(
        &self,
        request: Request<proto::DeleteResumeEntryRequest>,
    ) -> Result<Response<()>, Status> {
        Ok(entry::delete(&self.0, request).await?)
    }
}

async fn get(content: &Content, message: &proto::GetPortfolioRequest) -> Result<Response<proto::Portfolio>> {
    let owner: UserId = id(&message.user_id, "userId")?;
    let portfolio = tables::portfolio::find(&mut content.db.read().await?, owner).await?;
    Ok(Response::new(portfolio.ok_or(Error::Missing("portfolio"))?.into()))
}

async fn update(
    content: &Content,
    request: Request<proto::UpdatePortfolioRequest>,
) -> Result<Response<proto::Portfolio>> {
    let viewer = person(&request)?;
    let message = request.into_inner();
    let owner = owned(&message.user_id, viewer)?;
    let given = message.portfolio.unwrap_or_default();
    let fields = mask::fields(message.update_mask, &MUTABLE, |field| match field {
        "headline" => !given.headline.is_empty(),
        "markdown" => !given.markdown.is_empty(),
        _ => !given.links.is_empty(),
    })?;
    let links =
        given.links.iter().enumerate().map(|(at, link)| Link::parse(link).in_field(format!("portfolio.links[{at}]")));
    let links = links.collect::<Result<_>>()?;
    let prepared =
        if fields.contains("markdown") { Some(prepare(&given.markdown, "portfolio.markdown").await?) } else { None };

    let mut tx = content.db.begin().await?;
    let now = content.source.now();
    let before = tables::portfolio::lock(&mut tx, owner).await?;
    let mut portfolio = before.clone().unwrap_or_else(|| Portfolio::empty(owner, now));
    portfolio.revision.check(&given.etag)?;
    if fields.contains("headline") {
        portfolio.headline = given.headline;
    }
    if let Some(prepared) = prepared {
        portfolio.markdown = given.markdown;
        portfolio.html = prepared.rendered.html;
    }
    if fields.contains("links") {
        portfolio.links = links;
    }
    if before.is_none_or(|before| before != portfolio) {
        portfolio.revision.advance(now);
        tables::portfolio::save(&mut tx, &portfolio).await?;
        tx.commit().await?;
    }
    Ok(Response::new(portfolio.into()))
}

/// The person of that id, whose portfolio the viewer may change.
fn owned(user_id: &str, viewer: Viewer) -> Result<UserId> {
    let owner = id(user_id, "userId")?;
    permit::portfolio_owner(viewer, owner).map_err(|refusal| Error::refusal(refusal, "portfolio"))?;
    Ok(owner)
}

impl From<Portfolio> for proto::Portfolio {
    fn from(portfolio: Portfolio) -> Self {
        Self {
            id: portfolio.owner.to_string(),
            create_time: Some(portfolio.revision.create_time.into()),
            update_time: Some(portfolio.revision.update_time.into()),
            etag: portfolio.revision.etag(),
            headline: portfolio.headline,
            markdown: portfolio.markdown,
            html: portfolio.html,
            links: portfolio.links.into_iter().map(Into::into).collect(),
        }
    }
}
