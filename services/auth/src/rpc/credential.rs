//! The calls that anybody may make, and that test a secret or make us send a mail.

use std::sync::Arc;

use contracts::auth::v1::{
    LoginRequest, LoginResponse, RegisterRequest, RequestPasswordResetRequest, ResetPasswordRequest, VerifyEmailRequest,
};
use ids::{Timestamp, UserId};
use limit::{Claim, Refused};
use status::{Problem, Reason};
use store::Tx;
use tonic::Request;
use tracing::Instrument as _;

use super::client_address;
use crate::{
    Auth,
    account::{Account, Email},
    attempt::{Action, Subject},
    code::{Purpose, Secret},
    mail::Kind,
    password::{Hash, Password, Verdict},
    session::Session,
    settings::Settings,
    store as tables,
    token::CLIENT,
};

/// Registers an account. Whether or not the address is taken, the same is done at the same cost: one argon2id, one transaction, one
/// mail.
pub(super) async fn register(auth: &Auth, request: Request<RegisterRequest>) -> Result<(), Problem> {
    let address = client_address(&request);
    let RegisterRequest { email, password, display_name: name } = request.into_inner();
    let email = Email::parse(&email)?;
    let password = Password::chosen(password)?;
    attempt(auth, &auth.attempts.claims(Action::Mail, &subjects(email.key(), address))).await?;

    let hash = auth.hasher.hash(Arc::new(password)).await?;
    let now = auth.source.now();
    let account = Account::register(auth.source.id(), email, hash, &name, now);
    let mut tx = auth.db.begin().await?;
    let kind = if tables::account::insert(&mut tx, &account).await? {
        tables::settings::save(&mut tx, &Settings::new(account.id, now)).await?;
        auth.announcer.registered(&mut tx, &account).await?;
        Kind::VerifyEmail
    } else {
        Kind::AddressTaken
    };
    auth.ask_for_mail(&mut tx, kind, account.email.key()).await?;
    Ok(tx.commit().await?)
}

/// Verifies an address by a mailed code.
pub(super) async fn verify_email(auth: &Auth, request: Request<VerifyEmailRequest>) -> Result<(), Problem> {
    let code = Secret::presented(request.into_inner().code);
    let user = code_owner(auth, &code, Purpose::VerifyEmail).await?;
    let mut tx = auth.db.begin().await?;
    let (mut account, now) = redeem(auth, &mut tx, &code, user, Purpose::VerifyEmail).await?;
    if account.verify_email(now) {
        tables::account::save(&mut tx, &account).await?;
    }
    Ok(tx.commit().await?)
}

/// Asks for a mail with a reset code. Nothing here looks whether the address has an account: delivery does.
pub(super) async fn request_password_reset(
    auth: &Auth,
    request: Request<RequestPasswordResetRequest>,
) -> Result<(), Problem> {
    let address = client_address(&request);
    let email = Email::parse(&request.into_inner().email)?;
    attempt(auth, &auth.attempts.claims(Action::Mail, &subjects(email.key(), address))).await?;
    let mut tx = auth.db.begin().await?;
    auth.ask_for_mail(&mut tx, Kind::ResetPassword, email.key()).await?;
    Ok(tx.commit().await?)
}

/// Sets a new password by a mailed code, and ends every session. Whoever has the code may log in at once, though others' guesses
/// have shut the account.
pub(super) async fn reset_password(auth: &Auth, request: Request<ResetPasswordRequest>) -> Result<(), Problem> {
    let ResetPasswordRequest { code, password } = request.into_inner();
    let (code, password) = (Secret::presented(code), Password::chosen(password)?);
    // Only a good code is worth an evaluation of argon2id, which has no place inside a transaction either.
    let user = code_owner(auth, &code, Purpose::ResetPassword).await?;
    let hash = auth.hasher.hash(Arc::new(password)).await?;

    let mut tx = auth.db.begin().await?;
    let (mut account, now) = redeem(auth, &mut tx, &code, user, Purpose::ResetPassword).await?;
    account.reset_password(hash, now);
    tables::account::save(&mut tx, &account).await?;
    tables::session::end_all(&mut tx, user, now).await?;
    auth.announcer.revoked(&mut tx, &account, None, now).await?;
    tx.commit().await?;
    let guesses = auth.attempts.claims(Action::LogIn, &[Subject::account(account.email.key())]);
    auth.limits.restore(&guesses).await;
    Ok(())
}

