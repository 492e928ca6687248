//! Sends the mails that were asked for.
//!
//! A mail is taken by one replica at a time, its code is made and stored, and it goes to the [`Mailer`]; its row goes when that has
//! taken it. A process that dies in between sends it once more, with another code.

use std::{sync::Arc, time::Duration};

use ids::{Source, Timestamp};
use status::Problem;
use store::{Db, Tx};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::{
    account::Account,
    code::Secret,
    mail::{self, Letter, Mailer, Pending},
    store as tables,
};

/// Mails that are sent at a time.
const CONCURRENCY: usize = 4;
/// How often due mails are looked for when nobody rings.
const INTERVAL: Duration = Duration::from_secs(5);

/// The sender of mails.
pub struct Delivery {
    pub db: Db,
    pub source: Source,
    pub mailer: Box<dyn Mailer>,
    /// Rung when a mail was asked for.
    pub bell: Arc<Notify>,
    /// The address that the reader of a mail knows us by.
    pub issuer: String,
}

/// What became of a look at the queue.
enum Step {
    /// A mail was sent or put off.
    Done,
    /// Another took it first.
    Lost,
    /// Nothing is due.
    Idle,
}

/// What taking a mail came to.
enum Taken {
    Letter(Letter),
    /// No account has that address: there is nothing to send.
    ForNobody,
    ByAnother,
}

impl Delivery {
    /// Sends until `drain`. What is not sent by then waits for the next start.
    pub async fn run(self, drain: CancellationToken) {
        let workers = (0..CONCURRENCY).map(|_| self.work(&drain));
        futures_util::future::join_all(workers).await;
    }

    async fn work(&self, drain: &CancellationToken) {
        while !drain.is_cancelled() {
            match self.step().await {
                Ok(Step::Done) => self.bell.notify_one(),
                Ok(Step::Lost) => {}
                Ok(Step::Idle) => self.rest(drain).await,
                Err(problem) => {
                    let cause = problem.cause().map(ToString::to_string).unwrap_or_default();
                    tracing::warn!(error = problem.text(), cause, "Mails wait: the database does not answer");
                    self.rest(drain).await;
                }
            }
        }
    }

    async fn rest(&self, drain: &CancellationToken) {
        tokio::select! {
            () = drain.cancelled() => {}
            () = self.bell.notified() => {}
            () = tokio::time::sleep(INTERVAL) => {}
        }
    }

    async fn step(&self) -> Result<Step, Problem> {
        let due = {
            let mut conn = self.db.read().await?;
            tables::mail::due(&mut conn, self.source.now()).await?
        };
        let Some(mail) = due else { return Ok(Step::Idle) };
        if mail.is_hopeless(self.source.now()) {
            tracing::error!(mail.id = %mail.id, mail.attempts, "A mail could not be sent for a day and was given up");
            self.forget(&mail).await?;
            return Ok(Step::Done);
        }
        let sent = match self.take(&mail).await? {
            Taken::Letter(letter) => {
                let sending = tokio::time::timeout(mail::TRY, self.mailer.send(letter));
                sending.await.unwrap_or(Err(mail::Error::Slow))
            }
            Taken::ForNobody => Ok(()),
            Taken::ByAnother => return Ok(Step::Lost),
        };
        match sent {
            Ok(()) => self.forget(&mail).await?,
            Err(error) => {
                let cause = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
                tracing::warn!(mail.id = %mail.id, mail.attempts, %error, cause, "A mail was not sent and will be tried again");
            }
        }
        Ok(Step::Done)
    }

    /// Takes the mail, and writes it with a new code.
    async fn take(&self, mail: &Pending) -> Result<Taken, Problem> {
        let account = {
            let mut conn = self.db.read().await?;
            tables::account::find_by_email(&mut conn, &mail.email_key).await?
        };
        let now = self.source.now();
        let mut tx = self.db.begin().await?;
        if !tables::mail::take(&mut tx, mail, now).await? {
            return Ok(Taken::ByAnother);
        }
        let taken = match account {
            Some(account) => Taken::Letter(self.write(&mut tx, mail, &account, now).await?),
            None => Taken::ForNobody,
        };
        tx.commit().await?;
        Ok(taken)
    }

    async fn write(&self, tx: &mut Tx, mail: &Pending, account: &Account, now: Timestamp) -> Result<Letter, Problem> {
        let to = account.email.written();
        let Some(purpose) = mail.kind.code() else {
            return Ok(Letter::write(mail.id, mail.kind, to, None, &self.issuer, now));
        };
        let code = Secret::random(&self.source);
        tables::code::insert(tx, &code.hash(), account.id, purpose, now, now + purpose.life()).await?;
        Ok(Letter::write(mail.id, mail.kind, to, Some(&code), &self.issuer, now))
    }

    async fn forget(&self, mail: &Pending) -> Result<(), Problem> {
        let mut tx = self.db.begin().await?;
        tables::mail::delete(&mut tx, mail.id).await?;
        Ok(tx.commit().await?)
    }
}
