//! `AccountService`.

use std::sync::Arc;

use contracts::auth::v1::{
    GetMeRequest, GetSettingsRequest, GetUserRequest, ListSessionsRequest, ListSessionsResponse, ListUsersRequest,
    ListUsersResponse, LoginRequest, LoginResponse, Profile, RegisterRequest, ReinstateRequest,
    RequestPasswordResetRequest, ResetPasswordRequest, RevokeSessionRequest, SetRolesRequest, SetTierRequest, Settings,
    SuspendRequest, UpdateMeRequest, UpdateSettingsRequest, User, VerifyEmailRequest,
    account_service_server::AccountService,
};
use tonic::{Request, Response, Status};

use super::{administration, credential, person, session};
use crate::Auth;

/// People: their accounts, sessions, roles and settings.
pub struct Accounts(pub Arc<Auth>);

type Answer<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl AccountService for Accounts {
    async fn register(&self, request: Request<RegisterRequest>) -> Answer<()> {
        Ok(Response::new(credential::register(&self.0, request).await?))
    }

    async fn verify_email(&self, request: Request<VerifyEmailRequest>) -> Answer<()> {
        Ok(Response::new(credential::verify_email(&self.0, request).await?))
    }

    async fn request_password_reset(&self, request: Request<RequestPasswordResetRequest>) -> Answer<()> {
        Ok(Response::new(credential::request_password_reset(&self.0, request).await?))
    }

    async fn reset_password(&self, request: Request<ResetPasswordRequest>) -> Answer<()> {
        Ok(Response::new(credential::reset_password(&self.0, request).await?))
    }

    async fn login(&self, request: Request<LoginRequest>) -> Answer<LoginResponse> {
        Ok(Response::new(credential::login(&self.0, request).await?))
    }

    async fn get_me(&self, request: Request<GetMeRequest>) -> Answer<User> {
        Ok(Response::new(person::get_me(&self.0, &request).await?))
    }

    async fn update_me(&self, request: Request<UpdateMeRequest>) -> Answer<User> {
        Ok(Response::new(person::update_me(&self.0, request).await?))
    }

    async fn get_user(&self, request: Request<GetUserRequest>) -> Answer<Profile> {
        Ok(Response::new(person::get_user(&self.0, request).await?))
    }

    async fn list_users(&self, request: Request<ListUsersRequest>) -> Answer<ListUsersResponse> {
        Ok(Response::new(administration::list_users(&self.0, request).await?))
    }

    async fn get_settings(&self, request: Request<GetSettingsRequest>) -> Answer<Settings> {
        Ok(Response::new(person::get_settings(&self.0, &request).await?))
    }

    async fn update_settings(&self, request: Request<UpdateSettingsRequest>) -> Answer<Settings> {
        Ok(Response::new(person::update_settings(&self.0, request).await?))
    }

    async fn list_sessions(&self, request: Request<ListSessionsRequest>) -> Answer<ListSessionsResponse> {
        Ok(Response::new(session::list_sessions(&self.0, request).await?))
    }

    async fn revoke_session(&self, request: Request<RevokeSessionRequest>) -> Answer<()> {
        Ok(Response::new(session::revoke_session(&self.0, request).await?))
    }

    async fn set_roles(&self, request: Request<SetRolesRequest>) -> Answer<User> {
        Ok(Response::new(administration::set_roles(&self.0, request).await?))
    }

    async fn set_tier(&self, request: Request<SetTierRequest>) -> Answer<User> {
        Ok(Response::new(administration::set_tier(&self.0, request).await?))
    }

    async fn suspend(&self, request: Request<SuspendRequest>) -> Answer<User> {
        Ok(Response::new(administration::suspend(&self.0, request).await?))
    }

    async fn reinstate(&self, request: Request<ReinstateRequest>) -> Answer<User> {
        Ok(Response::new(administration::reinstate(&self.0, request).await?))
    }
}
