//! Mails: what they say, and how they leave.
//!
//! A mail is asked for by a row that commits with the change it is about (`store::mail`), so an acknowledged registration's mail
//! is never lost; [`crate::delivery`] makes its code and hands it to a [`Mailer`], again and again until that takes it.

use std::{os::unix::fs::DirBuilderExt, path::PathBuf, time::Duration};

use futures_util::future::BoxFuture;
use ids::{MailId, Timestamp};
use lettre::{
    AsyncSmtpTransport, AsyncTransport, Message, Tokio1Executor,
    message::{Mailbox, header::ContentType},
};
use serde::Deserialize;

use crate::code::{Purpose, Secret};

/// What a mail is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    VerifyEmail,
    ResetPassword,
    /// Somebody tried to register an address that has an account.
    AddressTaken,
}

impl Kind {
    /// Its name in the database.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::VerifyEmail => "verify_email",
            Self::ResetPassword => "reset_password",
            Self::AddressTaken => "address_taken",
        }
    }

    /// The code that the mail carries.
    pub fn code(self) -> Option<Purpose> {
        match self {
            Self::VerifyEmail => Some(Purpose::VerifyEmail),
            Self::ResetPassword => Some(Purpose::ResetPassword),
            Self::AddressTaken => None,
        }
    }
}

/// A mail that is to be sent.
#[derive(Clone, Debug)]
pub struct Pending {
    pub id: MailId,
    pub kind: Kind,
    /// The normal form of the address; there may be no such account.
    pub email_key: String,
    /// How often sending it was tried.
    pub attempts: i64,
    pub created: Timestamp,
}

/// How long an undeliverable mail is tried.
const LIFE: Duration = Duration::from_hours(24);
/// How long a try may take.
pub const TRY: Duration = Duration::from_secs(30);
/// The first wait from one try to the next; it doubles up to an hour. It is longer than a try: nobody takes a mail that is under way.
const FIRST_WAIT: Duration = Duration::from_mins(1);
const LONGEST_WAIT: Duration = Duration::from_hours(1);

impl Pending {
    /// When a mail that is tried now is tried again, should that fail.
    pub fn next_try(&self, now: Timestamp) -> Timestamp {
        let doublings = u32::try_from(self.attempts).unwrap_or(u32::MAX).min(16);
        now + (FIRST_WAIT * 2_u32.pow(doublings)).min(LONGEST_WAIT)
    }

    pub fn is_hopeless(&self, now: Timestamp) -> bool {
        now.since(self.created) > LIFE
    }
}

/// A mail as it leaves: plain text, nothing in it that a stranger wrote.
pub struct Letter {
    pub id: MailId,
    pub to: String,
    pub subject: &'static str,
    pub body: String,
    pub sent: Timestamp,
}

impl Letter {
    /// Writes the mail of this kind. `issuer` is the address that the reader knows us by.
    pub fn write(id: MailId, kind: Kind, to: &str, code: Option<&Secret>, issuer: &str, sent: Timestamp) -> Self {
        let code = code.map_or("", Secret::expose);
        let (subject, body) = match kind {
            Kind::VerifyEmail => (
                "Verify your e-mail address",
                format!(
                    "Welcome to {issuer}.\n\nThis code verifies your e-mail address. It is good for 24 hours and for one use:\n\n\
                     {code}\n\nIf you did not register, ignore this mail.\n"
                ),
            ),
            Kind::ResetPassword => (
                "Reset your password",
                format!(
                    "Somebody, probably you, asked to reset your password at {issuer}.\n\nThis code sets a new one. It is good \
                     for 30 minutes and for one use:\n\n{code}\n\nIf it was not you, ignore this mail: your password stays.\n"
                ),
            ),
            Kind::AddressTaken => (
                "You have an account already",
                format!(
                    "Somebody, probably you, tried to register at {issuer} with this e-mail address, which has an account \
                     already.\n\nIf you have forgotten your password, ask for a reset. If it was not you, ignore this mail: \
                     nothing has changed.\n"
                ),
            ),
        };
        Self { id, to: to.to_owned(), subject, body, sent }
    }

    fn message(&self, from: &Mailbox) -> Result<Message, Error> {
        let to = self.to.parse().map_err(|_| Error::Address)?;
        Message::builder()
            .from(from.clone())
            .to(Mailbox::new(None, to))
            .subject(self.subject)
            .date(std::time::UNIX_EPOCH + self.sent.since(Timestamp::from_micros(0)))
            .header(ContentType::TEXT_PLAIN)
            .body(self.body.clone())
            .map_err(Error::Message)
    }
}

