//! `ProfileService`.

use std::sync::Arc;

use contracts::auth::v1::{BatchGetProfilesRequest, BatchGetProfilesResponse, profile_service_server::ProfileService};
use ids::UserId;
use status::Problem;
use tonic::{Request, Response, Status};

use super::{id, person::profile_message};
use crate::{Auth, store as tables};

/// Public profiles for other services.
pub struct Profiles(pub Arc<Auth>);

#[tonic::async_trait]
impl ProfileService for Profiles {
    async fn batch_get_profiles(
        &self,
        request: Request<BatchGetProfilesRequest>,
    ) -> Result<Response<BatchGetProfilesResponse>, Status> {
        Ok(Response::new(batch_get(&self.0, request.into_inner()).await?))
    }
}

async fn batch_get(auth: &Auth, request: BatchGetProfilesRequest) -> Result<BatchGetProfilesResponse, Problem> {
    let ids = request.user_ids.iter().map(|user| id::<UserId>(user, "userIds")).collect::<Result<Vec<_>, _>>()?;
    let mut conn = auth.db.read().await?;
    let accounts = tables::account::find_all(&mut conn, ids).await?;
    Ok(BatchGetProfilesResponse {
        profiles: accounts.into_iter().map(|account| profile_message(auth, account.into())).collect(),
    })
}
