//! Whom auth knows: names and states of people, asked over the mesh.

use std::time::Duration;

use contracts::auth::v1::BatchGetProfilesRequest;
use contracts::auth::v1::profile_service_client::ProfileServiceClient;
use ids::UserId;
use status::Problem;

use crate::author::Author;

/// The most people that auth is asked about at once.
pub const MAX_PEOPLE: usize = 100;

/// An answer that takes longer is not waited for: posts are written without it, and it is asked for again later.
const PATIENCE: Duration = Duration::from_secs(2);

/// Asks auth.
#[derive(Clone)]
pub struct Directory {
    profiles: ProfileServiceClient<mesh::Channel>,
}

impl Directory {
    /// Over the channel to auth.
    pub fn new(auth: mesh::Channel) -> Self {
        Self { profiles: ProfileServiceClient::new(auth) }
    }

    /// Those of the people whom auth knows. No transaction may be open meanwhile.
    pub async fn find(&self, people: &[UserId]) -> Result<Vec<Author>, Problem> {
        let request = BatchGetProfilesRequest { user_ids: people.iter().map(ToString::to_string).collect() };
        let mut profiles = self.profiles.clone();
        let call = tokio::time::timeout(PATIENCE, profiles.batch_get_profiles(request));
        let answer = call.await.map_err(|_| Problem::new(status::Reason::DeadlineExceeded))?;
        let profiles = answer.map_err(|status| Problem::from(&status))?.into_inner().profiles;
        let known = profiles.into_iter().filter_map(|profile| {
            let id = profile.id.parse().ok()?;
            Some(Author { id, display_name: Some(profile.display_name), suspended: profile.suspended })
        });
        Ok(known.collect())
    }
}