/// Opens a session. Every path evaluates argon2id once, and only a right password learns of a suspension.
pub(super) async fn login(auth: &Auth, request: Request<LoginRequest>) -> Result<LoginResponse, Problem> {
    let address = client_address(&request);
    let user_agent = request
        .metadata()
        .get("x-http-user-agent")
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default()
        .to_owned();
    let LoginRequest { email, password } = request.into_inner();
    let email_key = Email::key_of(&email);
    let claims = auth.attempts.claims(Action::LogIn, &subjects(&email_key, address));

    attempt(auth, &claims).await?;
    let outcome = log_in(auth, &email_key, Password::presented(password), &user_agent).await;
    let guessed_wrong = matches!(&outcome, Err(problem) if problem.reason() == Reason::CredentialsInvalid);
    if !guessed_wrong {
        auth.limits.give_back(&claims).await;
    }
    outcome
}

async fn log_in(auth: &Auth, email_key: &str, password: Password, user_agent: &str) -> Result<LoginResponse, Problem> {
    let password = Arc::new(password);
    let account = {
        let mut conn = auth.db.read().await?;
        tables::account::find_by_email(&mut conn, email_key).await?
    };
    let verdict = auth.hasher.verify(Arc::clone(&password), account.as_ref().map(|account| &account.password)).await?;
    let (Some(account), Verdict::Right { outdated }) = (account, verdict) else {
        return Err(Problem::new(Reason::CredentialsInvalid));
    };
    let answer = open_session(auth, &account, user_agent).await?;
    if outdated {
        let rehash = rehash(auth.hasher.clone(), auth.db.clone(), account.id, account.password, password);
        tokio::spawn(rehash.in_current_span());
    }
    Ok(answer)
}

async fn open_session(auth: &Auth, verified: &Account, user_agent: &str) -> Result<LoginResponse, Problem> {
    let mut tx = auth.db.begin().await?;
    let account = tables::account::lock(&mut tx, verified.id).await?;
    // The password may have been reset while the old one was being checked.
    let account = account
        .filter(|account| account.password_set == verified.password_set)
        .ok_or_else(|| Problem::new(Reason::CredentialsInvalid))?;
    if !account.is_active() {
        return Err(Problem::new(Reason::AccountSuspended));
    }
    let now = auth.source.now();
    let session = Session::open(auth.source.id(), account.id, CLIENT, user_agent, auth.sessions, now);
    let refresh = Secret::random(&auth.source);
    tables::session::save(&mut tx, &session).await?;
    tables::session::add_refresh(&mut tx, session.id, &refresh.hash(), now).await?;
    let draft = auth.issuer.for_user(&account, session.id, &auth.issuer.scopes(&account));
    tx.commit().await?;

    let issued = auth.issuer.sign(draft)?;
    Ok(LoginResponse {
        access_token: issued.token,
        refresh_token: refresh.expose().to_owned(),
        expires_in: i32::try_from(issued.expires_in.as_secs()).unwrap_or(i32::MAX),
        token_type: "Bearer".to_owned(),
    })
}

/// Hashes a password with today's parameters, after its log-in was answered: that keeps log-ins at one evaluation each. If it does not
/// come to it now, the next log-in tries again.
async fn rehash(hasher: crate::password::Hasher, db: store::Db, user: UserId, old: Hash, password: Arc<Password>) {
    let outcome: Result<(), Problem> = async {
        let new = hasher.hash(password).await?;
        let mut tx = db.begin().await?;
        tables::account::rehash(&mut tx, user, &old, &new).await?;
        Ok(tx.commit().await?)
    }
    .await;
    if let Err(problem) = outcome {
        tracing::warn!(user.id = %user, error = problem.text(), "A password keeps its old hash for now");
    }
}

/// Takes an attempt from each allowance. It counts from its beginning, so that concurrent guesses do not outrun the limit.
async fn attempt(auth: &Auth, claims: &[Claim]) -> Result<(), Problem> {
    let exhausted = |refused: Refused| Problem::new(Reason::TooManyAttempts).retry_after(refused.retry_after);
    auth.limits.take(claims).await.map(drop).map_err(exhausted)
}

fn subjects(email: &str, address: Option<std::net::IpAddr>) -> Vec<Subject> {
    std::iter::once(Subject::account(email)).chain(address.map(Subject::Address)).collect()
}

async fn code_owner(auth: &Auth, code: &Secret, purpose: Purpose) -> Result<UserId, Problem> {
    let mut conn = auth.db.read().await?;
    let owner = tables::code::owner_of(&mut conn, &code.hash(), purpose, auth.source.now()).await?;
    owner.ok_or_else(code_invalid)
}

/// Locks the account and uses the code up.
async fn redeem(
    auth: &Auth,
    tx: &mut Tx,
    code: &Secret,
    user: UserId,
    purpose: Purpose,
) -> Result<(Account, Timestamp), Problem> {
    let account = tables::account::lock(tx, user).await?.ok_or_else(code_invalid)?;
    if !tables::code::consume(tx, &code.hash(), user, purpose).await? {
        return Err(code_invalid());
    }
    Ok((account, auth.source.now()))
}

fn code_invalid() -> Problem {
    Problem::new(Reason::CodeInvalid).violation("code", "is wrong, used or expired")
}
