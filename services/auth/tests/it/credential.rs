//! Register, VerifyEmail, RequestPasswordReset, ResetPassword, Login.

use std::time::Duration;

use contracts::auth::v1::{
    LoginRequest, RegisterRequest, RequestPasswordResetRequest, ResetPasswordRequest, VerifyEmailRequest,
};
use status::Reason;
use tonic::{Code, Request};

use crate::{
    on_both,
    world::{PASSWORD, World, assert_refused, claims, refusal, registration},
};

const VERIFY: &str = "Verify your e-mail address";
const RESET: &str = "Reset your password";
const TAKEN: &str = "You have an account already";

on_both! {
    async fn a_new_account_logs_in_and_writes_once_its_address_is_verified(backend: Backend) {
        let world = World::start(backend).await;
        world.register("Ada@Example.org").await;
        let before = world.login("ada@example.org", PASSWORD).await.unwrap();
        assert_eq!((before.expires_in, before.token_type.as_str()), (600, "Bearer"));
        assert_eq!(claims(&before.access_token)["scope"], "profile");
        assert_eq!(claims(&before.access_token)["email_verified"], false);

        let code = world.code("Ada@Example.org", VERIFY, 1).await;
        world.accounts().verify_email(VerifyEmailRequest { code: code.clone() }).await.unwrap();
        assert_refused(world.accounts().verify_email(VerifyEmailRequest { code }).await, Reason::CodeInvalid);
        let refreshed = world.refresh(&before.refresh_token).await;
        assert_eq!(refreshed.body["scope"], "comment.write content.write media.write profile sig.write");

        let person = world.person("ADA@example.ORG", PASSWORD).await;
        let me = world.me(&person).await.unwrap();
        assert_eq!((me.email.as_str(), me.email_verified, me.display_name.as_str()), ("Ada@Example.org", true, "Ada"));
        assert_eq!((me.roles, me.tier.as_str(), me.etag.as_str()), (vec!["member".to_owned()], "free", "2"));
        assert_eq!(me.spiffe_id, format!("spiffe://guildhall.internal/user/{}", me.id));
        world.heard("auth.user.registered", &me.id, 1).await;
    }

    async fn where_verified_addresses_are_not_required_a_new_account_writes_at_once(backend: Backend) {
        let world = World::with(backend, |settings| settings.set("require_verified_email", false)).await;
        world.register("ada@example.org").await;
        let tokens = world.login("ada@example.org", PASSWORD).await.unwrap();
        assert_eq!(claims(&tokens.access_token)["scope"], "comment.write content.write media.write profile sig.write");
    }

    async fn a_taken_address_gets_the_same_answer_and_its_owner_a_mail(backend: Backend) {
        let world = World::start(backend).await;
        world.register("ada@example.org").await;
        let again = RegisterRequest { password: "another password".into(), ..registration("ADA@example.org") };
        world.accounts().register(again).await.unwrap();
        crate::world::eventually("the mail", async || world.mails("ada@example.org", TAKEN).pop()).await;
        assert_eq!(world.mails("ada@example.org", VERIFY).len(), 1);
        assert_refused(world.login("ada@example.org", "another password").await, Reason::CredentialsInvalid);
        world.login("ada@example.org", PASSWORD).await.unwrap();
        let id = world.person("ada@example.org", PASSWORD).await.id;
        world.heard("auth.user.registered", &id, 1).await;
    }

    async fn of_many_who_register_an_address_at_once_one_gets_it(backend: Backend) {
        let world = World::with(backend, |settings| settings.set("attempts.factor", 100)).await;
        let attempts = (0..8).map(|n| {
            let mut accounts = world.accounts();
            async move {
                let request = RegisterRequest { password: format!("the password {n}"), ..registration("ada@example.org") };
                accounts.register(request).await.unwrap();
            }
        });
        futures_util::future::join_all(attempts).await;
        let mut admitted = 0;
        for n in 0..8 {
            admitted += usize::from(world.login("ada@example.org", &format!("the password {n}")).await.is_ok());
        }
        assert_eq!(admitted, 1);
    }

    async fn a_verification_code_is_good_for_a_day(backend: Backend) {
        let world = World::start(backend).await;
        world.register("ada@example.org").await;
        let code = world.code("ada@example.org", VERIFY, 1).await;
        world.clock.advance(Duration::from_hours(24));
        assert_refused(world.accounts().verify_email(VerifyEmailRequest { code }).await, Reason::CodeInvalid);
    }

    async fn a_reset_sets_the_password_and_ends_every_session(backend: Backend) {
        let world = World::start(backend).await;
        let ada = world.member("ada@example.org").await;
        let request = RequestPasswordResetRequest { email: "ADA@example.org".into() };
        world.accounts().request_password_reset(request).await.unwrap();
        let code = world.code("ada@example.org", RESET, 1).await;
        world.clock.advance(Duration::from_secs(1));

        let wrong_purpose = world.accounts().verify_email(VerifyEmailRequest { code: code.clone() }).await;
        assert_refused(wrong_purpose, Reason::CodeInvalid);
        let reset = ResetPasswordRequest { code, password: "a brand new password".into() };
        world.accounts().reset_password(reset.clone()).await.unwrap();
        assert_refused(world.accounts().reset_password(reset).await, Reason::CodeInvalid);

        assert_refused(world.me(&ada).await, Reason::TokenRevoked);
        assert_eq!(world.refresh(&ada.refresh).await.body["error"], "invalid_grant");
        assert_refused(world.login("ada@example.org", PASSWORD).await, Reason::CredentialsInvalid);
        world.clock.advance(Duration::from_secs(1));
        world.person("ada@example.org", "a brand new password").await;
        world.heard("auth.token.revoked", &ada.id, 1).await;
    }

    async fn of_many_who_use_a_code_at_once_one_does(backend: Backend) {
        let world = World::start(backend).await;
        world.register("ada@example.org").await;
        let request = RequestPasswordResetRequest { email: "ada@example.org".into() };
        world.accounts().request_password_reset(request).await.unwrap();
        let code = world.code("ada@example.org", RESET, 1).await;
        let resets = (0..8).map(|n| {
            let reset = ResetPasswordRequest { code: code.clone(), password: format!("the password {n}") };
            let mut accounts = world.accounts();
            async move { accounts.reset_password(reset).await }
        });
        let outcomes = futures_util::future::join_all(resets).await;
        let winners: Vec<_> = (0..8).filter(|n| outcomes[*n].is_ok()).collect();
        assert_eq!(winners.len(), 1);
        for outcome in outcomes.into_iter().filter(Result::is_err) {
            assert_refused(outcome, Reason::CodeInvalid);
        }
        world.login("ada@example.org", &format!("the password {}", winners[0])).await.unwrap();
    }

    async fn a_reset_code_is_good_for_half_an_hour(backend: Backend) {
        let world = World::start(backend).await;
        world.register("ada@example.org").await;
        let request = RequestPasswordResetRequest { email: "ada@example.org".into() };
        world.accounts().request_password_reset(request).await.unwrap();
        let code = world.code("ada@example.org", RESET, 1).await;
        world.clock.advance(Duration::from_mins(30));
        let reset = ResetPasswordRequest { code, password: "a brand new password".into() };
        assert_refused(world.accounts().reset_password(reset).await, Reason::CodeInvalid);
        world.login("ada@example.org", PASSWORD).await.unwrap();
    }

    async fn a_reset_for_an_unknown_address_is_answered_alike_and_mails_nobody(backend: Backend) {
        let world = World::start(backend).await;
        world.register("ada@example.org").await;
        for email in ["nobody@example.org", "ada@example.org"] {
            world.accounts().request_password_reset(RequestPasswordResetRequest { email: email.into() }).await.unwrap();
        }
        // The mails go in order: when Ada has hers, nobody's would be there.
        world.code("ada@example.org", RESET, 1).await;
        assert_eq!(world.mails("nobody@example.org", RESET).len(), 0);
    }

    async fn an_unknown_address_and_a_wrong_password_are_refused_alike(backend: Backend) {
        let world = World::start(backend).await;
        world.register("ada@example.org").await;
        let unknown = world.login("nobody@example.org", PASSWORD).await.unwrap_err();
        let wrong = world.login("ada@example.org", "wrong password").await.unwrap_err();
        assert_eq!(unknown.code(), Code::Unauthenticated);
        assert_eq!((unknown.code(), unknown.message(), unknown.details()), (wrong.code(), wrong.message(), wrong.details()));
    }

    async fn too_many_failures_shut_an_account_for_a_while_but_not_its_sessions(backend: Backend) {
        let world = World::start(backend).await;
        let ada = world.member("ada@example.org").await;
        for _ in 0..10 {
            assert_refused(world.login("ada@example.org", "wrong password").await, Reason::CredentialsInvalid);
        }
        let problem = refusal(world.login("Ada@example.org", PASSWORD).await);
        assert_eq!(problem.reason(), Reason::TooManyAttempts);
        let wait = problem.retry_delay().expect("it says when to come back");
        assert!(wait <= Duration::from_secs(90), "{wait:?}");

        world.me(&ada).await.unwrap();
        assert_eq!(world.refresh(&ada.refresh).await.status, 200);
        world.login("somebody@example.org", "wrong password").await.unwrap_err();
        world.clock.advance(wait);
        world.login("ada@example.org", PASSWORD).await.unwrap();
    }

    async fn a_reset_opens_an_account_that_others_have_shut(backend: Backend) {
        let world = World::start(backend).await;
        world.register("ada@example.org").await;
        for _ in 0..10 {
            assert_refused(world.login("ada@example.org", "wrong password").await, Reason::CredentialsInvalid);
        }
        assert_refused(world.login("ada@example.org", PASSWORD).await, Reason::TooManyAttempts);
        let request = RequestPasswordResetRequest { email: "ada@example.org".into() };
        world.accounts().request_password_reset(request).await.unwrap();
        let code = world.code("ada@example.org", RESET, 1).await;
        let reset = ResetPasswordRequest { code, password: "a brand new password".into() };
        world.accounts().reset_password(reset).await.unwrap();
        world.login("ada@example.org", "a brand new password").await.unwrap();
    }

    async fn concurrent_guesses_do_not_outrun_the_limit(backend: Backend) {
        let world = World::start(backend).await;
        world.register("ada@example.org").await;
        let guesses = (0..40).map(|n| {
            let mut accounts = world.accounts();
            async move {
                let request = LoginRequest { email: "ada@example.org".into(), password: format!("guess number {n}") };
                refusal(accounts.login(request).await).reason()
            }
        });
        let reasons = futures_util::future::join_all(guesses).await;
        assert_eq!(reasons.iter().filter(|reason| **reason == Reason::CredentialsInvalid).count(), 10);
    }

    async fn an_address_is_shut_for_every_account(backend: Backend) {
        let world = World::start(backend).await;
        let from = |address: &'static str, n: usize| {
            let mut request = Request::new(LoginRequest { email: format!("{n}@example.org"), password: "wrong password".into() });
            request.metadata_mut().insert("x-client-address", address.parse().unwrap());
            let mut accounts = world.accounts();
            async move { refusal(accounts.login(request).await).reason() }
        };
        for n in 0..50 {
            assert_eq!(from("192.0.2.1", n).await, Reason::CredentialsInvalid);
        }
        assert_eq!(from("192.0.2.1", 50).await, Reason::TooManyAttempts);
        assert_eq!(from("192.0.2.2", 51).await, Reason::CredentialsInvalid);
    }

    async fn nobody_can_be_flooded_with_mails(backend: Backend) {
        let world = World::start(backend).await;
        world.register("ada@example.org").await;
        let ask = || async {
            world.accounts().request_password_reset(RequestPasswordResetRequest { email: "ada@example.org".into() }).await
        };
        for _ in 0..4 {
            ask().await.unwrap();
        }
        assert_refused(ask().await, Reason::TooManyAttempts);
        assert_refused(world.accounts().register(registration("ada@example.org")).await, Reason::TooManyAttempts);
    }

    async fn a_password_is_the_same_composed_and_decomposed(backend: Backend) {
        let world = World::start(backend).await;
        let composed = RegisterRequest { password: "caf\u{e9} caf\u{e9} caf\u{e9}".into(), ..registration("ada@example.org") };
        world.accounts().register(composed).await.unwrap();
        world.login("ada@example.org", "cafe\u{301} cafe\u{301} cafe\u{301}").await.unwrap();
        assert_refused(world.login("ada@example.org", "cafe cafe cafe").await, Reason::CredentialsInvalid);
    }

    async fn bad_input_is_refused_by_field_and_nothing_is_written(backend: Backend) {
        let world = World::start(backend).await;
        let good = registration("ada@example.org");
        let bad = [
            ("email", RegisterRequest { email: "no address".into(), ..good.clone() }),
            ("email", RegisterRequest { email: String::new(), ..good.clone() }),
            ("email", RegisterRequest { email: format!("{}@example.org", "a".repeat(250)), ..good.clone() }),
            ("email", RegisterRequest { email: "ada@example.org\r\nBcc: eve@example.org".into(), ..good.clone() }),
            ("password", RegisterRequest { password: "short".into(), ..good.clone() }),
            ("password", RegisterRequest { password: "x".repeat(257), ..good.clone() }),
            ("password", RegisterRequest { password: "correct\u{8}horse battery".into(), ..good.clone() }),
            ("displayName", RegisterRequest { display_name: "   ".into(), ..good.clone() }),
            ("displayName", RegisterRequest { display_name: "A\nda".into(), ..good.clone() }),
            ("displayName", RegisterRequest { display_name: "x".repeat(81), ..good.clone() }),
            ("displayName", RegisterRequest { display_name: "\u{200b}".into(), ..good.clone() }),
            ("displayName", RegisterRequest { display_name: "\u{202e}adA".into(), ..good.clone() }),
            ("displayName", RegisterRequest { display_name: "A\0da".into(), ..good }),
        ];
        for (field, request) in bad {
            let problem = refusal(world.accounts().register(request).await);
            assert_eq!(problem.reason(), Reason::InvalidFields, "{field}");
            assert_eq!(problem.violation_list()[0].field, field);
        }
        assert_refused(world.login("ada@example.org", PASSWORD).await, Reason::CredentialsInvalid);
        assert_refused(world.accounts().verify_email(VerifyEmailRequest { code: "x".repeat(129) }).await, Reason::InvalidFields);
        assert_refused(world.accounts().verify_email(VerifyEmailRequest { code: "x".into() }).await, Reason::CodeInvalid);
        let reset = ResetPasswordRequest { code: "x".into(), password: "long enough".into() };
        assert_refused(world.accounts().reset_password(reset).await, Reason::CodeInvalid);
    }

    async fn a_hash_is_renewed_at_log_in_when_the_parameters_have_changed(backend: Backend) {
        let world = World::start(backend).await;
        world.register("ada@example.org").await;
        let world = world.restart(|settings| settings.set("password.iterations", 2)).await;
        for _ in 0..3 {
            world.login("ada@example.org", PASSWORD).await.unwrap();
        }
        assert_refused(world.login("ada@example.org", "wrong password").await, Reason::CredentialsInvalid);
    }

    async fn a_mail_that_was_asked_for_survives_a_mailer_that_does_not_work(backend: Backend) {
        let world = World::with(backend, |settings| {
            settings.set("mail.transport", "smtp").set("mail.smtp_url", "smtp://127.0.0.1:1")
        })
        .await;
        world.register("ada@example.org").await;
        let world = world.restart(|settings| settings).await;
        world.clock.advance(Duration::from_hours(1));
        let code = world.code("ada@example.org", VERIFY, 1).await;
        world.accounts().verify_email(VerifyEmailRequest { code }).await.unwrap();
    }
}
