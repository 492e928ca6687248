//! Mails that leave over SMTP.

use std::time::Duration;

use contracts::auth::v1::VerifyEmailRequest;
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
    sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
};

use crate::{
    on_both,
    world::{World, registration},
};

/// A mail server that takes everything (RFC 5321), and what it took. It leaves the sender of the mails in `slow` without an answer.
async fn mail_server(slow: &'static str) -> (std::net::SocketAddr, UnboundedReceiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (taken, mails) = unbounded_channel();
    tokio::spawn(async move {
        while let Ok((connection, _)) = listener.accept().await {
            tokio::spawn(converse(connection, slow, taken.clone()));
        }
    });
    (address, mails)
}

async fn converse(connection: TcpStream, slow: &str, taken: UnboundedSender<String>) -> std::io::Result<()> {
    let mut connection = BufReader::new(connection);
    connection.write_all(b"220 ready\r\n").await?;
    let (mut line, mut mail): (_, Option<String>) = (String::new(), None);
    while connection.read_line(&mut line).await? > 0 {
        let answer = match (&mut mail, line.as_str()) {
            (Some(text), ".\r\n") => {
                let answered = !text.contains(slow);
                let _ = taken.send(std::mem::take(text));
                mail = None;
                if answered { "250 taken\r\n" } else { "" }
            }
            (Some(text), line) => {
                text.push_str(line);
                ""
            }
            (None, "DATA\r\n") => {
                mail = Some(String::new());
                "354 go on\r\n"
            }
            (None, _) => "250 fine\r\n",
        };
        connection.write_all(answer.as_bytes()).await?;
        line.clear();
    }
    Ok(())
}

on_both! {
    async fn a_code_arrives_over_smtp(backend: Backend) {
        let (address, mut mails) = mail_server("nobody").await;
        let world = World::with(backend, |settings| {
            settings.set("mail.transport", "smtp").set("mail.smtp_url", format!("smtp://{address}"))
        })
        .await;
        world.accounts().register(registration("ada@example.org")).await.unwrap();
        let mail = mails.recv().await.unwrap();
        assert!(mail.contains("To: ada@example.org\r\n"), "{mail}");
        let code = mail.lines().find(|line| line.len() == 43 && !line.contains(' ')).unwrap().to_owned();
        world.accounts().verify_email(VerifyEmailRequest { code }).await.unwrap();
    }

    async fn a_mail_that_is_under_way_is_not_sent_twice(backend: Backend) {
        let (address, mut mails) = mail_server("To: ada@").await;
        let world = World::with(backend, |settings| {
            settings.set("mail.transport", "smtp").set("mail.smtp_url", format!("smtp://{address}"))
        })
        .await;
        for name in ["ada", "bob", "cem"] {
            world.accounts().register(registration(&format!("{name}@example.org"))).await.unwrap();
            let mail = mails.recv().await.unwrap();
            assert!(mail.contains(&format!("To: {name}@example.org\r\n")), "{mail}");
            world.clock.advance(Duration::from_secs(15));
        }
    }
}