/// Why a mail was not sent. The text never tells the address.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the address cannot be mailed to")]
    Address,
    #[error("the sender `{0}` is not an address")]
    Sender(String),
    #[error("the mail cannot be written")]
    Message(#[source] lettre::error::Error),
    #[error("the mail server did not take the mail")]
    Smtp(#[source] lettre::transport::smtp::Error),
    #[error("the mail server took too long")]
    Slow,
    #[error("the mail file cannot be written")]
    File(#[source] std::io::Error),
}

/// Hands mails over for delivery.
pub trait Mailer: Send + Sync + 'static {
    /// Returns once the mail is in somebody else's care.
    fn send(&self, letter: Letter) -> BoxFuture<'_, Result<(), Error>>;
}

/// How mails leave. No `Debug`: the URL may hold a password.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// The sender of every mail.
    pub from: String,
    pub transport: Transport,
    /// For `transport = "smtp"`: `smtps://user:password@host:465`, or `smtp://host:587?tls=required` for STARTTLS.
    pub smtp_url: String,
    /// For `transport = "directory"`: where the files go.
    pub directory: PathBuf,
}

/// The ways there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    Smtp,
    /// Mails are kept as files and printed: for a laptop.
    Directory,
}

impl Settings {
    /// The mailer of these settings.
    pub fn mailer(&self) -> Result<Box<dyn Mailer>, Error> {
        let from: Mailbox = self.from.parse().map_err(|_| Error::Sender(self.from.clone()))?;
        Ok(match self.transport {
            Transport::Smtp => Box::new(Smtp::new(&self.smtp_url, from)?),
            Transport::Directory => Box::new(Directory::new(self.directory.clone(), from)?),
        })
    }
}

/// Sends over SMTP, over a few connections that are kept.
pub struct Smtp {
    transport: AsyncSmtpTransport<Tokio1Executor>,
    from: Mailbox,
}

impl Smtp {
    /// Sends by the server at `url`. Nothing connects yet.
    pub fn new(url: &str, from: Mailbox) -> Result<Self, Error> {
        let transport = AsyncSmtpTransport::<Tokio1Executor>::from_url(url)
            .map_err(Error::Smtp)?
            .timeout(Some(Duration::from_secs(20)))
            .build();
        Ok(Self { transport, from })
    }
}

impl Mailer for Smtp {
    fn send(&self, letter: Letter) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(async move {
            let message = letter.message(&self.from)?;
            self.transport.send(message).await.map(drop).map_err(Error::Smtp)
        })
    }
}

/// Keeps each mail as a file, and prints a line that says so.
pub struct Directory {
    path: PathBuf,
    from: Mailbox,
}

impl Directory {
    /// Keeps mails in `path`, which is made when it is not there, for its owner alone: there are codes in it.
    pub fn new(path: PathBuf, from: Mailbox) -> Result<Self, Error> {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&path).map_err(Error::File)?;
        Ok(Self { path, from })
    }
}

impl Mailer for Directory {
    fn send(&self, letter: Letter) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(async move {
            let message = letter.message(&self.from)?.formatted();
            // The ids are UUIDv7: the files sort by time.
            let stem = letter.id.to_string();
            let path = self.path.join(format!("{stem}.eml"));
            // Readers see whole mails only.
            let unfinished = self.path.join(format!("{stem}.part"));
            tokio::fs::write(&unfinished, message).await.map_err(Error::File)?;
            tokio::fs::rename(&unfinished, &path).await.map_err(Error::File)?;
            println!("mail to {}: {} ({})", letter.to, letter.subject, path.display());
            Ok(())
        })
    }
}

#[cfg(test)]
mod tests {
    use ids::Source;
    use proptest::prelude::*;

    use super::*;

    fn pending(attempts: i64) -> Pending {
        let created = Timestamp::from_micros(0);
        Pending { id: Source::system().id(), kind: Kind::VerifyEmail, email_key: String::new(), attempts, created }
    }

    proptest! {
        #[test]
        fn the_waits_between_tries_grow_up_to_an_hour(attempts in 0_i64..1_000_000) {
            let now = Timestamp::from_micros(0);
            let (wait, next) = (pending(attempts).next_try(now).since(now), pending(attempts + 1).next_try(now).since(now));
            prop_assert!(FIRST_WAIT <= wait && wait <= next && next <= LONGEST_WAIT);
        }
    }

    #[test]
    fn a_mail_is_given_up_after_a_day() {
        let created = Timestamp::from_micros(0);
        assert!(!pending(30).is_hopeless(created + LIFE));
        assert!(pending(30).is_hopeless(created + LIFE + Duration::from_secs(1)));
    }

    #[test]
    fn a_letter_is_plain_text_with_its_code_on_a_line_of_its_own() {
        let source = Source::system();
        let code = Secret::random(&source);
        let letter = Letter::write(
            source.id(),
            Kind::ResetPassword,
            "ada@example.org",
            Some(&code),
            "https://a.example",
            source.now(),
        );
        let from = "Guildhall <no-reply@a.example>".parse().unwrap();
        let message = String::from_utf8(letter.message(&from).unwrap().formatted()).unwrap();
        assert!(message.contains("To: ada@example.org\r\n") && message.contains("Content-Type: text/plain"));
        assert!(message.lines().any(|line| line == code.expose()));
    }
}
